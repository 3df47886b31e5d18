//! `completions`: what a shell wants to know of the command line.

use clap::CommandFactory as _;

use crate::{
    args::{Cli, CompletionsArgs},
    failure::Failure,
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
