//! `man` and `completions`: what a shell and a reader want to know of the command line.

use std::{fs, io};

use clap::CommandFactory as _;

use crate::{
    args::{Cli, CompletionsArgs, ManArgs},
    failure::{Failure, at},
    terminal::result,
};

/// `twoview completions`.
///
/// # Errors
/// None: a stdout that is closed has what it wanted.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "twoview", &mut text);
    result(String::from_utf8_lossy(&text).trim_end())
}

/// `twoview man`.
///
/// # Errors
/// [`Exit::Io`](crate::failure::Exit::Io) where the folder cannot be written.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    fs::create_dir_all(&args.dir).map_err(at(&args.dir))?;
    let written: io::Result<()> = clap_mangen::generate_to(Cli::command(), &args.dir);
    written.map_err(at(&args.dir))?;
    result(&format!("wrote    {}; man -l {}", args.dir.display(), args.dir.join("twoview.1").display()))
}
