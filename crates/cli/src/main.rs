//! `twoview`: learn image representations from a folder of pictures, without labels.
//!
//! The only crate that reads arguments and configuration files, prints, and names a backend. A command turns its arguments
//! into a [`run_file::RunFile`], that into a checked [`run_plan::RunPlan`], and hands values to the crates below.

// Deeply nested generic types of the GPU backends exceed the default limit.
#![recursion_limit = "256"]

mod args;
mod bench;
mod config;
mod data;
mod demo;
mod device;
mod embed;
mod evaluate;
mod failure;
mod npy;
mod pictures;
mod pretrain;
mod run_file;
mod run_plan;
mod signals;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use args::{BenchCommand, Cli, Command, ConfigCommand, DataCommand, DataMakeCommand};
use failure::{Exit, Failure};

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let said_as = if matches!(failure.exit, Exit::Interrupted | Exit::Terminated) { "" } else { "error: " };
            terminal::note(&format!("{said_as}{:#}", failure.error));
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Demo(args) => demo::demo(args),
        Command::Pretrain(args) => pretrain::pretrain(args),
        Command::Resume(args) => pretrain::resume(args),
        Command::Eval(command) => evaluate::evaluate(command),
        Command::Embed(args) => embed::embed(args),
        Command::Data(DataCommand::Check(args)) => data::check(args),
        Command::Data(DataCommand::Make(DataMakeCommand::Patterns(args))) => data::make_patterns(args),
        Command::Config(ConfigCommand::Show(args)) => config::show(args),
        Command::Bench(BenchCommand::Step(args)) => bench::bench_step(args),
    }
}
