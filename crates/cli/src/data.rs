//! `data check`, `data make` and `data pack`: look at a folder of pictures, make one, or put a set into one file.

use std::{fs, path::PathBuf};

use serde_json::json;
use twoview_data::{
    DuplicateGroup, Likeness, PackForm, PatternFolderConfig, PatternFolderError, PictureFiles, ScanReport,
    WritePackError, duplicates_text, escape_path, write_pack, write_pattern_folder,
};

use crate::{
    args::{DataCheckArgs, DataPackArgs, MakePatternsArgs},
    failure::{Exit, Failure, OrExit, at},
    pictures,
    run_file::{RunFile, SourceConfig},
    terminal::{Counter, counted, listed, note, program, quoted, result, result_json},
    unfinished::{Unfinished, may_write},
};

/// `twoview data check`.
///
/// # Errors
/// [`Exit::Data`] where there is no usable picture, after everything has been reported.
pub(crate) fn check(args: &DataCheckArgs) -> Result<(), Failure> {
    let config = RunFile::from_preset("small", &[]).or_exit(Exit::Bug)?.data.source;
    let files = PictureFiles { roots: args.dirs.clone(), list: args.list.clone(), labels: args.labels.clone() };
    let in_out = |name: &str| args.out.as_ref().map(|out| out.join(name));
    let bad_files: Vec<PathBuf> = args.bad_files.clone().into_iter().chain(in_out("bad_files.jsonl")).collect();
    let duplicates: Vec<PathBuf> = args.duplicates.clone().into_iter().chain(in_out("duplicates.jsonl")).collect();
    bad_files.iter().chain(&duplicates).try_for_each(|path| may_write(path))?;
    let (report, groups) = pictures::check(&files, &config, args.split.into(), args.near)?;
    if let Some(out) = &args.out {
        fs::create_dir_all(out).map_err(at(out))?;
    }
    for path in &bad_files {
        Unfinished::write(path, pictures::bad_files_text(&report.bad_files))?;
    }
    for path in &duplicates {
        Unfinished::write(path, duplicates_text(&groups))?;
    }
    if args.json {
        let mut whole = serde_json::to_value(&report).or_exit(Exit::Bug)?;
        whole["duplicate_groups"] = serde_json::to_value(&groups).or_exit(Exit::Bug)?;
        result_json(&whole)?;
    } else {
        describe(&report, &groups, args.near)?;
    }
    if report.pictures == 0 {
        let n = report.bad_files.len();
        return Err(Failure::new(
            Exit::Data,
            format!("none of the {n} pictures in {} can be used", escape_path(&report.root)),
        ));
    }
    Ok(())
}

/// `twoview data pack`.
///
/// # Errors
/// [`Exit::Usage`] where the file exists, [`Exit::Data`] where the set or too many of its pictures cannot be used,
/// [`Exit::Io`] where the file cannot be written.
pub(crate) fn pack(args: &DataPackArgs) -> Result<(), Failure> {
    let mut preset = RunFile::from_preset("small", &[]).or_exit(Exit::Bug)?.data.source;
    if let SourceConfig::Folder { exif_rotate, .. } = &mut preset {
        *exif_rotate = args.exif_rotate;
    }
    may_write(&args.out)?;
    let config = pictures::source_at(&args.data, &preset)?;
    let pictures = pictures::open(&config, args.split.into())?;
    let form = match args.max_side {
        Some(px) => PackForm::MaxSide { px },
        None if args.decoded => PackForm::Decoded,
        None => PackForm::Original,
    };
    let counter = Counter::start("packing", pictures.source.len());
    let written = write_pack(
        pictures.source.as_ref(),
        &pictures.manifest.fingerprint,
        &args.out,
        form,
        pictures::decode_options(&preset),
        preset.max_bad_fraction(),
        &|done, total| counter.at(done, total),
    );
    let written = written.map_err(|error| {
        let exit = match &error {
            WritePackError::Unwritable { .. } => Exit::Io,
            WritePackError::TooManyBad { .. } | WritePackError::TooLarge { .. } => Exit::Data,
            _ => Exit::Usage,
        };
        Failure { exit, error: error.into() }
    })?;
    counter.end();
    for bad in &written.bad_files {
        note(&format!("left out: {}: {}", escape_path(&bad.path), bad.reason));
    }
    let out = escape_path(&args.out);
    let n_left_out = written.bad_files.len() + pictures.report.map_or(0, |report| report.bad_files.len());
    if args.json {
        return result_json(&json!({
            "out": out,
            "left_out": n_left_out,
            "pictures": written.pictures,
            "shrunk": written.shrunk,
            "bytes": written.bytes,
            "source": pictures.manifest.fingerprint,
            "bad_files": written.bad_files,
        }));
    }
    let mib = written.bytes as f64 / (1024.0 * 1024.0);
    result(&format!("packed   {} pictures, {mib:.1} MiB, {n_left_out} left out", written.pictures))?;
    if let PackForm::MaxSide { px } = form {
        result(&format!("shrunk   {} to {px} px on the longer side", written.shrunk))?;
    }
    result(&format!("file     {out}"))?;
    result(&format!("next     {} pretrain {}", program(), quoted(&args.out)))
}

/// Groups of duplicates that are named on the terminal.
const GROUPS_SHOWN: usize = 10;

fn describe(report: &ScanReport, groups: &[DuplicateGroup], near_bits: u32) -> Result<(), Failure> {
    let formats: Vec<String> = report.formats.iter().map(|(format, n)| format!("{n} {format}")).collect();
    result(&format!("pictures     {} ({})", report.pictures, formats.join(", ")))?;
    result(&format!("size         {:.1} MiB in files", report.total_bytes as f64 / (1024.0 * 1024.0)))?;
    for (name, range) in [("width", report.width), ("height", report.height)] {
        result(&format!("{name:12} {} to {} px, half of them up to {}", range.min, range.max, range.median))?;
    }
    if report.labelled {
        result(&format!("classes      {}", report.classes.len()))?;
        let width = report.classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0);
        report.classes.iter().try_for_each(|class| result(&format!("  {:width$}  {}", class.name, class.pictures)))?;
    } else {
        result("classes      none: the pictures are unlabelled")?;
    }
    let (exact, near): (Vec<_>, Vec<_>) = groups.iter().partition(|group| group.kind == Likeness::Exact);
    result(&format!(
        "duplicates   {} byte for byte like another, in {}",
        report.duplicates,
        counted(exact.len(), "group")
    ))?;
    let n_near: usize = near.iter().map(|group| group.paths.len()).sum();
    result(&format!("look alike   {n_near} in {}, by {near_bits} of 64 bits", counted(near.len(), "group")))?;
    for group in groups.iter().take(GROUPS_SHOWN) {
        let kind = if group.kind == Likeness::Exact { "same bytes" } else { "look alike" };
        result(&format!("  {kind}: {}", listed(&group.paths, 3)))?;
    }
    if groups.len() > GROUPS_SHOWN {
        result(&format!("  {} more groups; --duplicates FILE writes them all", groups.len() - GROUPS_SHOWN))?;
    }
    result(&format!("fingerprint  {}", report.fingerprint))?;
    let mut passed_over: Vec<String> = (report.passed_over.iter())
        .map(|(extension, n)| match extension.as_str() {
            "" => format!("{n} without extension"),
            extension => format!("{n} .{}", extension.escape_debug()),
        })
        .collect();
    passed_over.extend((report.hidden > 0).then(|| format!("{} hidden", report.hidden)));
    if !passed_over.is_empty() {
        result(&format!("passed over  {}", passed_over.join(", ")))?;
    }
    report.notes.iter().try_for_each(|remark| result(&format!("note         {remark}")))?;
    result(&format!("unusable     {}", report.bad_files.len()))?;
    report.bad_files.iter().try_for_each(|bad| result(&format!("  {}: {}", escape_path(&bad.path), bad.reason)))
}

/// `twoview data make patterns`.
///
/// # Errors
/// [`Exit::Usage`] where the folder has something in it, [`Exit::Io`] where it cannot be written.
pub(crate) fn make_patterns(args: &MakePatternsArgs) -> Result<(), Failure> {
    let made = write_pattern_folder(
        &args.dir,
        &PatternFolderConfig {
            seed: args.seed,
            train_per_class: args.train_per_class,
            test_per_class: args.test_per_class,
            bad_files: args.bad,
        },
    )
    .map_err(|error| {
        let exit = if matches!(error, PatternFolderError::Write { .. }) { Exit::Io } else { Exit::Usage };
        Failure { exit, error: error.into() }
    })?;
    let (dir, train) = (args.dir.display(), args.dir.join("train"));
    let bad: Vec<String> = made.bad_files.iter().map(|path| escape_path(path)).collect();
    if args.json {
        return result_json(
            &json!({ "dir": escape_path(&args.dir), "train": made.train, "test": made.test, "bad_files": bad }),
        );
    }
    result(&format!("made     {} training and {} test pictures in {dir}", made.train, made.test))?;
    if !made.bad_files.is_empty() {
        result(&format!(
            "broken   {} planted; `{} data check {}` finds them",
            counted(made.bad_files.len(), "file"),
            program(),
            quoted(&train)
        ))?;
    }
    result(&format!("next     {} pretrain {}", program(), quoted(&train)))
}
