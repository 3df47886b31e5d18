//! `pretrain` and `resume`: from a run file or a run directory to a trained encoder.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use burn::tensor::Device;
use serde_json::{Value, json};
use twoview_data::{LoadError, Replaced, Source, Split, escape_path};
use twoview_encoder::{named_tensors, save_safetensors, with_batch_counters};
use twoview_report::StepRow;
use twoview_train::{
    Checkpoint, CheckpointError, Ended, Job, JsonLines, MetricSink, RunDir, RunDirError, StepError, StepMetrics,
    TrainError, TrainState, Watch, run,
};

use crate::{
    args::{ConfigArgs, DeviceArgs, PretrainArgs, ResumeArgs},
    device,
    encoder_weights::{STEPS_KEY, WeightsOrigin},
    events::{self, Events},
    export::n_batches,
    failure::{Exit, Failure, OrExit, at},
    measurements::measurements,
    online::Online,
    pictures::{self, Manifest, Pictures, RunManifest, with_settable_limit},
    run_file::{RunFile, SourceConfig},
    run_plan::{RunPlan, check},
    signals::Signals,
    start::Start,
    terminal::{TrainingBar, landmarks, note, program, quoted, result, result_json},
};

/// What a finished run leaves behind, for whoever goes on with it.
pub(crate) struct Trained {
    pub(crate) state: TrainState,
    pub(crate) run_dir: RunDir,
    /// Steps made, without those of before it was resumed.
    pub(crate) steps: u64,
    /// Mean over the time spent training, in source pictures per second.
    pub(crate) images_per_s: f64,
    pub(crate) seconds: f64,
    /// The loss averaged over about the last twenty steps: a single batch says little.
    pub(crate) loss: Option<f64>,
    /// Of the last step.
    pub(crate) last: Option<StepMetrics>,
}

/// Where else measurements go while a run trains.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// As curves in the terminal.
    pub(crate) live: bool,
    /// As events that TensorBoard reads.
    pub(crate) tensorboard: bool,
    /// The options that `resume` needs to go on in the same way, each with a space before it.
    pub(crate) options: String,
}

/// `twoview pretrain`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn pretrain(args: &PretrainArgs) -> Result<(), Failure> {
    if args.live {
        check_live()?;
    }
    let (_, device) = device::open(&args.device.device)?;
    let (mut file, pictures) = choose(&args.input, &args.config)?;
    let pictures = pictures.knowing_duplicates(file.data.duplicates.as_deref())?;
    let start = Start::of(args, &mut file, &device)?;
    let plan = RunPlan::new(&file, pictures.source.clone()).or_exit(Exit::Usage)?;
    let mut state = plan.fresh_state(&file, &device.clone().autodiff()).or_exit(Exit::Usage)?;
    if let Some(start) = &start {
        state.network.encoder = start.put_into(state.network.encoder)?;
    }
    state.network.encoder = state.network.encoder.with_recompute(args.recompute);
    let origin = start.map(|start| start.origin);
    let run_dir = begin(args.out.as_deref(), &stem(&args.input), &file, &pictures, origin)?;
    if file.start.is_some() {
        // From here on the run needs the file no more, whenever it is stopped.
        Checkpoint::save(&run_dir, &state, 0).or_exit(Exit::Io)?;
    }
    let online = Online::new(&file, &pictures.source, plan.knn_every, &device, run_dir.path())?;
    let trained = train(
        &plan,
        run_dir,
        state,
        &device,
        0,
        online.as_ref(),
        Shown {
            live: args.live,
            tensorboard: args.tensorboard,
            options: options(&args.device, args.recompute, args.live),
        },
    )?;
    end(&trained, has_labels(pictures.source.as_ref()), args.json)
}

/// `twoview resume`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn resume(args: &ResumeArgs) -> Result<(), Failure> {
    if args.live {
        check_live()?;
    }
    let (_, device) = device::open(&args.device.device)?;
    let run_dir = RunDir::open(&args.run).map_err(no_run_dir)?;
    let file = RunFile::from_path(&run_dir.config(), &[]).or_exit(Exit::Usage)?;
    check(&file).or_exit(Exit::Usage)?;
    let manifest = same_experiment(&run_dir, &file)?;
    if let Some(path) = file.data.source.gone() {
        let message = format!(
            "the run's pictures are not where they were: there is no {}; say where they are in data.source of {}, and resume again",
            path.display(),
            run_dir.config().display()
        );
        return Err(Failure::new(Exit::Data, message));
    }
    let pictures =
        pictures::open(&file.data.source, Split::Train)?.knowing_duplicates(file.data.duplicates.as_deref())?;
    same_data(&run_dir, manifest, pictures.manifest, args.accept_data_change)?;
    let plan = RunPlan::new(&file, pictures.source.clone()).or_exit(Exit::Usage)?;
    let mut fresh = plan.fresh_state(&file, &device.clone().autodiff()).or_exit(Exit::Usage)?;
    fresh.network.encoder = fresh.network.encoder.with_recompute(args.recompute);
    let (state, metrics_bytes) = match Checkpoint::latest(&run_dir) {
        Ok((checkpoint, damaged)) => {
            damaged.iter().for_each(|line| note(&format!("warning: damaged checkpoint passed over: {line}")));
            (checkpoint.load(fresh).or_exit(Exit::Model)?, checkpoint.metrics_bytes())
        }
        Err(CheckpointError::None(_)) if file.start.is_some() => {
            let message = format!(
                "the run ended before it had stored the weights it starts from; {}",
                begin_again(run_dir.path())
            );
            return Err(Failure::new(Exit::Run, message));
        }
        Err(CheckpointError::None(_)) => {
            require_untrained(&run_dir, plan.save_every)?;
            (fresh, 0)
        }
        Err(error) => return Err(no_checkpoint(error, run_dir.path())),
    };
    note(&format!("resuming after step {} of {}", state.step, plan.schedule.total_steps()));
    // A run whose events were written goes on writing them: half a curve would mislead.
    let shown = Shown {
        live: args.live,
        tensorboard: args.tensorboard || events::path(run_dir.path()).is_file(),
        options: options(&args.device, args.recompute, args.live),
    };
    let online = Online::new(&file, &pictures.source, plan.knn_every, &device, run_dir.path())?;
    let trained = train(&plan, run_dir, state, &device, metrics_bytes, online.as_ref(), shown)?;
    end(&trained, has_labels(pictures.source.as_ref()), args.json)
}

/// What a command to go on repeats; events go on by themselves.
fn options(device: &DeviceArgs, recompute: bool, live: bool) -> String {
    let device = if device.is_auto() { String::new() } else { format!(" --device {}", device.device) };
    let flag = |is_set: bool, name: &str| if is_set { format!(" --{name}") } else { String::new() };
    device + &flag(recompute, "recompute") + &flag(live, "live")
}

/// Makes the run directory and writes down what the run is, before anything is computed.
///
/// # Errors
/// [`Exit::Run`] where the directory is taken, [`Exit::Io`] where it cannot be written.
pub(crate) fn begin(
    out: Option<&Path>,
    name: &str,
    file: &RunFile,
    pictures: &Pictures,
    weights: Option<WeightsOrigin>,
) -> Result<RunDir, Failure> {
    // TOML is text: this fails for a folder whose name is not, and before anything is made.
    let resolved = file.to_toml().or_exit(Exit::Usage)?;
    let manifest = RunManifest {
        twoview: env!("CARGO_PKG_VERSION").to_owned(),
        data: pictures.manifest.clone(),
        experiment: file.experiment().or_exit(Exit::Bug)?,
        weights,
    };
    let manifest = serde_json::to_string_pretty(&manifest).or_exit(Exit::Bug)?;
    let bad = pictures.report.as_ref().map(|report| report.bad_files.as_slice()).unwrap_or_default();
    let run_dir = match out {
        Some(path) => RunDir::create(path),
        None => RunDir::create_next(Path::new("runs"), name),
    }
    .map_err(no_run_dir)?;
    run_dir.begin(&resolved, &manifest, &pictures::bad_files_text(bad)).map_err(no_run_dir)?;
    Ok(run_dir)
}

/// The exit code of a run directory that cannot be had, and what can be done.
pub(crate) fn no_run_dir(error: RunDirError) -> Failure {
    let exit = if matches!(error, RunDirError::Io { .. }) { Exit::Io } else { Exit::Run };
    match &error {
        RunDirError::NotEmpty(path) => {
            let is_run =
                RunDir::read_only(path).is_ok_and(|run| RunManifest::read(&run).is_ok_and(|run| !run.is_imported()));
            let or =
                if is_run { format!(", or go on with `{} resume {}`", program(), quoted(path)) } else { String::new() };
            Failure::new(exit, format!("{error}; choose another --out{or}"))
        }
        _ => Failure { exit, error: error.into() },
    }
}

/// Refuses to train from the beginning, over what is there, because somebody removed the checkpoints.
fn require_untrained(run_dir: &RunDir, save_every: u64) -> Result<(), Failure> {
    // A line for each step, readable or not; a run that was killed at once has measured none.
    let lines = fs::read(run_dir.metrics()).map_or(0, |text| text.iter().filter(|&&byte| byte == b'\n').count());
    let n_steps = lines as u64;
    let is_exported = run_dir.exported_encoder().is_file();
    if !is_exported && n_steps <= save_every {
        if n_steps > 0 {
            note(&format!(
                "warning: {} has no checkpoint: training begins with its first step, and the {n_steps} measured before are \
                 measured again",
                run_dir.path().display()
            ));
        }
        return Ok(());
    }
    let what = if is_exported {
        "there is an encoder in its export folder"
    } else {
        &format!("{n_steps} steps have been measured")
    };
    let message = format!(
        "{} has no checkpoint left, though {what}: going on would train from the first step, over what is there; put the \
         checkpoints back, or {}",
        run_dir.path().display(),
        begin_again(run_dir.path())
    );
    Err(Failure::new(Exit::Run, message))
}

/// What remains to be done about a run that cannot go on.
fn begin_again(run: &Path) -> String {
    format!("begin a new run with `{} pretrain {}`", program(), quoted(&run.join("config.resolved.toml")))
}

/// The exit code of a checkpoint that cannot be had, and what can be done.
pub(crate) fn no_checkpoint(error: CheckpointError, run: &Path) -> Failure {
    let (exit, remedy) = match &error {
        CheckpointError::Io { .. } => (Exit::Io, None),
        CheckpointError::None(_) => {
            (Exit::Run, Some(format!("`{} resume {}` goes on with it, or says why not", program(), quoted(run))))
        }
        CheckpointError::AllDamaged { .. } => (Exit::Model, Some(begin_again(run))),
        _ => (Exit::Model, None),
    };
    match remedy {
        Some(remedy) => Failure::new(exit, format!("{error}; {remedy}")),
        None => Failure { exit, error: error.into() },
    }
}

/// Trains from `state` to the end of the plan, showing progress, and exports the encoder.
///
/// # Errors
/// [`Exit::Interrupted`] or [`Exit::Terminated`] after a signal, with the checkpoint written; else the exit code of the
/// cause.
pub(crate) fn train(
    plan: &RunPlan,
    run_dir: RunDir,
    state: TrainState,
    device: &Device,
    metrics_bytes: u64,
    online: Option<&Online>,
    shown: Shown,
) -> Result<Trained, Failure> {
    let signals = Signals::listen().or_exit(Exit::Bug)?;
    let total = plan.schedule.total_steps();
    let before = state.step;
    let mut log = JsonLines::open(&run_dir.metrics(), metrics_bytes).map_err(at(&run_dir.metrics()))?;
    if log.missing() > 0 {
        note(&format!(
            "warning: {} lacks {} of the {metrics_bytes} bytes that it had at the checkpoint: curves will have a gap, and \
             training is not touched",
            run_dir.metrics().display(),
            log.missing()
        ));
    }
    let mut replaced = ReplacedLog { path: run_dir.bad_files() };
    let mut last = Last(None);
    let earlier = if before > 0 { measurements(&run_dir) } else { Vec::new() };
    let mut events = shown.tensorboard.then(|| Events::start(&run_dir, &earlier)).transpose()?;
    let mut live = shown.live.then(|| live_view(&run_dir, total, before, &earlier)).transpose()?;
    let mut bar = TrainingBar::start(total, before, &plan.loss, live.is_none());
    earlier.iter().filter_map(|step| step.loss).for_each(|loss| bar.smooth_loss(loss.into()));
    drop(earlier);
    let mut sinks: Vec<&mut dyn MetricSink> = vec![&mut log, &mut bar, &mut replaced, &mut last];
    if let Some(events) = &mut events {
        sinks.push(events);
    }
    if let Some(live) = &mut live {
        sinks.push(live.as_mut());
    }
    let begun = Instant::now();
    let ended = run(
        &Job {
            loader: &plan.loader,
            objective: plan.objective.as_ref(),
            schedule: &plan.schedule,
            save_every: plan.save_every,
            max_bad_fraction: plan.max_bad_fraction,
            watch: online.map(|online| online as &dyn Watch),
            device: &device.clone().autodiff(),
            run_dir: &run_dir,
            stop: &signals.stop,
        },
        state,
        &mut sinks,
    );
    drop(sinks);
    // The terminal's own screen is back before anything is said.
    drop(live);
    bar.end();
    let resume = format!("{} resume {}{}", program(), quoted(run_dir.path()), shown.options);
    let (state, ended) = ended.map_err(|error| {
        let exit = exit_of(&error);
        let error = anyhow::Error::from(error);
        Failure { exit, error: if exit == Exit::Io { error.context(format!("go on with `{resume}`")) } else { error } }
    })?;
    if ended == Ended::Stopped {
        return Err(Failure::new(
            signals.exit(),
            format!("stopped after step {} of {total}; go on with `{resume}`", state.step),
        ));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let steps = state.step - before;
    let pictures = steps as f64 * plan.loader.batch_size() as f64;
    let exported = run_dir.exported_encoder();
    if let Some(folder) = exported.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let metadata = BTreeMap::from([
        // What Python's loaders look for.
        ("format".to_owned(), "pt".to_owned()),
        ("twoview.encoder".to_owned(), serde_json::to_string(&plan.network.encoder).or_exit(Exit::Bug)?),
        (STEPS_KEY.to_owned(), state.step.to_string()),
    ]);
    let tensors = with_batch_counters(named_tensors(&state.network.encoder), &[], n_batches(state.step));
    save_safetensors(&exported, &tensors, &metadata).or_exit(Exit::Io)?;
    let images_per_s = pictures / seconds.max(f64::MIN_POSITIVE);
    Ok(Trained { state, run_dir, steps, images_per_s, seconds, loss: bar.loss(), last: last.0 })
}

/// Before anything is read or made: what cannot be drawn should cost no waiting and leave no run behind.
///
/// # Errors
/// [`Exit::Usage`] where there is no terminal to draw on.
#[cfg(feature = "live")]
fn check_live() -> Result<(), Failure> {
    crate::live::check_terminal().map(|_| ())
}

/// # Errors
/// Always [`Exit::Usage`].
#[cfg(not(feature = "live"))]
fn check_live() -> Result<(), Failure> {
    Err(Failure::new(
        Exit::Usage,
        "--live: this twoview was built without the live view; build it with `--features live`",
    ))
}

/// # Errors
/// [`Exit::Usage`] where there is no terminal to draw on.
#[cfg(feature = "live")]
fn live_view(
    run_dir: &RunDir,
    total_steps: u64,
    done: u64,
    earlier: &[StepRow],
) -> Result<Box<dyn MetricSink>, Failure> {
    Ok(Box::new(crate::live::LiveView::start(run_dir, total_steps, done, earlier)?))
}

/// # Errors
/// As [`check_live`].
#[cfg(not(feature = "live"))]
fn live_view(_: &RunDir, _: u64, _: u64, _: &[StepRow]) -> Result<Box<dyn MetricSink>, Failure> {
    check_live()?;
    Err(Failure::new(Exit::Bug, "there is no live view"))
}

/// Says what came of it and what to do next: nothing can be measured without labels.
fn end(trained: &Trained, has_labels: bool, json: bool) -> Result<(), Failure> {
    let run = escape_path(trained.run_dir.path());
    if json {
        let last = trained.last.as_ref();
        return result_json(&json!({
            "run": run,
            "steps": trained.state.step,
            "loss": trained.loss,
            "chance": last.map(|m| m.chance),
            "images_per_s": trained.images_per_s,
            "seconds": trained.seconds,
            "encoder": escape_path(&trained.run_dir.exported_encoder()),
        }));
    }
    if let (Some(loss), Some(m)) = (trained.loss, &trained.last) {
        let after =
            if trained.steps < m.step { format!(" after {} before", m.step - trained.steps) } else { String::new() };
        result(&format!(
            "trained  {} steps{after} in {:.0} s, {:.0} img/s; loss {:.3} ({})",
            trained.steps,
            trained.seconds,
            trained.images_per_s,
            loss,
            landmarks(m)
        ))?;
    }
    result(&format!("run      {run}"))?;
    result(&format!("encoder  {}", trained.run_dir.exported_encoder().display()))?;
    let next = if has_labels { "eval knn" } else { "report" };
    result(&format!("next     {} {next} {}", program(), quoted(trained.run_dir.path())))
}

fn has_labels(source: &dyn Source) -> bool {
    source.classes().len() > 1 && (0..source.len()).any(|i| source.label(i).is_some())
}

/// The run file a command line asks for, with its pictures.
///
/// # Errors
/// [`Exit::Usage`] where the configuration is not one, [`Exit::Data`] where the pictures cannot be used.
pub(crate) fn choose(input: &Path, config: &ConfigArgs) -> Result<(RunFile, Pictures), Failure> {
    let sets = &config.set;
    if input.extension().is_some_and(|extension| extension == "toml") {
        if let Some(preset) = &config.preset {
            return Err(Failure::new(
                Exit::Usage,
                format!("--preset {preset} and {} are both whole configurations; give one of them", input.display()),
            ));
        }
        let mut file = RunFile::from_path(input, sets).or_exit(Exit::Usage)?;
        check(&file).or_exit(Exit::Usage)?;
        absolute(&mut file)?;
        let pictures = pictures::open(&file.data.source, Split::Train).map_err(with_settable_limit)?;
        return Ok((file, pictures));
    }
    let at_input = |preset: &str| -> Result<RunFile, Failure> {
        let mut file = RunFile::from_preset(preset, sets).or_exit(Exit::Usage)?;
        check(&file).or_exit(Exit::Usage)?;
        if matches!(file.data.source, SourceConfig::Patterns { .. }) {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "--preset {preset} makes its own pictures and cannot train on {}; choose small or photos",
                    input.display()
                ),
            ));
        }
        let found = pictures::source_at(input, &file.data.source)?;
        match (&mut file.data.source, found) {
            (SourceConfig::Folder { root, .. }, SourceConfig::Folder { root: at, .. }) => *root = at,
            (SourceConfig::Folder { roots, list, labels, .. }, _)
                if !roots.is_empty() || list.is_some() || labels.is_some() =>
            {
                let message = format!(
                    "data.source: roots, list and labels go with a folder of picture files, and {} is none",
                    input.display()
                );
                return Err(Failure::new(Exit::Usage, message));
            }
            (source, found) => *source = found,
        }
        absolute(&mut file)?;
        Ok(file)
    };
    if let Some(preset) = &config.preset {
        let mut file = at_input(preset)?;
        let pictures = pictures::open(&file.data.source, Split::Train).map_err(with_settable_limit)?;
        if RunFile::is_preset(preset) {
            fit_batch(&mut file, &pictures, sets);
        }
        return Ok((file, pictures));
    }
    // Which of the two fits shows only in the pictures. Those are read as `small` says, and a resumed run must read them
    // alike, so that source stays whichever is picked.
    let small = at_input("small")?;
    let pictures = pictures::open(&small.data.source, Split::Train).map_err(with_settable_limit)?;
    let preset = pictures::preset_for(pictures::shorter_side(&pictures));
    let mut file = at_input(preset)?;
    file.data.source = small.data.source;
    fit_batch(&mut file, &pictures, sets);
    Ok((file, pictures))
}

/// A preset does not know how few the pictures may be; whoever sets the batch does.
fn fit_batch(file: &mut RunFile, pictures: &Pictures, sets: &[String]) {
    let n = pictures.source.len();
    let is_set = sets.iter().any(|set| set.starts_with("data.batch_size"));
    if n >= 2 && n < file.data.batch_size && !is_set {
        note(&format!("data.batch_size = {n}, all pictures there are, where the preset has {}", file.data.batch_size));
        file.data.batch_size = n;
    }
}

fn absolute(file: &mut RunFile) -> Result<(), Failure> {
    file.make_paths_absolute()
        .map_err(|(path, error)| Failure::new(Exit::Data, format!("cannot find {}: {error}", path.display())))
}

/// The name that runs of `input` are called by.
fn stem(input: &Path) -> String {
    let absolute = fs::canonicalize(input).unwrap_or_else(|_| input.to_owned());
    absolute.file_stem().map_or_else(|| "run".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// Refuses to go on with another experiment than the one that was begun, as an edited configuration would.
fn same_experiment(run_dir: &RunDir, file: &RunFile) -> Result<RunManifest, Failure> {
    let manifest = RunManifest::read(run_dir)?;
    if manifest.is_imported() {
        let run = quoted(run_dir.path());
        let message = format!(
            "{run} was imported and cannot be resumed; train from its weights with `{} pretrain DATA --start {run}`",
            program()
        );
        return Err(Failure::new(Exit::Run, message));
    }
    let mut changed = Vec::new();
    changes(&manifest.experiment, &file.experiment().or_exit(Exit::Bug)?, "", &mut changed);
    if changed.is_empty() {
        return Ok(manifest);
    }
    Err(Failure::new(
        Exit::Run,
        format!(
            "{} was edited since the run began: {}; undo that, or {}",
            run_dir.config().display(),
            changed.join("; "),
            begin_again(run_dir.path())
        ),
    ))
}

/// Lists the keys below `path` in which two configurations differ, with both values.
fn changes(then: &Value, now: &Value, path: &str, changed: &mut Vec<String>) {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            for key in then.keys().chain(now.keys().filter(|key| !then.contains_key(*key))) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                changes(then.get(key).unwrap_or(&Value::Null), now.get(key).unwrap_or(&Value::Null), &path, changed);
            }
        }
        _ if then == now => {}
        _ => changed.push(format!("{path} was {then} and is {now}")),
    }
}

fn same_data(run_dir: &RunDir, manifest: RunManifest, now: Manifest, accept: bool) -> Result<(), Failure> {
    let then = &manifest.data;
    if *then == now {
        return Ok(());
    }
    let what = format!(
        "the pictures are not those the run began with: {} then, {} now{}",
        then.pictures,
        now.pictures,
        if then.pictures == now.pictures { ", of which some were renamed or edited" } else { "" }
    );
    if !accept {
        let remedy = "put them back, or go on regardless with --accept-data-change";
        return Err(Failure::new(Exit::Run, format!("{what}; {remedy}")));
    }
    note(&format!("warning: {what}; going on, but not as a run that was never stopped would"));
    let manifest = RunManifest { data: now, ..manifest };
    run_dir.replace_manifest(&serde_json::to_string_pretty(&manifest).or_exit(Exit::Bug)?).map_err(no_run_dir)
}

fn exit_of(error: &TrainError) -> Exit {
    match error {
        TrainError::Load(LoadError::Panicked { .. }) => Exit::Bug,
        TrainError::Load(LoadError::Threads { .. }) => Exit::Io,
        TrainError::Load(_) | TrainError::TooManyBad { .. } => Exit::Data,
        TrainError::Step(StepError::NonFinite { .. }) | TrainError::Checkpoint(CheckpointError::NonFinite { .. }) => {
            Exit::NonFinite
        }
        TrainError::Checkpoint(_) | TrainError::Metrics { .. } => Exit::Io,
        _ => Exit::Bug,
    }
}

/// Keeps the newest measurements for the summary.
struct Last(Option<StepMetrics>);

impl MetricSink for Last {
    fn record(&mut self, metrics: &StepMetrics) -> io::Result<()> {
        self.0 = Some(metrics.clone());
        Ok(())
    }
}

/// Names pictures that could be read when the run began and had to be replaced later.
struct ReplacedLog {
    path: PathBuf,
}

impl MetricSink for ReplacedLog {
    fn record(&mut self, _: &StepMetrics) -> io::Result<()> {
        Ok(())
    }

    fn replaced(&mut self, step: u64, replaced: &Replaced) -> io::Result<()> {
        note(&format!("replaced at step {step}: {}: {}", escape_path(&replaced.path), replaced.reason));
        let line = json!({
            "path": escape_path(&replaced.path), "reason": replaced.reason, "step": step, "replaced_by": replaced.by,
        });
        let mut out = fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
        writeln!(out, "{line}")
    }
}
