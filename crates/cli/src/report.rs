//! `report`: one page about a run that opens offline.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use serde_json::{Map, Value, json};
use twoview_data::{Source, Split, escape_path};
use twoview_eval::{KMeans, KMeansConfig, NearestRows, PrincipalComponents, neighbour_map, stream_features};
use twoview_pixels::{Filter, Image, Planes, Workspace, resize_center_crop};
use twoview_report::{
    Confusion, EmbeddingMap, Fact, GalleryRow, MapNeighbour, MapPicture, Pair, PairList, Picture, Projection,
    Reference, Report, Rung, ScoreLadder, Section, StepRow, figures, html,
};
use twoview_train::RunDir;

use crate::{
    args::ReportArgs,
    events::write_events,
    failure::{Exit, Failure, OrExit, at},
    measurements::measurements,
    metrics_csv::write_metrics_csv,
    online::OnlineReferences,
    pictures::{self, Pictures, RunManifest},
    preview,
    run_file::RunFile,
    scores,
    spread::spread,
    subject::Subject,
    terminal::{Counter, note, program, quoted, result, result_json},
    unfinished::{Unfinished, may_write},
};

/// Side of a picture on the map, in pixels.
const THUMBNAIL_PX: u32 = 48;

/// Side of a picture in galleries and pairs, in pixels.
const PICTURE_PX: u32 = 96;

/// Queries of the gallery, and neighbours of each.
const GALLERY: (usize, usize) = (12, 6);

/// Pairs of a kind that are shown.
const PAIRS: usize = 12;

/// Neighbours of a picture on the map.
const NEIGHBOURS: usize = 8;

/// Pixels of a PNG file for each unit of a figure: 960 across.
#[cfg(feature = "png")]
const FIGURE_ZOOM: f32 = 2.0;

/// `twoview report`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn report(args: &ReportArgs) -> Result<(), Failure> {
    let subject = Subject::open(args.run.as_deref(), &args.device.device)?;
    let run = subject.run_dir.path().to_owned();
    let out = args.out.clone().unwrap_or_else(|| run.join("report.html"));
    may_write(&out)?;
    // What was imported has measured nothing.
    let steps = if subject.run_dir.metrics().is_file() { measurements(&subject.run_dir) } else { Vec::new() };
    let manifest = fs::read_to_string(subject.run_dir.manifest())
        .ok()
        .and_then(|text| serde_json::from_str::<RunManifest>(&text).ok());
    let mut page = Report {
        name: run.file_name().map_or_else(|| run.display().to_string(), |name| name.to_string_lossy().into_owned()),
        about: about(&subject.file, manifest.as_ref()),
        made: now(),
        program: format!("twoview {}", env!("CARGO_PKG_VERSION")),
        data: data_facts(manifest.as_ref()),
        environment: environment(&subject.device_name),
        config: fs::read_to_string(subject.run_dir.config()).ok(),
        steps: if steps.is_empty() {
            Section::Hint("The run has no measurements.".to_owned())
        } else {
            Section::Present(steps.clone())
        },
        ..Report::default()
    };
    page.warnings = warnings(&subject, &steps);
    page.knn_references = OnlineReferences::of_run(&run).map_or_else(Vec::new, |references| {
        let reference = |label: &str, value| Reference { label: label.to_owned(), value };
        vec![reference("untrained", references.untrained), reference("raw pixels", references.raw_pixels)]
    });
    let scores = scores::read(&subject.run_dir);
    page.warnings.extend(stale(&scores, subject.step()).into_iter().chain(flattered(&scores)));
    let train = if subject.file.data.source.is_nowhere() { " --train DATA" } else { "" };
    add_scores(&mut page, &scores, &format!("{}{train}", quoted(&run)));
    if args.pictures == 0 {
        page.map = Section::Hint("Made with `--pictures 0`, so without a map of pictures.".to_owned());
    } else {
        match opened(args, &subject) {
            Ok(pictures) => {
                let begun = manifest.as_ref().map(|manifest| manifest.data.fingerprint.as_str());
                // With what is known of duplicates behind it, where a list of them was given.
                let is_same = |begun: &str| begun.starts_with(&pictures.manifest.fingerprint);
                if args.data.is_none() && begun.is_some_and(|begun| !is_same(begun)) {
                    page.warnings
                        .push("The pictures on this page are not those that the run was trained on.".to_owned());
                }
                add_pictures(&mut page, args, &subject, &pictures.source)?;
            }
            // The curves are worth a page even where the pictures are gone.
            Err(failure) => {
                note(&format!("warning: the page has no pictures: {:#}", failure.error));
                page.warnings.push(format!("The pictures cannot be opened: {:#}", failure.error));
            }
        }
    }
    let text = html(&page).or_exit(Exit::Bug)?;
    Unfinished::write(&out, &text)?;
    let figure_dir = args.figures.then(|| run.join("figures"));
    if let Some(folder) = &figure_dir {
        fs::create_dir_all(folder).map_err(at(folder))?;
        for figure in figures(&page) {
            let path = folder.join(format!("{}.svg", figure.name));
            Unfinished::write(&path, &figure.svg)?;
            #[cfg(feature = "png")]
            {
                let png = twoview_report::figure_png(&figure, FIGURE_ZOOM).or_exit(Exit::Bug)?;
                let path = path.with_extension("png");
                Unfinished::write(&path, png)?;
            }
        }
    }
    let events = if args.tensorboard { events(&run, &steps)? } else { None };
    if args.csv && steps.is_empty() {
        note("the run has no measurements, and so no table of them");
    }
    let table = (args.csv && !steps.is_empty()).then(|| run.join("metrics.csv"));
    if let Some(table) = &table {
        write_metrics_csv(&subject.run_dir.metrics(), table)?;
    }
    if args.json {
        return result_json(&json!({
            "report": escape_path(&out),
            "bytes": text.len(),
            "figures": figure_dir.as_deref().map(escape_path),
            "tensorboard": events.as_deref().map(escape_path),
            "csv": table.as_deref().map(escape_path),
        }));
    }
    result(&format!("report   {} ({:.1} MB; open it in a browser)", out.display(), text.len() as f64 / 1e6))?;
    if let Some(folder) = figure_dir {
        result(&format!("figures  {}", folder.display()))?;
    }
    if let Some(events) = events {
        let folder = events.parent().unwrap_or(&events).to_owned();
        result(&format!("events   {}; tensorboard --logdir {}", events.display(), quoted(&folder)))?;
    }
    if let Some(table) = table {
        result(&format!("table    {}", table.display()))?;
    }
    Ok(())
}

fn about(file: &RunFile, manifest: Option<&RunManifest>) -> String {
    let name = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let arch = name(json!(file.encoder.arch));
    if let Some(origin) =
        manifest.filter(|manifest| manifest.is_imported()).and_then(|manifest| manifest.weights.as_ref())
    {
        return format!("A {arch} encoder of width {}, imported from {}.", file.encoder.width, origin.file);
    }
    let loss = serde_json::to_value(&file.loss).ok().and_then(|loss| loss.get("kind").cloned()).map(name);
    format!(
        "A {arch} encoder of width {}, trained with the {} loss on batches of {} pictures, two views of each.",
        file.encoder.width,
        loss.unwrap_or_else(|| "contrastive".to_owned()),
        file.data.batch_size
    )
}

/// The time of day as a person reads it, in UTC.
fn now() -> String {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(0))
        .map_or_else(|_| String::new(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

fn data_facts(manifest: Option<&RunManifest>) -> Vec<Fact> {
    // A run that was imported has no pictures of its own.
    let Some(manifest) = manifest.filter(|manifest| !manifest.is_imported()) else { return Vec::new() };
    let classes = manifest.data.classes.len();
    vec![
        Fact::new("Pictures", manifest.data.pictures),
        Fact::new("Classes", if classes == 0 { "none: unlabelled".to_owned() } else { classes.to_string() }),
        Fact::new("Fingerprint", &manifest.data.fingerprint),
    ]
}

fn environment(device: &str) -> Vec<Fact> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    vec![
        Fact::new("Device of this page", device),
        Fact::new("System", format!("{} {}", env::consts::OS, env::consts::ARCH)),
        Fact::new("Threads", threads),
    ]
}

fn warnings(subject: &Subject, steps: &[StepRow]) -> Vec<String> {
    let mut warnings: Vec<String> =
        subject.unfinished().map(|words| format!("{}.", capital(words))).into_iter().collect();
    if let Some(rank) = steps.last().and_then(|step| step.effective_rank)
        && rank < 2.0
    {
        warnings.push(format!(
            "The embeddings of the last step fill {rank:.1} dimensions: the encoder has collapsed. Raise loss.temperature \
             or lower optimizer.lr_per_256."
        ));
    }
    let bad = fs::read_to_string(subject.run_dir.bad_files()).unwrap_or_default().lines().count();
    if bad > 0 {
        warnings.push(format!("{bad} unusable pictures were left out or replaced; `bad_files.jsonl` names them."));
    }
    warnings
}

/// Says which scores are of an encoder that has been trained on since.
fn stale(scores: &Map<String, Value>, step: Option<u64>) -> Option<String> {
    let step = step?;
    let of_before = |score: &Value| score["step"].as_u64().is_some_and(|of| of != step);
    let stale: Vec<&str> = scores.iter().filter(|(_, score)| of_before(score)).map(|(name, _)| name.as_str()).collect();
    (!stale.is_empty()).then(|| {
        format!(
            "These scores are of an earlier step than the encoder, which is of step {step}: {}. Evaluate again.",
            stale.join(", ")
        )
    })
}

/// Says which scores are of test pictures that were learned from.
fn flattered(scores: &Map<String, Value>) -> Option<String> {
    let of_seen = |score: &Value| score["n_in_train"].as_u64().is_some_and(|n| n > 0);
    let seen: Vec<&str> = scores.iter().filter(|(_, score)| of_seen(score)).map(|(name, _)| name.as_str()).collect();
    (!seen.is_empty()).then(|| {
        format!(
            "Some test pictures of these scores are training pictures too, which flatters them: {}. Their protocol says how \
             many.",
            seen.join(", ")
        )
    })
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The event file of a run that nobody trains: one who does writes to it.
fn events(run: &Path, steps: &[StepRow]) -> Result<Option<PathBuf>, Failure> {
    match RunDir::open(run) {
        Ok(_lock) => write_events(run, steps).map(Some),
        Err(error) => {
            note(&format!("warning: the events are left as they are: {error}"));
            Ok(None)
        }
    }
}

/// The ladders of `scores.json` and the confusions of the first.
fn add_scores(page: &mut Report, all: &Map<String, Value>, run: &str) {
    let mut ladders = Vec::new();
    for (key, title) in [
        ("knn", "kNN"),
        ("linear", "Linear probe"),
        ("linear_augmented", "Linear, on augmented pictures"),
        ("finetune", "Fine-tuned"),
    ] {
        let Some(score) = all.get(key) else { continue };
        let share = |name: &str| score.get(name).and_then(Value::as_f64);
        let interval = |value: &Value| serde_json::from_value::<[f64; 2]>(value.clone()).ok();
        let rungs = [
            ("chance", "chance", None),
            ("raw pixels", "raw_pixels", Some(&score["ci95_of"]["raw_pixels"])),
            ("centred pixels", "centred_pixels", Some(&score["ci95_of"]["centred_pixels"])),
            ("untrained", "untrained", Some(&score["ci95_of"]["untrained"])),
            ("from scratch", "scratch", Some(&score["ci95_of"]["scratch"])),
            ("trained", "top1", Some(&score["ci95"])),
        ];
        let rungs: Vec<Rung> = (rungs.into_iter())
            .filter_map(|(label, name, ci95)| {
                let value = share(name)?;
                Some(Rung { label: label.to_owned(), value, interval: ci95.and_then(interval) })
            })
            .collect();
        let protocol = score["protocol"].as_str().unwrap_or_default().to_owned();
        ladders.push(ScoreLadder { title: title.to_owned(), protocol, rungs });
        if matches!(page.confusion, Section::Absent)
            && let Some((classes, confusion)) = confusion(score, title)
        {
            page.classes = classes;
            page.confusion = Section::Present(confusion);
        }
    }
    page.scores = if ladders.is_empty() {
        Section::Hint(format!(
            "`{program} eval knn {run}` and `{program} eval linear {run}` add scores; then make this page again.",
            program = program()
        ))
    } else {
        Section::Present(ladders)
    };
}

/// The confusion matrix of an evaluation, where it was kept whole.
fn confusion(score: &Value, title: &str) -> Option<(Vec<String>, Confusion)> {
    let rows = score["classes"].as_array()?;
    let names: Vec<String> = rows.iter().filter_map(|row| row["class"].as_str().map(str::to_owned)).collect();
    let place = |name: &Value| names.iter().position(|known| Some(known.as_str()) == name.as_str());
    let mut counts = vec![vec![0_u64; names.len()]; names.len()];
    for pair in score["confusions"].as_array()? {
        let (class, predicted) = (place(&pair["class"])?, place(&pair["predicted"])?);
        counts[class][predicted] = pair["n"].as_u64()?;
    }
    let mut n_wrong = 0;
    for (i, row) in rows.iter().enumerate() {
        let (n, recall) = (row["n"].as_u64()?, row["recall"].as_f64()?);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count is a count")]
        let hits = (recall * n as f64).round() as u64;
        n_wrong += n - hits;
        counts[i][i] = hits;
    }
    let kept: u64 = score["confusions"].as_array()?.iter().filter_map(|pair| pair["n"].as_u64()).sum();
    (kept == n_wrong && names.len() > 1).then(|| (names, Confusion { of: title.to_owned(), counts }))
}

fn opened(args: &ReportArgs, subject: &Subject) -> Result<Pictures, Failure> {
    let config = pictures::source_or_own(args.data.as_deref(), "--data", &subject.file.data.source)?;
    pictures::open(&config, Split::Train)
}

/// The map, the gallery, the pairs and the sheet of views.
fn add_pictures(
    page: &mut Report,
    args: &ReportArgs,
    subject: &Subject,
    source: &Arc<dyn Source>,
) -> Result<(), Failure> {
    let all: Vec<usize> = (0..source.len()).collect();
    let shown = spread(&all, args.pictures);
    let subset: Arc<dyn Source> = Arc::new(twoview_data::Subset::new(Arc::clone(source), shown.clone()));
    let (encoder, look) = (subject.encoder(), subject.look());
    let counter = Counter::start("embedding", shown.len());
    let mut rows = Vec::with_capacity(shown.len() * encoder.feature_dim());
    stream_features(subset.as_ref(), encoder, look.size_px, look.normalize, |first, batch| {
        rows.extend_from_slice(batch);
        counter.at(first + batch.len() / encoder.feature_dim(), shown.len());
        Ok::<(), twoview_eval::ExtractError>(())
    })
    .or_exit(Exit::Data)?;
    counter.end();

    // Classes by name: the page may know others from an evaluation.
    if page.classes.is_empty() {
        page.classes = source.classes().to_vec();
    }
    let class_of: Vec<Option<usize>> =
        (source.classes().iter()).map(|name| page.classes.iter().position(|known| known == name)).collect();
    let class = |i: usize| source.label(i).and_then(|label| class_of.get(label as usize).copied().flatten());
    let picture = |place: usize| -> Result<Picture, Failure> {
        let i = shown[place];
        Ok(Picture {
            name: source.name(i).into_owned(),
            class: class(i),
            image: small(source.as_ref(), i, PICTURE_PX)?,
        })
    };

    let n_nearest = (NEIGHBOURS + 1).min(shown.len());
    let nearest = NearestRows::new(&rows, encoder.feature_dim()).or_exit(Exit::Bug)?;
    let near: Vec<Vec<(usize, f64)>> = (nearest.of(&rows, n_nearest).or_exit(Exit::Bug)?.into_iter().enumerate())
        .map(|(own, found)| {
            found.into_iter().filter(|near| near.index != own).map(|near| (near.index, near.similarity)).collect()
        })
        .collect();

    page.map = Section::Present(map(source.as_ref(), &shown, &rows, encoder.feature_dim(), &near, class)?);
    let queries = spread(&(0..shown.len()).collect::<Vec<_>>(), GALLERY.0);
    let gallery = queries.into_iter().map(|query| {
        let found = near[query].iter().take(GALLERY.1);
        let found =
            found.map(|&(place, cosine)| Ok((picture(place)?, narrow(cosine)))).collect::<Result<_, Failure>>()?;
        Ok(GalleryRow { query: picture(query)?, found })
    });
    page.neighbours = Section::Present(gallery.collect::<Result<_, Failure>>()?);

    // Whatever is nearest and counts as different: training pushes these apart.
    let mut alike: Vec<(usize, usize, f64)> = (near.iter().enumerate())
        .flat_map(|(a, found)| found.iter().map(move |&(b, cosine)| (a.min(b), a.max(b), cosine)))
        .filter(|&(a, b, _)| source.group(shown[a]) != source.group(shown[b]))
        .collect();
    alike.sort_by(|a, b| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
    alike.dedup_by_key(|pair| (pair.0, pair.1));
    alike.truncate(PAIRS);
    let pairs = alike
        .into_iter()
        .map(|(a, b, cosine)| Ok(Pair { pictures: [picture(a)?, picture(b)?], cosine: narrow(cosine) }));
    let note = "Training pushes these apart. If they show the same thing, `twoview data check --out FOUND` finds duplicates, and \
                `data.duplicates` makes the loss leave them out.";
    let mut lists = vec![PairList {
        title: "Look the same, count as different".to_owned(),
        note: note.to_owned(),
        pairs: pairs.collect::<Result<_, Failure>>()?,
    }];
    lists.extend(hardest(subject, source.as_ref(), &shown)?);
    page.pairs = Section::Present(lists);
    page.augmentations = Section::Present(preview::sheet_of(source.as_ref(), &subject.file)?);
    Ok(())
}

fn map(
    source: &dyn Source,
    shown: &[usize],
    rows: &[f32],
    dim: usize,
    near: &[Vec<(usize, f64)>],
    class: impl Fn(usize) -> Option<usize>,
) -> Result<EmbeddingMap, Failure> {
    let n = shown.len();
    let k = source.classes().len().max(10).min(n);
    let config = KMeansConfig { k, seed: 0, starts: 2, max_iterations: 50 };
    let groups = KMeans::fit(rows, dim, config).or_exit(Exit::Bug)?.groups;
    let mut pictures = Vec::with_capacity(n);
    let counter = Counter::start("thumbnails", n);
    for (place, &i) in shown.iter().enumerate() {
        let neighbours = near[place].iter().map(|&(picture, cosine)| MapNeighbour { picture, cosine: narrow(cosine) });
        pictures.push(MapPicture {
            name: source.name(i).into_owned(),
            class: class(i),
            cluster: Some(groups[place]),
            thumbnail: small(source, i, THUMBNAIL_PX)?,
            neighbours: neighbours.collect(),
        });
        counter.at(place + 1, n);
    }
    counter.end();
    let mut projections = Vec::new();
    let counter = Counter::start("map", n);
    if let Ok(places) = neighbour_map(rows, dim) {
        projections.push(Projection {
            name: "t-SNE".to_owned(),
            note: "Neighbours stay neighbours; distances between groups and their sizes mean nothing.".to_owned(),
            places,
        });
    }
    if let Ok(components) = PrincipalComponents::of(rows, dim, 2.min(dim)) {
        let kept = 100.0 * components.variances.iter().sum::<f64>() / components.total_variance.max(f64::MIN_POSITIVE);
        let places = components.project(rows);
        let place = |at: &[f64]| [narrow(at[0]), at.get(1).map_or(0.0, |y| narrow(*y))];
        projections.push(Projection {
            name: "PCA".to_owned(),
            note: format!(
                "The two directions of the largest variance, {kept:.0} % of all; distances are true within it."
            ),
            places: places.chunks(components.variances.len()).map(place).collect(),
        });
    }
    counter.end();
    Ok(EmbeddingMap { pictures, projections })
}

/// Pictures whose two views the encoder finds least alike.
fn hardest(subject: &Subject, source: &dyn Source, shown: &[usize]) -> Result<Option<PairList>, Failure> {
    const LOOKED_AT: usize = 256;
    let augment = subject.file.augment.clone().init().or_exit(Exit::Usage)?;
    let samples = spread(shown, LOOKED_AT);
    let mut views = Vec::with_capacity(2 * samples.len());
    for &i in &samples {
        let image = source.image(i).or_exit(Exit::Data)?;
        for view in 0..2 {
            let key = twoview_augment::ViewKey { seed: subject.file.seed, epoch: 0, sample: i as u64, view };
            let plan = augment.plan(&key, image.width(), image.height());
            views.push(plan.render(&image).or_exit(Exit::Data)?);
        }
    }
    let rows = subject.features_of(views.clone())?;
    let dim = subject.encoder().feature_dim();
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
    };
    let mut pairs: Vec<(usize, f64)> =
        (rows.chunks_exact(2 * dim).enumerate()).map(|(i, pair)| (i, cosine(&pair[..dim], &pair[dim..]))).collect();
    pairs.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    let pairs: Vec<Pair> = (pairs.into_iter().take(PAIRS))
        .map(|(i, cosine)| {
            let name = source.name(samples[i]).into_owned();
            let view = |k: usize| Picture {
                name: format!("{name}, view {}", k + 1),
                class: None,
                image: views[2 * i + k].clone(),
            };
            Pair { pictures: [view(0), view(1)], cosine: narrow(cosine) }
        })
        .collect();
    Ok((!pairs.is_empty()).then(|| PairList {
        title: "The same picture, least alike".to_owned(),
        note: format!(
            "Of {} pictures, the two views that the encoder finds least alike. Views that share nothing are crops too small or \
             colours too strong: see `augment`.",
            samples.len()
        ),
        pairs,
    }))
}

/// Picture `i`, its middle square at `side` pixels, or as it is where it is smaller.
fn small(source: &dyn Source, i: usize, side: u32) -> Result<Image, Failure> {
    let image = source.image(i).or_exit(Exit::Data)?;
    let side = side.min(image.width()).min(image.height());
    let (mut planes, workspace) = (Planes::default(), &mut Workspace::default());
    resize_center_crop(&image, side, side, Filter::Bilinear, workspace, &mut planes).or_exit(Exit::Data)?;
    Ok(planes.to_image())
}

#[expect(clippy::cast_possible_truncation, reason = "a cosine or a place on the page is read to a few figures")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_another_step_or_of_pictures_that_were_seen_are_named() {
        let score = |step: u64, n_in_train: u64| json!({ "step": step, "n_in_train": n_in_train, "top1": 0.5 });
        let scores = Map::from_iter([("knn".to_owned(), score(19, 0)), ("linear".to_owned(), score(40, 3))]);
        let stale = stale(&scores, Some(40)).expect("one is of step 19");
        assert!(stale.contains("step 40: knn.") && !stale.contains("linear"), "{stale}");
        let flattered = flattered(&scores).expect("one has seen its test pictures");
        assert!(flattered.contains("flatters them: linear."), "{flattered}");
        let fine = Map::from_iter([("knn".to_owned(), score(40, 0)), ("old".to_owned(), json!({ "top1": 0.5 }))]);
        assert_eq!(
            (super::stale(&fine, Some(40)), super::stale(&fine, None), super::flattered(&fine)),
            (None, None, None)
        );
    }
}
