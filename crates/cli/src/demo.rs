//! `demo`: the whole road on built-in pictures, with every baseline shown first.

use std::time::Instant;

use serde_json::{Value, json};
use twoview_data::Split;
use twoview_encoder::FrozenEncoder;
use twoview_eval::{KnnConfig, Ladder, LinearProbeConfig, Predictions, Rungs, Score};

use crate::{
    args::DemoArgs,
    device,
    evaluate::{json_of, rung},
    failure::{Exit, Failure, OrExit},
    labelled::{Banks, Labelled, look},
    pictures,
    pretrain::{Shown, begin, train},
    run_file::{RunFile, SourceConfig},
    run_plan::{RunPlan, check},
    scores,
    subject::untrained_encoder,
    terminal::{note, program, result, result_json},
};

/// The two measures of one kind of features.
#[derive(Clone)]
struct Measured {
    knn: Predictions,
    linear: Predictions,
}

/// `twoview demo`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let begun = Instant::now();
    let (_, device) = device::open(&args.device.device)?;
    let preset = if args.quick { "demo_quick" } else { "demo" };
    let mut file = RunFile::from_preset(preset, &args.set).or_exit(Exit::Usage)?;
    if let Some(new) = args.seed {
        file.seed = new;
        if let SourceConfig::Patterns { seed, .. } = &mut file.data.source {
            *seed = new;
        }
    }
    check(&file).or_exit(Exit::Usage)?;
    note("drawing pictures: ten kinds of two-colour patterns, told apart by nothing but the pattern");
    let pictures = pictures::open(&file.data.source, Split::Train)?;
    let test = pictures::open(&file.data.source, Split::Test)?;
    let plan = RunPlan::new(&file, pictures.source.clone()).or_exit(Exit::Usage)?;
    let state = plan.fresh_state(&file, &device.clone().autodiff()).or_exit(Exit::Usage)?;
    let run_dir = begin(args.out.as_deref(), "demo", &file, &pictures, None)?;

    let labelled = Labelled::with_test(pictures.source, test.source)?;
    let look = look(&file)?;
    let (knn, linear) = (file.eval.knn, &file.eval.linear);
    let say = |line: &str| {
        if args.json {
            note(line);
            Ok(())
        } else {
            result(line)
        }
    };

    let pixels = labelled.pixels(look)?;
    let chance = pixels.chance();
    say("before training         kNN                     linear probe")?;
    say(&format!("  {:17} {:5.1} %", "chance", 100.0 * chance))?;
    let raw_pixels = measure("raw pixels", &pixels, knn, linear, say)?;
    let centred_pixels = if linear.standardize {
        // Standardizing takes the mean out of any features, so the linear probe would find the same again.
        let measured = Measured { knn: pixels.centred()?.knn(&knn.into())?.0, linear: raw_pixels.linear.clone() };
        say(&line("centred pixels", &measured))?;
        measured
    } else {
        measure("centred pixels", &pixels.centred()?, knn, linear, say)?
    };
    drop(pixels);
    let features = labelled.features("untrained encoder", &untrained_encoder(&file, &device)?, look)?;
    let untrained = measure("untrained", &features, knn, linear, say)?;

    say(&format!("training on {} pictures without their labels", plan.loader.n_pictures()))?;
    let trained = train(&plan, run_dir, state, &device, 0, None, Shown::default())?;
    let encoder = FrozenEncoder::new(&trained.state.network.encoder);
    let features = labelled.features("trained encoder", &encoder, look)?;
    let after = measure("trained", &features, knn, linear, say)?;

    let beaten = [("raw_pixels", &raw_pixels), ("centred_pixels", &centred_pixels), ("untrained", &untrained)];
    type Of = fn(&Measured) -> &Predictions;
    for (name, of) in [("knn", (|measured| &measured.knn) as Of), ("linear", |measured| &measured.linear)] {
        let beaten = beaten.map(|(name, measured)| (name, of(measured).score()));
        let mut scores = json_of(of(&after), &beaten, chance, labelled.classes());
        let protocol = format!("twoview demo, preset {preset}, {} test pictures", of(&after).score().n);
        scores.insert("protocol".to_owned(), json!(protocol));
        scores::remember(&trained.run_dir, name, &Value::Object(scores));
    }

    let (run, seconds) = (trained.run_dir.path().display().to_string(), begun.elapsed().as_secs_f64());
    if args.json {
        let ladder = |score: fn(&Measured) -> Score| {
            let rungs = Rungs {
                raw_pixels: score(&raw_pixels),
                centred_pixels: score(&centred_pixels),
                untrained: score(&untrained),
                trained: score(&after),
            };
            Ladder::new(chance, &rungs)
        };
        return result_json(&json!({
            "knn": ladder(|measured| measured.knn.score()),
            "linear": ladder(|measured| measured.linear.score()),
            "images_per_s": trained.images_per_s,
            "seconds": seconds,
            "run": run,
        }));
    }
    result("")?;
    result("                     kNN    linear")?;
    result(&format!("  chance           {:5.1} %  {:5.1} %", 100.0 * chance, 100.0 * chance))?;
    for (name, of) in [
        ("raw pixels", &raw_pixels),
        ("centred pixels", &centred_pixels),
        ("untrained", &untrained),
        ("trained", &after),
    ] {
        result(&format!(
            "  {name:16} {:5.1} %  {:5.1} %",
            100.0 * of.knn.score().top1,
            100.0 * of.linear.score().top1
        ))?;
    }
    result("")?;
    result(&format!("took     {seconds:.0} s, training at {:.0} img/s", trained.images_per_s))?;
    result(&format!("run      {run}"))?;
    result(&format!("encoder  {}", trained.run_dir.exported_encoder().display()))?;
    result(&format!("next     {} pretrain path/to/your/pictures", program()))
}

fn measure(
    name: &str,
    banks: &Banks,
    knn: KnnConfig,
    linear: &LinearProbeConfig,
    say: impl Fn(&str) -> Result<(), Failure>,
) -> Result<Measured, Failure> {
    let measured = Measured { knn: banks.knn(&knn.into())?.0, linear: banks.linear(linear, &[])?.0 };
    say(&line(name, &measured))?;
    Ok(measured)
}

fn line(name: &str, measured: &Measured) -> String {
    let linear = rung("", &measured.linear.score());
    format!("{}    {}", rung(name, &measured.knn.score()), linear.trim_start())
}
