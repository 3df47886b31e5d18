//! `cluster`: pictures in groups that an encoder finds alike.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use twoview_data::{Source, escape_path};
use twoview_eval::{KMeans, KMeansConfig};
use twoview_pixels::encode_png;
use twoview_report::{Cell, contact_sheet};

use crate::{
    args::ClusterArgs,
    embeddings::Embeddings,
    failure::{Exit, Failure, OrExit, at},
    pictures,
    subject::Subject,
    terminal::{note, result, result_json},
    unfinished::{Unfinished, may_write},
};

/// Side of a picture on the sheet, in pixels.
const SHEET_PX: u32 = 160;

/// Pictures of each cluster on the sheet, those nearest to its centre.
const SHEET_COLUMNS: usize = 8;

/// Clusters named on the terminal.
const SHOWN: usize = 50;

/// `twoview cluster`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn cluster(args: &ClusterArgs) -> Result<(), Failure> {
    if let Some(folder) = &args.folders
        && fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
    {
        let message = format!("--folders {}: the folder has something in it; name a new one", folder.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let subject = Subject::open(Some(&args.run), &args.device.device)?;
    let out = args.out.clone().unwrap_or_else(|| subject.run_dir.path().join("clusters.csv"));
    [Some(&out), args.sheet.as_ref()].into_iter().flatten().try_for_each(|path| may_write(path))?;
    let embeddings = Embeddings::open(&args.pictures, &subject)?;
    let source = embeddings.source.as_ref();
    let config = KMeansConfig { k: args.k, seed: args.seed, starts: args.starts, max_iterations: 200 };
    let found = KMeans::fit(&embeddings.rows, embeddings.dim, config).or_exit(Exit::Usage)?;
    if !found.converged {
        note("warning: pictures still changed their cluster when the steps ran out");
    }
    let mut members = vec![Vec::new(); args.k];
    found.groups.iter().enumerate().for_each(|(i, &group)| members[group].push(i));
    for group in &mut members {
        group.sort_by(|&a, &b| found.similarities[b].total_cmp(&found.similarities[a]).then(a.cmp(&b)));
    }

    Unfinished::create(&out)?.finish(|file| {
        let mut table = csv::Writer::from_writer(file);
        table.write_record(["path", "cluster", "similarity"])?;
        for i in 0..embeddings.len() {
            table.write_record([
                &*source.name(i),
                &found.groups[i].to_string(),
                &format!("{:.6}", found.similarities[i]),
            ])?;
        }
        table.flush()
    })?;
    if let Some(folder) = &args.folders {
        link_into(folder, source, &members)?;
    }
    if let Some(path) = &args.sheet {
        write_sheet(path, source, &members, &found.similarities)?;
    }
    if args.json {
        return result_json(&json!({
            "clusters": members.iter().map(Vec::len).collect::<Vec<_>>(),
            "cohesion": found.cohesion,
            "pictures": embeddings.len(),
            "file": escape_path(&out),
            "folders": args.folders.as_deref().map(escape_path),
            "sheet": args.sheet.as_deref().map(escape_path),
        }));
    }
    result(&format!(
        "{} pictures in {} clusters, mean cosine with the centre {:.3}",
        embeddings.len(),
        args.k,
        found.cohesion
    ))?;
    for (group, members) in members.iter().enumerate().take(SHOWN) {
        let typical: Vec<_> = members.iter().take(3).map(|&i| source.name(i)).collect();
        result(&format!("  {group:4}  {:6}  {}", members.len(), typical.join(", ")))?;
    }
    if args.k > SHOWN {
        result(&format!("  {} more", args.k - SHOWN))?;
    }
    result(&format!("table    {}", out.display()))?;
    for (what, path) in [("folders", &args.folders), ("sheet", &args.sheet)] {
        if let Some(path) = path {
            result(&format!("{what:8} {}", path.display()))?;
        }
    }
    Ok(())
}

/// A folder for each cluster with links to its pictures, or copies where links are not to be had.
fn link_into(folder: &Path, source: &dyn Source, members: &[Vec<usize>]) -> Result<(), Failure> {
    let digits = members.len().saturating_sub(1).to_string().len();
    for (group, members) in members.iter().enumerate() {
        let place = folder.join(format!("cluster-{group:0digits$}"));
        fs::create_dir_all(&place).map_err(at(&place))?;
        for &i in members {
            let picture = fs::canonicalize(source.path(i)).map_err(|_| {
                let message = format!("--folders: {} is no file of its own; use the table", source.name(i));
                Failure::new(Exit::Usage, message)
            })?;
            // Two pictures of one name may lie in different folders: the number keeps them apart.
            let name = picture.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let link: PathBuf = place.join(format!("{i:06}-{name}"));
            link_or_copy(&picture, &link).map_err(at(&link))?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn link_or_copy(picture: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(picture, link)
}

#[cfg(not(unix))]
fn link_or_copy(picture: &Path, link: &Path) -> std::io::Result<()> {
    fs::hard_link(picture, link).or_else(|_| fs::copy(picture, link).map(drop))
}

fn write_sheet(path: &Path, source: &dyn Source, members: &[Vec<usize>], similarities: &[f64]) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for (group, members) in members.iter().enumerate().filter(|(_, members)| !members.is_empty()) {
        let mut row = Vec::new();
        for &i in members.iter().take(SHEET_COLUMNS) {
            let picture = pictures::shrunk(&source.image(i).or_exit(Exit::Data)?, SHEET_PX)?;
            row.push(Cell { picture, caption: format!("{group}: {:.3} {}", similarities[i], source.name(i)) });
        }
        rows.push(row);
    }
    let sheet = contact_sheet(&rows, SHEET_PX).or_exit(Exit::Data)?;
    Unfinished::write(path, encode_png(&sheet).or_exit(Exit::Bug)?)
}
