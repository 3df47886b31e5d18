//! `twoview`: learn image representations from a folder of pictures, without labels.
//!
//! The only crate that reads arguments and configuration files, prints, and names a backend. A command turns its arguments
//! into a [`run_file::RunFile`], that into a checked [`run_plan::RunPlan`], and hands values to the crates below.

// Deeply nested generic types of the GPU backends exceed the default limit.
#![recursion_limit = "256"]

mod args;
mod bench;
mod bench_views;
mod cluster;
mod compare;
mod completions;
mod config;
mod data;
mod dedup;
mod demo;
mod device;
mod doctor;
mod embed;
mod embeddings;
#[cfg(feature = "parquet")]
mod embeddings_parquet;
mod encoder_weights;
mod evaluate;
mod events;
mod export;
mod failure;
#[cfg(feature = "fetch")]
mod fetch;
mod file_format;
mod import;
mod init;
mod label;
mod labelled;
mod list;
#[cfg(feature = "live")]
mod live;
mod man;
mod measurements;
mod metrics_csv;
mod model_card;
mod npy;
mod online;
mod pictures;
mod pretrain;
mod preview;
mod report;
mod run_file;
mod run_plan;
mod scores;
mod search;
mod signals;
mod spread;
mod start;
mod subject;
mod supervised;
mod terminal;
mod unfinished;

use std::{panic, process::ExitCode};

use clap::Parser;

use args::{BenchCommand, Cli, Command, ConfigCommand, DataCommand, DataMakeCommand};
use failure::{Exit, Failure};

// A training step allocates the same large buffers again and again. The system's allocator returns each to the kernel and
// faults it back in, page by page.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A panic is a bug of ours; by then the panic hook has said where.
    match panic::catch_unwind(|| run(&Cli::parse())).unwrap_or_else(|_| Err(Failure::new(Exit::Bug, BUG))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let said_as = if matches!(failure.exit, Exit::Interrupted | Exit::Terminated) { "" } else { "error: " };
            terminal::note(&format!("{said_as}{:#}", failure.error));
            ExitCode::from(failure.exit as u8)
        }
    }
}

const BUG: &str = "this is a bug in twoview; please report the lines above with the command";

#[cfg(not(feature = "fetch"))]
const NO_FETCH: &str = "this twoview was built without downloading; build it with `--features fetch`";

fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Demo(args) => demo::demo(args),
        Command::Pretrain(args) => pretrain::pretrain(args),
        Command::Resume(args) => pretrain::resume(args),
        Command::Eval(command) => evaluate::evaluate(command),
        Command::Embed(args) => embed::embed(args),
        Command::Export(args) => export::export(args),
        Command::Import(args) => import::import(args),
        Command::Preview(args) => preview::preview(args),
        Command::Search(args) => search::search(args),
        Command::Cluster(args) => cluster::cluster(args),
        Command::Dedup(args) => dedup::dedup(args),
        Command::Label(args) => label::label(args),
        Command::Report(args) => report::report(args),
        Command::Data(DataCommand::Check(args)) => data::check(args),
        Command::Data(DataCommand::Make(DataMakeCommand::Patterns(args))) => data::make_patterns(args),
        Command::Data(DataCommand::Pack(args)) => data::pack(args),
        #[cfg(feature = "fetch")]
        Command::Data(DataCommand::Fetch(args)) => fetch::fetch(args),
        #[cfg(not(feature = "fetch"))]
        Command::Data(DataCommand::Fetch(_)) => Err(Failure::new(Exit::Usage, NO_FETCH)),
        Command::Init(args) => init::init(args),
        Command::Doctor(args) => doctor::doctor(args),
        Command::List(args) => list::list(args),
        Command::Completions(args) => completions::completions(args),
        Command::Man(args) => man::man(args),
        Command::Config(ConfigCommand::Show(args)) => config::show(args),
        Command::Config(ConfigCommand::Schema) => config::schema(),
        Command::Bench(BenchCommand::Step(args)) => bench::bench_step(args),
        Command::Bench(BenchCommand::Loss(args)) => bench::bench_loss(args),
        Command::Bench(BenchCommand::Views(args)) => bench_views::bench_views(args),
        Command::Bench(BenchCommand::Load(args)) => bench_views::bench_load(args),
    }
}
