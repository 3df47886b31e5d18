//! `man`: the manual pages of the program and its commands.

use std::{fs, io};

use clap::CommandFactory as _;

use crate::{
    args::{Cli, ManArgs},
    failure::{Failure, at},
    terminal::result,
};

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
