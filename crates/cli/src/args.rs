//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use twoview_augment::Recipe;
use twoview_data::{MAX_NEAR_BITS, NEAR_BITS, Split};
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

const PRETRAIN_EXAMPLES: &str = "Examples:\n  \
twoview pretrain photos/ --out runs/mine\n  \
twoview pretrain photos/ --preset photos --set loss.temperature=0.1\n  \
twoview pretrain photos/ --start resnet50.pth --out runs/adapted    begin with weights of torchvision";

const EXPORT_EXAMPLES: &str = "Examples:\n  \
twoview export runs/mine --format safetensors\n  \
twoview export runs/mine --format onnx --out encoder.onnx";

const IMPORT_EXAMPLES: &str = "Examples:\n  \
twoview import resnet50-11ad3fa6.pth --out runs/torchvision\n  \
twoview eval knn runs/torchvision --train photos/train --test photos/test\n  \
twoview import moco.pth.tar --prefix state_dict.module.encoder_q\n  \
twoview import cifar.ckpt --set 'normalize={mean=[0.5,0.5,0.5], std=[0.5,0.5,0.5]}'";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make pictures, train on them and measure the result: end to end, without files or network
    Demo(DemoArgs),
    /// Train an encoder on a folder of pictures, or as a run file says
    #[command(after_help = PRETRAIN_EXAMPLES)]
    Pretrain(PretrainArgs),
    /// Go on with a run exactly where it stopped
    Resume(ResumeArgs),
    /// Measure how good a run's encoder is, beside raw pixels and the untrained encoder
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Write the features of every picture in a folder
    Embed(EmbedArgs),
    /// Find the pictures most like a given one
    Search(SearchArgs),
    /// Put pictures into groups that look alike to the encoder
    Cluster(ClusterArgs),
    /// Find pictures that are nearly the same to the encoder
    Dedup(DedupArgs),
    /// Label all pictures from a few labels, by the neighbours of each
    Label(LabelArgs),
    /// Make one page about a run that opens offline in any browser: curves, map, neighbours, pairs worth a look
    Report(ReportArgs),
    /// Hand the encoder over: a file that PyTorch, timm or any ONNX runtime loads, with a card that says how
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Make a run of a ResNet that another program trained, to evaluate, embed with, or train on from
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(ImportArgs),
    /// Draw what the augmentations do to one's pictures, as a contact sheet
    Preview(PreviewArgs),
    /// Look at a folder of pictures, or make one
    #[command(subcommand)]
    Data(DataCommand),
    /// Write a commented run file to begin from
    Init(InitArgs),
    /// Say what this program finds on this machine
    Doctor(DoctorArgs),
    /// Name the presets, the recipes of views and the devices
    List(ListArgs),
    /// Write the completions of a shell to stdout
    Completions(CompletionsArgs),
    /// Write the manual pages into a folder
    Man(ManArgs),
    /// Show what a run would do
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Measure speed on this machine
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// Where to compute, on every command that does.
#[derive(Clone, Debug, Args)]
pub(crate) struct DeviceArgs {
    /// auto, flex, ndarray, wgpu, vulkan, metal, cuda or rocm; cuda:1 picks the second. Which ones exist was decided when
    /// the program was built
    #[arg(long, default_value = AUTO, value_name = "DEVICE")]
    pub(crate) device: String,
}

const AUTO: &str = "auto";

impl DeviceArgs {
    /// Whether the choice is left to the program.
    pub(crate) fn is_auto(&self) -> bool {
        self.device == AUTO
    }
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
    /// About a minute: fewer pictures, a smaller claim
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
    /// A folder of pictures, a set in another form (CIFAR, STL-10 or MNIST files, .tar or .parquet shards, a .pack), or a
    /// run file (.toml)
    #[arg(value_name = "DATA|RUNFILE")]
    pub(crate) input: PathBuf,
    /// The run directory to make; without it, runs/NAME-N
    #[arg(long, value_name = "RUN")]
    pub(crate) out: Option<PathBuf>,
    /// Begin with the encoder of this run or file of weights instead of at random. It replaces the encoder of a preset; one
    /// that a run file or --set describes has to be the same
    #[arg(long, value_name = "RUN|FILE")]
    pub(crate) start: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Hold fewer activations and compute them again in the backward pass: slower, the same bits (twoview's CPU kernels only)
    #[arg(long)]
    pub(crate) recompute: bool,
    /// Draw curves in the terminal while it trains
    #[arg(long)]
    pub(crate) live: bool,
    /// Write the measurements for TensorBoard while it trains, into tb/ in the run directory
    #[arg(long)]
    pub(crate) tensorboard: bool,
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
    /// Draw curves in the terminal while it trains
    #[arg(long)]
    pub(crate) live: bool,
    /// Write the measurements for TensorBoard while it trains, into tb/ in the run directory
    #[arg(long)]
    pub(crate) tensorboard: bool,
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
    /// A classifier trained together with the encoder, on all labels and on a few, beside the same from scratch
    Finetune(FineTuneArgs),
    /// A handful of labels for each class: accuracy against their number
    Fewshot(FewShotArgs),
    /// Two runs on the same pictures, with a paired test
    Compare(CompareArgs),
}

/// What is evaluated, on what.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// The run directory; without it, the newest one in runs/
    pub(crate) run: Option<PathBuf>,
    /// Labelled pictures, one sub-folder for each of at least two classes, or a labelled set in another form; without it,
    /// those of the run
    #[arg(long, value_name = "DATA")]
    pub(crate) train: Option<PathBuf>,
    /// Labelled pictures to test on, of a set with several parts its test part; without it, the run's own test pictures, or a
    /// fifth of the labelled ones is held out
    #[arg(long, value_name = "DATA")]
    pub(crate) test: Option<PathBuf>,
    /// Labels from this CSV file with the columns path and label, for a folder of pictures; those it does not name are left out
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// The same for the pictures of --test
    #[arg(long, value_name = "FILE", requires = "test")]
    pub(crate) test_labels: Option<PathBuf>,
    /// Show every class, however many there are
    #[arg(long)]
    pub(crate) classes: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const KNN_HELP: &str = "Examples:\n  twoview eval knn runs/mine\n  twoview eval knn runs/mine --train photos/train --test photos/test --k 10,20,200 --temperature 0.07,0.1\n  twoview eval knn runs/mine --labels some.csv";

#[derive(Debug, Args)]
#[command(after_help = KNN_HELP)]
pub(crate) struct KnnArgs {
    #[command(flatten)]
    pub(crate) eval: EvalArgs,
    #[command(flatten)]
    pub(crate) probe: ProbeArgs,
}

/// The settings of a vote of neighbours.
#[derive(Clone, Debug, Args)]
pub(crate) struct ProbeArgs {
    /// Neighbours that vote; several, as in 10,20,200, are chosen from on a slice of train; without it, the run's setting
    #[arg(long, value_delimiter = ',')]
    pub(crate) k: Vec<usize>,
    /// Votes weigh exp(cosine / temperature); several are chosen from on a slice of train; without it, the run's setting
    #[arg(long, value_delimiter = ',')]
    pub(crate) temperature: Vec<f64>,
}

const FEW_SHOT_HELP: &str = "Examples:\n  twoview eval fewshot runs/mine --shots 1,2,5,10,20 --draws 20";

#[derive(Debug, Args)]
#[command(after_help = FEW_SHOT_HELP)]
pub(crate) struct FewShotArgs {
    #[command(flatten)]
    pub(crate) eval: EvalArgs,
    /// Labelled pictures of each class, one point of the curve for each number; without it, 1, 2, 5 and 10 as far as the
    /// smallest class goes
    #[arg(long, value_delimiter = ',')]
    pub(crate) shots: Vec<usize>,
    /// Random choices of those pictures that are averaged over
    #[arg(long, default_value_t = 10)]
    pub(crate) draws: u64,
}

const COMPARE_HELP: &str = "Examples:\n  twoview eval compare runs/a runs/b\n  twoview eval compare runs/a runs/b --by linear --test photos/test";

#[derive(Debug, Args)]
#[command(after_help = COMPARE_HELP)]
pub(crate) struct CompareArgs {
    /// A run directory
    #[arg(value_name = "RUN_A")]
    pub(crate) first: PathBuf,
    /// Another one
    #[arg(value_name = "RUN_B")]
    pub(crate) second: PathBuf,
    /// What judges
    #[arg(long, value_enum, default_value_t = ProbeName::Knn)]
    pub(crate) by: ProbeName,
    #[command(flatten)]
    pub(crate) knn: ProbeArgs,
    #[command(flatten)]
    pub(crate) linear: LinearProbeArgs,
    /// Labelled pictures; without it, those of the first run
    #[arg(long, value_name = "DATA")]
    pub(crate) train: Option<PathBuf>,
    /// Labelled pictures to test on; without it, the first run's test pictures, or a fifth of the labelled ones is held out
    #[arg(long, value_name = "DATA")]
    pub(crate) test: Option<PathBuf>,
    /// Labels from this CSV file with the columns path and label
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// The same for the pictures of --test
    #[arg(long, value_name = "FILE", requires = "test")]
    pub(crate) test_labels: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A way to judge features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProbeName {
    /// Nearest neighbours
    Knn,
    /// A linear classifier
    Linear,
}

const LINEAR_HELP: &str = "Examples:\n  twoview eval linear runs/mine\n  twoview eval linear runs/mine --augmented --epochs 30    the protocol of the papers, which takes far longer";

#[derive(Debug, Args)]
#[command(after_help = LINEAR_HELP)]
pub(crate) struct LinearArgs {
    #[command(flatten)]
    pub(crate) eval: EvalArgs,
    /// Train the classifier by SGD on random crops and flips, as papers do, instead of fitting it to features made once
    #[arg(long)]
    pub(crate) augmented: bool,
    #[command(flatten)]
    pub(crate) probe: LinearProbeArgs,
    #[command(flatten)]
    pub(crate) training: SupervisedArgs,
}

/// The settings of a linear classifier that is fitted to its minimum.
#[derive(Clone, Debug, Args)]
pub(crate) struct LinearProbeArgs {
    /// Strength of the penalty; several, as in 0.001,0.01,0.1, are chosen from on a slice of train; without it, the run's
    /// setting
    #[arg(long, value_delimiter = ',')]
    pub(crate) l2: Vec<f64>,
}

const FINE_TUNE_HELP: &str = "Examples:\n  twoview eval finetune runs/mine\n  twoview eval finetune runs/mine --labels some.csv --fractions 0.1,1 --epochs 10";

#[derive(Debug, Args)]
#[command(after_help = FINE_TUNE_HELP)]
pub(crate) struct FineTuneArgs {
    #[command(flatten)]
    pub(crate) eval: EvalArgs,
    /// Shares of the labels to train on, at least one picture of each class
    #[arg(long, value_delimiter = ',', default_value = "0.01,0.1,1")]
    pub(crate) fractions: Vec<f64>,
    #[command(flatten)]
    pub(crate) training: SupervisedArgs,
}

/// How a classifier is trained on augmented pictures, where it is not as the run says.
#[derive(Clone, Debug, Args)]
pub(crate) struct SupervisedArgs {
    /// Passes over the labelled pictures, two views of each; without it, the run's setting
    #[arg(long)]
    pub(crate) epochs: Option<u64>,
    /// Learning rate per 256 pictures of a batch; without it, the run's setting
    #[arg(long)]
    pub(crate) lr_per_256: Option<f64>,
    /// Pictures in a batch; without it, the run's setting
    #[arg(long)]
    pub(crate) batch_size: Option<usize>,
    /// Seed of the views, the order and the choice of labels; 0 without it
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

const EMBED_HELP: &str = "Examples:\n  twoview embed runs/mine photos/ --out photos.csv    # or .npy, .safetensors, .parquet (feature)\n  twoview embed runs/mine photos/            # numpy.load(\"embeddings.npy\"), names in embeddings.npy.names.csv";

#[derive(Debug, Args)]
#[command(after_help = EMBED_HELP)]
pub(crate) struct EmbedArgs {
    /// The run directory
    pub(crate) run: PathBuf,
    /// A folder of pictures, or a set in another form
    pub(crate) data: PathBuf,
    /// Which part of a set that has several
    #[arg(long, value_enum, default_value_t = SplitArg::Train)]
    pub(crate) split: SplitArg,
    /// npy: an array [N, F]; safetensors: a tensor `features`, both with a list of names beside them; parquet or csv: a row for
    /// each picture. Without it, what the ending of --out names, else npy
    #[arg(long, value_enum)]
    pub(crate) format: Option<EmbedFormat>,
    /// The file to write; without it, embeddings.FORMAT in the run directory. Interrupted, the same command goes on
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A part of a set, where files or names tell parts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SplitArg {
    /// Training pictures
    Train,
    /// Test pictures
    Test,
}

impl From<SplitArg> for Split {
    fn from(split: SplitArg) -> Self {
        match split {
            SplitArg::Train => Self::Train,
            SplitArg::Test => Self::Test,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EmbedFormat {
    /// NumPy's array file, 32-bit floats, with FILE.names.csv beside it
    Npy,
    /// Comma-separated: path, label, then one column for each feature
    Csv,
    /// The tensor file of Hugging Face, with FILE.names.csv beside it
    Safetensors,
    /// Columns path, label and features; needs a build with `--features parquet`
    Parquet,
}

impl EmbedFormat {
    /// What the file is called, unless asked otherwise.
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Npy => "embeddings.npy",
            Self::Csv => "embeddings.csv",
            Self::Safetensors => "embeddings.safetensors",
            Self::Parquet => "embeddings.parquet",
        }
    }

    /// Whether the names of the pictures need a file of their own.
    pub(crate) fn has_names_beside(self) -> bool {
        matches!(self, Self::Npy | Self::Safetensors)
    }
}

/// Whose features are looked at.
#[derive(Clone, Debug, Args)]
pub(crate) struct PicturesArgs {
    /// The pictures; without it, those the run was trained on
    #[arg(long = "in", value_name = "DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Which part of a set that has several
    #[arg(long, value_enum, default_value_t = SplitArg::Train)]
    pub(crate) split: SplitArg,
    /// Their features, as `embed --format npy` wrote them of the same pictures, instead of making them again
    #[arg(long, value_name = "FILE.npy")]
    pub(crate) embeddings: Option<PathBuf>,
}

const SEARCH_HELP: &str = "Examples:\n  twoview search runs/mine query.jpg --in photos/ -k 12 --sheet found.png\n  twoview search runs/mine queries/ --in photos/ --embeddings photos.npy --json";

#[derive(Debug, Args)]
#[command(after_help = SEARCH_HELP)]
pub(crate) struct SearchArgs {
    /// The run directory
    pub(crate) run: PathBuf,
    /// A picture, or a folder of them
    pub(crate) query: PathBuf,
    #[command(flatten)]
    pub(crate) pictures: PicturesArgs,
    /// Pictures to find for each query
    #[arg(short, default_value_t = 10, value_parser = at_least_one)]
    pub(crate) k: usize,
    /// Draw what was found into this PNG file
    #[arg(long, value_name = "FILE.png", value_parser = png_file)]
    pub(crate) sheet: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON for each query
    #[arg(long)]
    pub(crate) json: bool,
}

const CLUSTER_HELP: &str =
    "Examples:\n  twoview cluster runs/mine --in photos/ -k 20 --folders groups --sheet groups.png";

#[derive(Debug, Args)]
#[command(after_help = CLUSTER_HELP)]
pub(crate) struct ClusterArgs {
    /// The run directory
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) pictures: PicturesArgs,
    /// Groups
    #[arg(short, default_value_t = 10, value_parser = at_least_one)]
    pub(crate) k: usize,
    /// Seed of the first centres
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Independent starts, of which the tightest grouping is kept
    #[arg(long, default_value_t = 4)]
    pub(crate) starts: u64,
    /// The table to write, with the columns path, cluster and similarity; without it, clusters.csv in the run directory
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) out: Option<PathBuf>,
    /// Make a folder for each group, with links to its pictures
    #[arg(long, value_name = "DIR")]
    pub(crate) folders: Option<PathBuf>,
    /// Draw the pictures nearest to each centre into this PNG file
    #[arg(long, value_name = "FILE.png", value_parser = png_file)]
    pub(crate) sheet: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const DEDUP_HELP: &str = "Examples:\n  twoview dedup runs/mine --in photos/ --cosine 0.97 --out duplicates.jsonl\n\n\
`twoview data check` finds copies and near copies without an encoder.";

#[derive(Debug, Args)]
#[command(after_help = DEDUP_HELP)]
pub(crate) struct DedupArgs {
    /// The run directory
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) pictures: PicturesArgs,
    /// Pictures are alike from this cosine of their features on
    #[arg(long, default_value_t = 0.98, allow_negative_numbers = true)]
    pub(crate) cosine: f64,
    /// The list to write, one group in a line, which data.duplicates reads; without it, duplicates.jsonl in the run directory
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const LABEL_HELP: &str = "Examples:\n  twoview label runs/mine --in photos/ --labels some.csv --out all.csv --min-share 0.8\n  twoview label runs/mine --labels some.csv --clusters runs/mine/clusters.csv --out all.csv";

#[derive(Debug, Args)]
#[command(after_help = LABEL_HELP)]
pub(crate) struct LabelArgs {
    /// The run directory
    pub(crate) run: PathBuf,
    /// The labels that are known, as a CSV file with the columns path and label
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) labels: PathBuf,
    /// Go by this table of `twoview cluster`: every picture gets the commonest label of its cluster
    #[arg(long, value_name = "FILE.csv", conflicts_with = "k")]
    pub(crate) clusters: Option<PathBuf>,
    /// The table to write, with the columns path, label, share of the vote or of the cluster's labels, and by: given,
    /// neighbours or cluster
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) pictures: PicturesArgs,
    /// Neighbours that vote
    #[arg(short, default_value_t = 10, value_parser = at_least_one)]
    pub(crate) k: usize,
    /// Leave a picture out whose best label has less of the vote than this
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    pub(crate) min_share: f64,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const INIT_HELP: &str =
    "Examples:\n  twoview init photos/ --out mine.toml\n  twoview init photos/ --preset small --out small.toml";

#[derive(Debug, Args)]
#[command(after_help = INIT_HELP)]
pub(crate) struct InitArgs {
    /// The pictures it is for: a folder, or a set in another form
    pub(crate) data: Option<PathBuf>,
    /// The preset to begin from; `twoview list` names them; without it, small or photos, whichever fits the pictures
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// The file to write; without it, run.toml
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) out: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub(crate) struct CompletionsArgs {
    /// Whose
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

const COMPLETIONS_HELP: &str = "Examples:\n  twoview completions bash > ~/.local/share/bash-completion/completions/twoview\n  \
twoview completions zsh > ~/.zfunc/_twoview\n  twoview completions fish > ~/.config/fish/completions/twoview.fish";

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder to write twoview.1 and the pages of all commands into
    pub(crate) dir: PathBuf,
}

const REPORT_HELP: &str =
    "Examples:\n  twoview report runs/mine\n  twoview report runs/mine --pictures 10000 --figures --tensorboard";

#[derive(Debug, Args)]
#[command(after_help = REPORT_HELP)]
pub(crate) struct ReportArgs {
    /// The run directory; without it, the newest one in runs/
    pub(crate) run: Option<PathBuf>,
    /// The pictures to show; without it, those of the run
    #[arg(long, value_name = "DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Pictures on the map, spread over the whole set; 0 for a page of curves alone
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub(crate) pictures: usize,
    /// The page to write; without it, report.html in the run directory
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write each curve as an SVG file as well, into figures/ in the run directory
    #[arg(long)]
    pub(crate) figures: bool,
    /// Write the measurements for TensorBoard as well, into tb/ in the run directory
    #[arg(long)]
    pub(crate) tensorboard: bool,
    /// Write the measurements as a table as well, metrics.csv in the run directory
    #[arg(long)]
    pub(crate) csv: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The run directory
    pub(crate) run: PathBuf,
    /// The form of the file. Without it, what the ending of --out names, else safetensors
    #[arg(long, value_enum)]
    pub(crate) format: Option<ExportFormat>,
    /// Whose names the tensors carry. For these ResNets timm's are torchvision's; the card shows the loader asked for,
    /// where that library builds one of this width
    #[arg(long, value_enum, default_value_t = Naming::Torchvision)]
    pub(crate) naming: Naming,
    /// The file to write; without it, encoder.safetensors or encoder.onnx in the run's export folder. FILE.card.md and
    /// FILE.card.json are written beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Named tensors; torchvision and timm load them strictly
    Safetensors,
    /// The whole network, opset 17; batch, height and width are free
    Onnx,
}

impl ExportFormat {
    /// As it is written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Onnx => "onnx",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Naming {
    /// torchvision.models
    Torchvision,
    /// timm
    Timm,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// A .safetensors file, or one of torch.save (.pth, .pt, .ckpt): a state dict, or a checkpoint of SimCLR, MoCo, lightly,
    /// solo-learn and the like. It is read as data; nothing in it is run
    pub(crate) file: PathBuf,
    /// The run directory to make; without it, runs/NAME-N
    #[arg(long, value_name = "RUN")]
    pub(crate) out: Option<PathBuf>,
    /// What stands before the encoder's names, where the file holds several: --prefix state_dict.module.encoder_q
    #[arg(long, value_name = "PREFIX")]
    pub(crate) prefix: Option<String>,
    /// The configuration around the encoder; without it, photos at 224 pixels for ImageNet's stem and small for CIFAR's
    #[arg(long, value_name = "NAME|RUNFILE")]
    pub(crate) preset: Option<String>,
    /// Change one key: --set normalize.mean=[0.5,0.5,0.5]
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const PREVIEW_HELP: &str = "Examples:\n  twoview preview photos/ --grid 8x6\n  twoview preview photos/ --preset imagenet --seed 3 --out views.png";

#[derive(Debug, Args)]
#[command(after_help = PREVIEW_HELP)]
pub(crate) struct PreviewArgs {
    /// A folder of pictures, or a run file (.toml)
    #[arg(value_name = "DATA|RUNFILE")]
    pub(crate) data: PathBuf,
    /// Pictures and views of each: --grid 6x4
    #[arg(long, value_name = "PICTURESxVIEWS", default_value = "6x4", value_parser = parse_grid)]
    pub(crate) grid: (u32, u32),
    /// Seed of the views; without it, the configuration's, whose first views training will show
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// A preset, a run file, or only how views are made: imagenet, cifar, cifar_weak, overhead, gray, multi_crop
    #[arg(long, value_name = "NAME|RUNFILE")]
    pub(crate) preset: Option<String>,
    /// Change one key: --set augment='{recipe="imagenet", size_px=224}'
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// The PNG file to write; without it, preview.png
    #[arg(long, value_name = "FILE.png", value_parser = png_file)]
    pub(crate) out: Option<PathBuf>,
    /// Print one line of JSON, with every plan
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Decode every picture of a set and report what is there, what is broken and what is there twice
    Check(DataCheckArgs),
    /// Write a built-in set as a folder of pictures
    #[command(subcommand)]
    Make(DataMakeCommand),
    /// Write any set as one file that is read at random and checked at every read
    Pack(DataPackArgs),
    /// Download a published set: the only command that uses a network
    #[command(after_help = FETCH_HELP)]
    Fetch(DataFetchArgs),
}

const PACK_HELP: &str = "Examples:\n  twoview data pack photos/ --out photos.pack\n  twoview data pack photos/ --out small.pack --max-side 512";

#[derive(Debug, Args)]
#[command(after_help = PACK_HELP)]
pub(crate) struct DataPackArgs {
    /// A folder of pictures, or a set in another form
    pub(crate) data: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE.pack")]
    pub(crate) out: PathBuf,
    /// Shrink larger pictures to this many pixels on the longer side and keep them as PNG. Changes what training sees
    #[arg(long, value_name = "PX", conflicts_with = "decoded", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_side: Option<u32>,
    /// Keep pixels instead of files: larger, and nothing to decode
    #[arg(long)]
    pub(crate) decoded: bool,
    /// Turn pictures as their EXIF data says, so that with --max-side or --decoded all stand upright; those must be read
    /// with the same data.source.exif_rotate. Without either, files are kept as they are and turned by whoever reads them
    #[arg(long)]
    pub(crate) exif_rotate: bool,
    /// Which part of a set that has several
    #[arg(long, value_enum, default_value_t = SplitArg::Train)]
    pub(crate) split: SplitArg,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
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

const CHECK_HELP: &str = "Examples:\n  twoview data check photos/ --out found\n  twoview data check photos/ --labels labels.csv\n  twoview data check photos/ --near 3 --duplicates duplicates.jsonl";

#[derive(Debug, Args)]
#[command(after_help = CHECK_HELP)]
pub(crate) struct DataCheckArgs {
    /// The folders, read as one set; or one set in another form
    #[arg(required_unless_present_any = ["list", "labels"], value_name = "DATA")]
    pub(crate) dirs: Vec<PathBuf>,
    /// Check the files in this list instead: one path per line, relative to the list or absolute
    #[arg(long, value_name = "FILE", conflicts_with = "dirs")]
    pub(crate) list: Option<PathBuf>,
    /// Take labels from this CSV file with the columns path and label; without folders it is the list as well
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// Which part of a set that has several
    #[arg(long, value_enum, default_value_t = SplitArg::Train)]
    pub(crate) split: SplitArg,
    /// Pictures whose perceptual hashes differ in at most this many of 64 bits are compared as near duplicates
    #[arg(long, value_name = "BITS", default_value_t = NEAR_BITS, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_NEAR_BITS)))]
    pub(crate) near: u32,
    /// Write bad_files.jsonl and duplicates.jsonl into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Write every group of duplicates, as JSON lines; data.duplicates reads them
    #[arg(long, value_name = "FILE")]
    pub(crate) duplicates: Option<PathBuf>,
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
    /// Print the JSON Schema of run files, with which editors complete and check them
    #[command(after_help = SCHEMA_HELP)]
    Schema,
}

const SCHEMA_HELP: &str = "Examples:\n  twoview config schema > twoview.schema.json\n  Then begin a run file with `#:schema ./twoview.schema.json`: editors with Taplo or Even Better TOML complete and check its keys";

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
    /// Time two views of every picture, stage by stage
    Views(BenchViewsArgs),
    /// Time the loader as training sees it, beside its parts alone
    Load(BenchLoadArgs),
}

/// Which views of which pictures are timed.
#[derive(Debug, Args)]
pub(crate) struct ViewsArgs {
    /// A folder of pictures, or a set in another form; without it, built-in ones of 32 pixels
    #[arg(long, value_name = "DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Side of a view in pixels
    #[arg(long, default_value_t = 32)]
    pub(crate) image: u32,
    /// imagenet, cifar, cifar_weak, overhead or gray; without it, cifar up to 64 pixels and imagenet above
    #[arg(long)]
    pub(crate) recipe: Option<Recipe>,
    /// Decode all pictures first and time from memory
    #[arg(long)]
    pub(crate) decoded: bool,
    /// How long to measure
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
}

#[derive(Debug, Args)]
pub(crate) struct BenchViewsArgs {
    #[command(flatten)]
    pub(crate) views: ViewsArgs,
    /// Threads that make views
    #[arg(long, default_value_t = 1, value_parser = in_range::<1, 1024>)]
    pub(crate) threads: usize,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchLoadArgs {
    #[command(flatten)]
    pub(crate) views: ViewsArgs,
    /// Threads that decode and augment; 0 works on the caller's own
    #[arg(long, default_value_t = 2, value_parser = in_range::<0, 1024>)]
    pub(crate) workers: usize,
    /// Pictures in a batch
    #[arg(long, default_value_t = 128, value_parser = in_range::<2, 65536>)]
    pub(crate) batch: usize,
    /// Hand out bytes, to be normalized on the device
    #[arg(long)]
    pub(crate) bytes: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
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

fn parse_grid(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x').and_then(|(rows, views)| Some((rows.parse().ok()?, views.parse().ok()?)));
    match sides {
        Some((rows @ 1..=1000, views @ 1..=100)) => Ok((rows, views)),
        _ => Err("expected PICTURESxVIEWS such as 6x4, at most 1000x100".to_owned()),
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

/// Anything else would be a picture under a false name, or somebody's photograph overwritten.
fn png_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let is_png = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
    if is_png { Ok(path) } else { Err("expected the name of a PNG file, ending in .png".to_owned()) }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n >= 1).ok_or_else(|| "expected a whole number from 1".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "expected a number from 0 to 1".to_owned())
}
