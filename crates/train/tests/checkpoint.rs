//! Checkpoints: what was saved comes back bit for bit, damage is found, named and survived, and what does not fit is
//! refused.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, TensorData};
use serde_json::{Value, json};
use tempfile::TempDir;
use twoview_data::{ViewBatch, ViewPixels};
use twoview_encoder::{
    Arch, EncoderConfig, HeadConfig, NamedTensors, Stem, WeightsError, load_named, load_safetensors, named_tensors,
};
use twoview_loss::NtXentConfig;
use twoview_optim::{LarsVariant, OptimizerConfig};
use twoview_train::{Checkpoint, CheckpointError, Network, NetworkConfig, RunDir, Stepped, TrainState, step};

const ENCODER: &str = "encoder.safetensors";
const HEAD: &str = "head.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const COMMIT: &str = "COMMIT";
const FILES: [&str; 4] = [ENCODER, HEAD, OPTIMIZER, STATE];

const N_PICTURES: usize = 4;
const SIZE_PX: usize = 16;

const NETWORK: NetworkConfig = NetworkConfig {
    encoder: EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 2 },
    head: HeadConfig { n_layers: 2, hidden_dim: 8, output_dim: 4, batch_norm: true },
};
const SGD: OptimizerConfig =
    OptimizerConfig::Sgd { lr_per_256: 1.0, momentum: 0.9, nesterov: true, weight_decay: 1e-3 };
const SGD_WITHOUT_MEMORY: OptimizerConfig =
    OptimizerConfig::Sgd { lr_per_256: 1.0, momentum: 0.0, nesterov: false, weight_decay: 1e-3 };
const ADAMW: OptimizerConfig = OptimizerConfig::AdamW { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 };
const LARS: OptimizerConfig = OptimizerConfig::Lars {
    lr_per_256: 1.0,
    momentum: 0.9,
    nesterov: false,
    weight_decay: 1e-4,
    trust: 0.001,
    variant: LarsVariant::Google,
};

/// A run directory that goes away with the test.
struct Run {
    dir: RunDir,
    _parent: TempDir,
}

impl Run {
    fn new() -> Self {
        let parent = tempfile::tempdir().expect("a temporary folder");
        Self { dir: RunDir::create(&parent.path().join("run")).expect("a new folder"), _parent: parent }
    }

    /// A run with checkpoints at these steps, each with weights of its own.
    fn with_steps(steps: &[u64]) -> Self {
        let run = Self::new();
        for &step in steps {
            run.save(&TrainState { step, ..trained(step) });
        }
        run
    }

    fn save(&self, state: &TrainState) -> Checkpoint {
        Checkpoint::save(&self.dir, state, 1000 + state.step).expect("finite")
    }

    fn latest(&self) -> (Checkpoint, Vec<String>) {
        Checkpoint::latest(&self.dir).expect("one is whole")
    }

    /// The folder of the checkpoint at `step`.
    fn folder(&self, step: u64) -> PathBuf {
        self.dir.checkpoints().join(format!("step-{step:08}"))
    }

    /// What lies in the folder of checkpoints.
    fn listing(&self) -> Vec<String> {
        listing(&self.dir.checkpoints())
    }
}

fn listing(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().expect("a plain name")).collect();
    names.sort();
    names
}

fn fresh(network: &NetworkConfig, optimizer: &OptimizerConfig, seed: u64) -> TrainState {
    let network = network.init(seed, &Device::flex().autodiff()).expect("valid");
    TrainState { network, optimizer: optimizer.init().expect("valid"), step: 0 }
}

/// A state that has made one step from the weights of `seed`.
fn trained(seed: u64) -> TrainState {
    train(fresh(&NETWORK, &SGD, seed), 1).0
}

/// Deterministic numbers in `[-1, 1)`.
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let number = |i: u64| {
        let mut z = ((seed << 32) | i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (1..=len as u64).map(number).collect()
}

/// Makes `n_steps` steps; the batch of a step is a function of its number, as in a run.
fn train(mut state: TrainState, n_steps: usize) -> (TrainState, Vec<Stepped>) {
    let objective = NtXentConfig::new(0.5).init().expect("a temperature in range");
    let mut measured = Vec::new();
    for _ in 0..n_steps {
        let len = N_PICTURES * 3 * SIZE_PX * SIZE_PX;
        let batch = ViewBatch {
            epoch: 0,
            index: 0,
            samples: (0..N_PICTURES as u64).collect(),
            groups: (0..N_PICTURES as u64).collect(),
            labels: Vec::new(),
            size_px: u32::try_from(SIZE_PX).expect("small"),
            views: ViewPixels::F32([2 * state.step, 2 * state.step + 1].map(|seed| numbers(len, seed)).concat()),
            replaced: Vec::new(),
        };
        let (next, stepped) = step(state, &batch, &objective, 0.05, &Device::flex().autodiff()).expect("finite");
        state = next;
        measured.push(stepped);
    }
    (state, measured)
}

/// Everything a state holds, by name.
fn contents(state: &TrainState) -> NamedTensors {
    [named_tensors(&state.network), state.optimizer.named_state()].concat()
}

#[track_caller]
fn check_same_bits(got: &NamedTensors, want: &NamedTensors, what: &str) {
    let names = |tensors: &NamedTensors| tensors.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(got), names(want), "{what}");
    for ((name, got), (_, want)) in got.iter().zip(want) {
        assert!(got.as_bytes() == want.as_bytes(), "{what}: `{name}` has other bits");
    }
}

#[test]
fn a_loaded_run_goes_on_with_the_same_bits() {
    for optimizer in [SGD, SGD_WITHOUT_MEMORY, ADAMW, LARS] {
        let run = Run::new();
        let (state, _) = train(fresh(&NETWORK, &optimizer, 0), 3);
        let saved = run.save(&state);
        let at_save = contents(&state);
        let (never_stopped, want_measured) = train(state, 3);

        let (found, damaged) = run.latest();
        assert_eq!(damaged, Vec::<String>::new());
        for checkpoint in [&saved, &found] {
            assert_eq!((checkpoint.step(), checkpoint.metrics_bytes()), (3, 1003));
        }
        // Into new weights of another seed, and into a state that has statistics and a memory of its own to lose.
        for target in [fresh(&NETWORK, &optimizer, 1), train(fresh(&NETWORK, &optimizer, 2), 2).0] {
            let loaded = found.load(target).expect("fits");
            assert_eq!((loaded.step, loaded.optimizer.steps()), (3, 3));
            check_same_bits(&contents(&loaded), &at_save, &format!("{optimizer:?}, loaded"));
            let (resumed, measured) = train(loaded, 3);
            assert_eq!(resumed.step, 6);
            assert_eq!(measured, want_measured, "{optimizer:?}");
            check_same_bits(&contents(&resumed), &contents(&never_stopped), &format!("{optimizer:?}, three steps on"));
        }
    }
}

#[test]
fn the_files_are_those_of_the_documentation() {
    let run = Run::new();
    let state = trained(0);
    let checkpoint = run.save(&state);
    assert_eq!(run.listing(), ["step-00000001"]);
    assert_eq!(listing(&run.folder(1)), [COMMIT, ENCODER, HEAD, OPTIMIZER, STATE]);

    assert_eq!(checkpoint.encoder(), run.folder(1).join(ENCODER));
    let sorted = |tensors: NamedTensors| tensors.into_iter().collect::<BTreeMap<_, _>>();
    let encoder = load_safetensors(&checkpoint.encoder()).expect("readable").tensors;
    assert_eq!(sorted(encoder), sorted(named_tensors(&state.network.encoder)));
}

#[test]
fn only_the_two_newest_are_kept() {
    let run = Run::new();
    let mut state = trained(0);
    let mut before = None;
    // By number and not by name: the last one has a digit more.
    for step in [1, 2, 9, 10, 99_999_999, 100_000_000] {
        state.step = step;
        run.save(&state);
        let kept: Vec<String> = before.into_iter().chain([step]).map(|step| format!("step-{step:08}")).collect();
        let mut listing = run.listing();
        listing.sort_by_key(String::len);
        assert_eq!(listing, kept);
        assert_eq!(run.latest().0.step(), step);
        before = Some(step);
    }
}

#[test]
fn a_run_that_comes_past_a_step_again_replaces_its_checkpoint() {
    let run = Run::with_steps(&[5, 7]);
    let again = TrainState { step: 7, ..trained(70) };
    Checkpoint::save(&run.dir, &again, 4321).expect("finite");
    assert_eq!(run.listing(), ["step-00000005", "step-00000007"]);
    let (found, damaged) = run.latest();
    assert_eq!((found.step(), found.metrics_bytes(), damaged.len()), (7, 4321, 0));
    let loaded = found.load(fresh(&NETWORK, &SGD, 1)).expect("fits");
    check_same_bits(&contents(&loaded), &contents(&again), "the later of the two");
}

/// Puts `bytes`, or nothing, in the place of a file of the newest of two checkpoints and says what is reported then.
#[track_caller]
fn report_of(run: &Run, path: &Path, bytes: Option<&[u8]>, what: &str) -> String {
    match bytes {
        Some(bytes) => fs::write(path, bytes).expect("written"),
        None => fs::remove_file(path).expect("removed"),
    }
    let (found, mut damaged) = run.latest();
    let what = format!("{}, {what}", path.display());
    assert_eq!((found.step(), found.metrics_bytes()), (5, 1005), "{what}: the checkpoint before is whole");
    assert_eq!(damaged.len(), 1, "{what}: {damaged:?}");
    let report = damaged.remove(0);
    assert!(report.starts_with(&format!("{}: ", run.folder(7).display())), "{what}: {report}");
    report
}

#[test]
fn damage_is_named_and_the_checkpoint_before_is_used() {
    let run = Run::with_steps(&[5, 7]);
    for file in FILES.into_iter().chain([COMMIT]) {
        let path = run.folder(7).join(file);
        let whole = fs::read(&path).expect("saved");
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            Some(bytes)
        };
        let mut damages = vec![
            ("missing", None),
            ("empty", Some(Vec::new())),
            ("cut by a byte", Some(whole[..whole.len() - 1].to_vec())),
            ("cut in half", Some(whole[..whole.len() / 2].to_vec())),
            ("a byte too long", Some([whole.as_slice(), b"}"].concat())),
            ("first byte flipped", flipped(0)),
            ("last byte flipped", flipped(whole.len() - 1)),
        ];
        // Inside `COMMIT` a flipped bit can make it accuse another file, and the `COMMIT` of another checkpoint accuses
        // the first; the next test looks at every byte of it.
        if file != COMMIT {
            damages.push(("a byte in the middle flipped", flipped(whole.len() / 2)));
            damages.push(("of another checkpoint", Some(fs::read(run.folder(5).join(file)).expect("saved"))));
        }
        for (what, bytes) in damages {
            let report = report_of(&run, &path, bytes.as_deref(), what);
            assert!(report.contains(file), "{file}, {what}: {report}");
            fs::write(&path, &whole).expect("written");
        }
    }
    let (found, damaged) = run.latest();
    assert_eq!((found.step(), damaged.len()), (7, 0), "everything was put back: {damaged:?}");
}

#[test]
fn no_damaged_byte_in_the_small_files_is_missed() {
    let run = Run::with_steps(&[5, 7]);
    for file in [STATE, COMMIT] {
        let path = run.folder(7).join(file);
        let whole = fs::read(&path).expect("saved");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            let report = report_of(&run, &path, Some(&bytes), &format!("byte {at}"));
            assert!(FILES.into_iter().chain([COMMIT]).any(|file| report.contains(file)), "{report}");
        }
        fs::write(&path, &whole).expect("written");
    }
}

#[test]
fn the_layout_of_another_version_is_named() {
    let run = Run::with_steps(&[5, 7]);
    let edit = |file: &str, change: &dyn Fn(&mut Value)| {
        let path = run.folder(7).join(file);
        let mut value = serde_json::from_slice(&fs::read(&path).expect("saved")).expect("JSON");
        change(&mut value);
        let bytes = serde_json::to_vec(&value).expect("JSON");
        fs::write(&path, &bytes).expect("written");
        bytes
    };
    let state = edit(STATE, &|state| state["version"] = json!(2));
    let digest = json!({ "bytes": state.len(), "crc32": crc32fast::hash(&state) });
    edit(COMMIT, &|commit| commit[STATE] = digest.clone());
    let (found, damaged) = run.latest();
    assert_eq!((found.step(), damaged.len()), (5, 1));
    assert!(damaged[0].contains("expected version 1, got 2"), "{damaged:?}");
}

#[test]
fn when_all_are_damaged_each_is_named() {
    let run = Run::with_steps(&[5, 7]);
    fs::remove_file(run.folder(5).join(HEAD)).expect("removed");
    fs::write(run.folder(7).join(ENCODER), "overwritten").expect("written");
    let error = Checkpoint::latest(&run.dir).expect_err("none is whole");
    let message = error.to_string();
    match error {
        CheckpointError::AllDamaged { dir, damaged } => {
            assert_eq!(dir, run.dir.checkpoints());
            assert_eq!(damaged.len(), 2, "{damaged:?}");
            for (report, step, file) in [(&damaged[0], 7, ENCODER), (&damaged[1], 5, HEAD)] {
                assert!(report.starts_with(&format!("{}: ", run.folder(step).display())), "{report}");
                assert!(report.contains(file), "{report}");
                assert!(message.contains(report.as_str()), "{message}");
            }
        }
        other => panic!("expected damage, got {other:?}"),
    }
}

#[track_caller]
fn check_none(run: &Run) {
    match Checkpoint::latest(&run.dir) {
        Err(CheckpointError::None(path)) => assert_eq!(path, run.dir.path()),
        other => panic!("expected no checkpoint, got {other:?}"),
    }
}

#[test]
fn a_run_without_checkpoints_says_so() {
    let run = Run::new();
    check_none(&run);
    fs::create_dir(run.dir.checkpoints()).expect("created");
    check_none(&run);
    // What is not named like a checkpoint is not one, damaged or whole.
    fs::write(run.dir.checkpoints().join("step-notes.txt"), "try a higher temperature").expect("written");
    check_none(&run);
}

#[test]
fn what_a_killed_save_left_behind_is_ignored_and_then_removed() {
    let run = Run::with_steps(&[5]);
    // Killed just before the rename: complete, newer than all others, and under the other name.
    let unfinished = run.dir.checkpoints().join(".unfinished");
    let other = Run::with_steps(&[9]);
    fs::rename(other.folder(9), &unfinished).expect("renamed");
    fs::write(unfinished.join("left-over"), "of an earlier save").expect("written");

    let (found, damaged) = run.latest();
    assert_eq!((found.step(), damaged.len()), (5, 0));
    run.save(&TrainState { step: 6, ..trained(6) });
    assert_eq!(run.listing(), ["step-00000005", "step-00000006"]);
    assert_eq!(listing(&run.folder(6)), [COMMIT, ENCODER, HEAD, OPTIMIZER, STATE]);
    assert_eq!(run.latest().0.step(), 6);

    let first = Run::new();
    fs::create_dir(first.dir.checkpoints()).expect("created");
    fs::create_dir(first.dir.checkpoints().join(".unfinished")).expect("created");
    check_none(&first);
}

#[track_caller]
fn check_other_network(network: &NetworkConfig, file: &str, want: &WeightsError) {
    let run = Run::with_steps(&[5]);
    match run.latest().0.load(fresh(network, &SGD, 0)) {
        Err(CheckpointError::Weights { path, source }) => {
            assert_eq!((path, &source), (run.folder(5).join(file), want));
        }
        other => panic!("expected weights that do not fit, got {other:?}"),
    }
}

#[test]
fn another_network_is_refused() {
    let encoder = |arch, width| NetworkConfig { encoder: EncoderConfig { arch, width, ..NETWORK.encoder }, ..NETWORK };
    let head = |output_dim, batch_norm| NetworkConfig {
        head: HeadConfig { output_dim, batch_norm, ..NETWORK.head },
        ..NETWORK
    };
    let name = |name: &str| name.to_owned();
    let shape = WeightsError::Shape { name: name("conv1.weight"), expected: vec![3, 3, 3, 3], got: vec![2, 3, 3, 3] };
    check_other_network(&encoder(Arch::Resnet18, 3), ENCODER, &shape);
    let missing = WeightsError::Missing { name: name("layer1.2.conv1.weight"), expected: vec![2, 2, 3, 3] };
    check_other_network(&encoder(Arch::Resnet34, 2), ENCODER, &missing);
    let shape = WeightsError::Shape { name: name("layers.3.weight"), expected: vec![5, 8], got: vec![4, 8] };
    check_other_network(&head(5, true), HEAD, &shape);
    let missing = WeightsError::Missing { name: name("layers.0.bias"), expected: vec![8] };
    check_other_network(&head(4, false), HEAD, &missing);
}

#[test]
fn another_kind_of_optimizer_is_refused() {
    let load = |saved: &OptimizerConfig, other: &OptimizerConfig| {
        let run = Run::new();
        run.save(&train(fresh(&NETWORK, saved, 0), 1).0);
        let path = run.folder(1).join(OPTIMIZER);
        (run.latest().0.load(fresh(&NETWORK, other, 0)).map(|state| state.optimizer.steps()), path)
    };
    let kinds = [&[SGD, SGD_WITHOUT_MEMORY][..], &[ADAMW], &[LARS]];
    for (from, saved) in kinds.iter().enumerate() {
        for other in kinds.iter().enumerate().filter(|(to, _)| *to != from).flat_map(|(_, kind)| *kind) {
            match load(&saved[0], other) {
                (Err(CheckpointError::OtherOptimizer { path, expected, got }), want) => {
                    assert_eq!(path, want);
                    assert_ne!(expected, got);
                }
                (got, _) => panic!("{:?} into {other:?}: expected another kind, got {got:?}", saved[0]),
            }
        }
    }
    // What remembers nothing is told apart as well.
    for other in [&ADAMW, &LARS] {
        assert!(matches!(load(&SGD_WITHOUT_MEMORY, other), (Err(CheckpointError::OtherOptimizer { .. }), _)));
    }
}

/// The tensors with `bad` as the last number of `name`.
fn poisoned(tensors: NamedTensors, name: &str, bad: f32) -> NamedTensors {
    assert!(tensors.iter().any(|(candidate, _)| candidate == name), "no tensor `{name}`");
    let poison = |(candidate, data): (String, TensorData)| {
        if candidate != name {
            return (candidate, data);
        }
        let mut values: Vec<f32> = data.iter().collect();
        *values.last_mut().expect("a number") = bad;
        (candidate, TensorData::new(values, data.shape().clone()))
    };
    tensors.into_iter().map(poison).collect()
}

#[test]
fn a_state_that_is_not_finite_is_not_saved() {
    let run = Run::with_steps(&[5]);
    let whole = contents(&run.latest().0.load(fresh(&NETWORK, &SGD, 0)).expect("fits"));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (file, name) in [
            (ENCODER, "conv1.weight"),
            (ENCODER, "layer4.1.bn2.running_var"),
            (HEAD, "layers.3.bias"),
            (OPTIMIZER, "encoder.conv1.weight/momentum.velocity"),
        ] {
            let TrainState { network: Network { mut encoder, mut head }, mut optimizer, .. } = trained(0);
            let fits = "the names and shapes are its own";
            match file {
                ENCODER => {
                    let tensors = poisoned(named_tensors(&encoder), name, bad);
                    encoder = load_named(encoder, tensors).expect(fits);
                }
                HEAD => {
                    let tensors = poisoned(named_tensors(&head), name, bad);
                    head = load_named(head, tensors).expect(fits);
                }
                _ => {}
            }
            let network = Network { encoder, head };
            if file == OPTIMIZER {
                let tensors = poisoned(optimizer.named_state(), name, bad);
                optimizer.load_named_state(&network, tensors).expect(fits);
            }
            match Checkpoint::save(&run.dir, &TrainState { network, optimizer, step: 6 }, 0) {
                Err(CheckpointError::NonFinite { tensor, step }) => assert_eq!((tensor.as_str(), step), (name, 6)),
                other => panic!("{bad} in `{name}`: expected a refusal, got {other:?}"),
            }
            assert_eq!(run.listing(), ["step-00000005"], "nothing was written");
        }
    }
    let loaded = run.latest().0.load(fresh(&NETWORK, &SGD, 0)).expect("fits");
    check_same_bits(&contents(&loaded), &whole, "what was there before");
}
