//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use twoview_encoder::Arch;

/// Learn image representations from a folder of pictures, without labels.
///
/// Results go to stdout, messages and progress to stderr.
#[derive(Debug, Parser)]
#[command(name = "twoview", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Start with `twoview demo`: it needs no files and no network.\n\n\
Exit codes: 0 done · 1 bug · 2 usage or configuration · 3 data unusable · 4 I/O (resumable) · 5 non-finite loss · \
7 run locked or mismatched · 8 corrupt model file · 130/143 interrupted (resumable)";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make pictures, train on them and measure the result: end to end, without files or network
    Demo(DemoArgs),
    /// Train an encoder on a folder of pictures, or as a run file says
    Pretrain(PretrainArgs),
    /// Go on with a run exactly where it stopped
    Resume(ResumeArgs),
    /// Measure how good a run's encoder is, beside raw pixels and the untrained encoder
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Write the features of every picture in a folder
    Embed(EmbedArgs),
    /// Look at a folder of pictures, or make one
    #[command(subcommand)]
    Data(DataCommand),
    /// Show what a run would do
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Measure speed on this machine
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// Where to compute, on every command that does.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// auto, flex, ndarray, wgpu, vulkan, metal, cuda or rocm; cuda:1 picks the second. Which ones exist was decided when
    /// the program was built
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub(crate) device: String,
}

/// Where the configuration comes from, on every command that has one.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration to start from: small, photos, demo, demo_quick, cifar10/resnet18_w16, or a run file (.toml);
    /// without it, small or photos is picked by the size of the pictures
    #[arg(long, value_name = "NAME|RUNFILE")]
    pub(crate) preset: Option<String>,
    /// Change one key: --set loss.temperature=0.2 --set length.epochs=20
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Under a minute: fewer pictures, a smaller claim
    #[arg(long)]
    pub(crate) quick: bool,
    /// Seed of pictures, weights and views
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// The run directory to make; without it, runs/demo-N
    #[arg(long, value_name = "RUN")]
    pub(crate) out: Option<PathBuf>,
    /// Change one key of the configuration: --set length.epochs=8
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// End with one line of JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PretrainArgs {
    /// A folder of pictures, or a run file (.toml)
    #[arg(value_name = "DATA|RUNFILE")]
    pub(crate) input: PathBuf,
    /// The run directory to make; without it, runs/NAME-N
    #[arg(long, value_name = "RUN")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Hold fewer activations and compute them again in the backward pass: slower, the same bits (twoview's CPU kernels only)
    #[arg(long)]
    pub(crate) recompute: bool,
    /// End with one line of JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The run directory
    pub(crate) run: PathBuf,
    /// Go on although the pictures are not the ones the run began with
    #[arg(long)]
    pub(crate) accept_data_change: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Hold fewer activations and compute them again in the backward pass: slower, the same bits (twoview's CPU kernels only)
    #[arg(long)]
    pub(crate) recompute: bool,
    /// End with one line of JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Nearest neighbours: no training, no choices to tune
    Knn(KnnArgs),
    /// A linear classifier on the frozen features
    Linear(LinearArgs),
}

/// What is evaluated, on what.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// The run directory; without it, the newest one in runs/
    pub(crate) run: Option<PathBuf>,
    /// Labelled pictures, one sub-folder for each of at least two classes; without it, those of the run
    #[arg(long, value_name = "DIR")]
    pub(crate) train: Option<PathBuf>,
    /// Labelled pictures to test on; without it, a fifth of the labelled pictures is held out
    #[arg(long, value_name = "DIR")]
    pub(crate) test: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KnnArgs {
    #[command(flatten)]
    pub(crate) eval: EvalArgs,
    /// Neighbours that vote; without it, the run's setting
    #[arg(long)]
    pub(crate) k: Option<usize>,
    /// Votes weigh exp(cosine / temperature); without it, the run's setting
    #[arg(long)]
    pub(crate) temperature: Option<f64>,
}

#[derive(Debug, Args)]
pub(crate) struct LinearArgs {
    #[command(flatten)]
    pub(crate) eval: EvalArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// The run directory
    pub(crate) run: PathBuf,
    /// A folder of pictures
    pub(crate) data: PathBuf,
    /// npy: an array [N, F] and a list of names beside it; csv: one row for each picture
    #[arg(long, value_enum)]
    pub(crate) format: EmbedFormat,
    /// The file to write; without it, embeddings.npy or embeddings.csv in the run directory
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EmbedFormat {
    /// NumPy's array file, 32-bit floats, with FILE.names.csv beside it
    Npy,
    /// Comma-separated: path, label, then one column for each feature
    Csv,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Decode every picture of a folder and report what is there and what is broken
    Check(DataCheckArgs),
    /// Write a built-in set as a folder of pictures
    #[command(subcommand)]
    Make(DataMakeCommand),
    /// Download a published set: the only command that uses a network
    #[command(after_help = FETCH_HELP)]
    Fetch(DataFetchArgs),
}

const FETCH_HELP: &str = "The archive is checked against the recipe's SHA-256 before anything is unpacked, and the folder appears \
complete or not at all. Interrupted at any point, the same command goes on where it was. The environment variables \
https_proxy and all_proxy are respected.";

#[derive(Debug, Args)]
#[cfg_attr(not(feature = "fetch"), allow(dead_code, reason = "a build without the feature only says so"))]
pub(crate) struct DataFetchArgs {
    /// cifar10, cifar100, stl10, imagenette, or a recipe of your own (.toml)
    #[arg(value_name = "NAME|RECIPE")]
    pub(crate) name: Option<String>,
    /// The folder to make; without it, NAME
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// Say which sets are known, with their sizes and terms, and download nothing
    #[arg(long, conflicts_with_all = ["name", "to", "mirror"])]
    pub(crate) list: bool,
    /// Take the archive from URL/FILE instead, for example from a server of your own; it must be the same file
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Option<String>,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DataCheckArgs {
    /// The folder
    pub(crate) dir: PathBuf,
    /// Write every unusable file with its reason, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub(crate) bad_files: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataMakeCommand {
    /// Ten two-colour patterns at 32x32, the set of `twoview demo`
    Patterns(MakePatternsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MakePatternsArgs {
    /// The folder to make; gets train/CLASS/*.png and test/CLASS/*.png
    pub(crate) dir: PathBuf,
    /// Training pictures for each class
    #[arg(long, default_value_t = 1000)]
    pub(crate) train_per_class: u32,
    /// Test pictures for each class
    #[arg(long, default_value_t = 200)]
    pub(crate) test_per_class: u32,
    /// Seed of the pictures
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Plant this many broken files among the training pictures, to see what happens to them
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) bad: u32,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the complete configuration of a preset or run file, after --set
    Show(ConfigShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    /// A run file (.toml) or a run directory; without it, --preset says what to show
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Print one line of JSON instead of TOML
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Time training steps on random pictures, without any loading
    Step(BenchStepArgs),
    /// Time an objective's loss and gradient on random embeddings
    Loss(BenchLossArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchStepArgs {
    /// resnet18, resnet34 or resnet50
    #[arg(long, default_value = "resnet18", value_parser = parse_arch)]
    pub(crate) arch: Arch,
    /// Channels of the first stage; 64 is the standard width
    #[arg(long, default_value_t = 16, value_parser = in_range::<1, 1024>)]
    pub(crate) width: usize,
    /// Side of the square pictures, in pixels; up to 64 the CIFAR stem is used, above it the ImageNet stem
    #[arg(long, default_value_t = 32, value_parser = in_range::<1, 4096>)]
    pub(crate) image: usize,
    /// Source pictures in a batch; each gives two views
    #[arg(long, default_value_t = 128, value_parser = in_range::<2, 65536>)]
    pub(crate) batch: usize,
    /// Steps to time, after two that are not counted
    #[arg(long, default_value_t = 10, value_parser = in_range::<1, 100000>)]
    pub(crate) steps: usize,
    /// Use Burn's own operations instead of twoview's kernels
    #[arg(long)]
    pub(crate) stock: bool,
    /// Hold fewer activations and compute them again in the backward pass: slower, the same bits (twoview's CPU kernels only)
    #[arg(long)]
    pub(crate) recompute: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchLossArgs {
    /// nt_xent, info_nce, debiased, hard_negative, decoupled, decoupled_weighted, sup_con or in_batch_logistic
    #[arg(long, default_value = "nt_xent")]
    pub(crate) objective: String,
    /// Pictures; each has two embeddings
    #[arg(long, default_value_t = 4096, value_parser = in_range::<2, 1_048_576>)]
    pub(crate) pairs: usize,
    /// Dimensions of an embedding
    #[arg(long, default_value_t = 128, value_parser = in_range::<1, 65536>)]
    pub(crate) dim: usize,
    /// Divides the cosines
    #[arg(long, default_value_t = 0.5)]
    pub(crate) temperature: f64,
    /// Times to measure, after one that is not counted
    #[arg(long, default_value_t = 5, value_parser = in_range::<1, 100000>)]
    pub(crate) repeats: usize,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn in_range<const LEAST: usize, const MOST: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if (LEAST..=MOST).contains(&value) => Ok(value),
        _ => Err(format!("expected a whole number from {LEAST} to {MOST}")),
    }
}

fn parse_arch(text: &str) -> Result<Arch, String> {
    match text {
        "resnet18" => Ok(Arch::Resnet18),
        "resnet34" => Ok(Arch::Resnet34),
        "resnet50" => Ok(Arch::Resnet50),
        _ => Err("expected resnet18, resnet34 or resnet50".to_owned()),
    }
}
