//! `embed`: the features of every picture of a set, in its order.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use serde_json::json;
use twoview_data::{Fingerprint, Source, Subset, escape_path};
use twoview_eval::{ExtractError, stream_features};
use twoview_pixels::Image;

use crate::{
    args::{EmbedArgs, EmbedFormat},
    failure::{Exit, Failure, OrExit, at},
    file_format::file_format,
    npy::write_npy_header,
    pictures,
    signals::Signals,
    subject::Subject,
    terminal::{Counter, note, result, result_json},
    unfinished::{Unfinished, may_write},
};

/// `twoview embed`.
///
/// # Errors
/// [`Failure`] with the exit code of its cause.
pub(crate) fn embed(args: &EmbedArgs) -> Result<(), Failure> {
    let format = file_format(args.format, args.out.as_deref(), EmbedFormat::Npy)?;
    #[cfg(not(feature = "parquet"))]
    if format == EmbedFormat::Parquet {
        let message =
            "--format parquet: this program was built without it; build it with `--features parquet`, or write npy";
        return Err(Failure::new(Exit::Usage, message));
    }
    let subject = Subject::open(Some(&args.run), &args.device.device)?;
    let out = args.out.clone().unwrap_or_else(|| subject.run_dir.path().join(format.file_name()));
    let names = format.has_names_beside().then(|| names_beside(&out));
    // Before the work, so that a path that cannot be written costs no waiting.
    may_write(&out)?;
    let mut rows = Rows::open(&out)?;
    let unfinished = Unfinished::create(&out)?;
    let unfinished_names = names.as_deref().map(Unfinished::create).transpose()?;

    let config = pictures::source_at(&args.data, &subject.file.data.source)?;
    let pictures = pictures::open(&config, args.split.into())?;
    let source = pictures.source;
    let dim = subject.encoder().feature_dim();
    rows.begin(&identity(&subject, &pictures.manifest.fingerprint, source.len())?, dim)?;
    if rows.done > 0 {
        note(&format!("going on after {} of {} pictures", rows.done.min(source.len()), source.len()));
    }
    let (done, begun) = (rows.done, Instant::now());
    rows.complete(&subject, &source)?;
    let images_per_s = (source.len() - done) as f64 / begun.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);

    let mut values = rows.reader()?;
    match format {
        EmbedFormat::Npy => unfinished.finish(|file| {
            write_npy_header(&mut *file, source.len(), dim)?;
            io::copy(&mut values, file).map(drop)
        })?,
        EmbedFormat::Safetensors => unfinished.finish(|file| {
            write_safetensors_header(file, source.len(), dim)?;
            io::copy(&mut values, file).map(drop)
        })?,
        EmbedFormat::Csv => unfinished.finish(|file| write_csv(file, source.as_ref(), Some((&mut values, dim))))?,
        #[cfg(feature = "parquet")]
        EmbedFormat::Parquet => {
            unfinished.finish(|file| crate::embeddings_parquet::write(file, source.as_ref(), &mut values, dim))?
        }
        #[cfg(not(feature = "parquet"))]
        EmbedFormat::Parquet => {}
    }
    if let Some(unfinished) = unfinished_names {
        unfinished.finish(|file| write_csv(file, source.as_ref(), None::<(&mut File, usize)>))?;
    }
    rows.remove();
    if args.json {
        return result_json(&json!({
            "pictures": source.len(),
            "dim": dim,
            "images_per_s": images_per_s,
            "file": escape_path(&out),
            "names": names.as_deref().map(escape_path),
        }));
    }
    result(&format!(
        "wrote    {} pictures x {dim} features to {}; {images_per_s:.0} img/s",
        source.len(),
        out.display()
    ))?;
    match names {
        Some(names) => result(&format!("names    {}", names.display())),
        None => Ok(()),
    }
}

/// What the rows depend on: the pictures, and what the encoder makes of one that never changes.
fn identity(subject: &Subject, data: &str, n: usize) -> Result<String, Failure> {
    let picture = Image::filled(32, 32, [90, 120, 200]).or_exit(Exit::Bug)?;
    let features: Vec<u8> = subject.features_of(vec![picture])?.iter().flat_map(|value| value.to_le_bytes()).collect();
    let encoder = Fingerprint::of(&features).to_string();
    Ok(json!({ "data": data, "encoder": encoder, "pictures": n, "size_px": subject.look().size_px }).to_string())
}

/// The rows while they are made: a file of their numbers, which the same command goes on with after an interruption.
struct Rows {
    file: File,
    path: PathBuf,
    /// Names what the rows belong to.
    identity: PathBuf,
    /// Whole rows that were there.
    done: usize,
}

impl Rows {
    /// Takes the file beside `out`; only one at a time may make its rows.
    fn open(out: &Path) -> Result<Self, Failure> {
        let beside = |ending: &str| {
            let mut path = out.as_os_str().to_owned();
            path.push(ending);
            PathBuf::from(path)
        };
        let (path, identity) = (beside(".rows"), beside(".rows.json"));
        loop {
            let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
            let file = open.map_err(at(out))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let message = format!(
                        "{} is being made by another process; wait for it, or name another --out",
                        out.display()
                    );
                    return Err(Failure::new(Exit::Run, message));
                }
                // Some network drives know no locks, and there is nothing wrong with writing to them.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
            }
            // Whoever held it may have taken it away between our opening and locking it.
            if is_at(&file, &path) {
                return Ok(Self { file, path, identity, done: 0 });
            }
        }
    }

    /// Keeps the whole rows that are there if they are of the same pictures by the same encoder, and no other.
    fn begin(&mut self, identity: &str, dim: usize) -> Result<(), Failure> {
        let is_same = fs::read_to_string(&self.identity).is_ok_and(|text| text == identity);
        let row_bytes = 4 * dim as u64;
        let path = &self.path;
        let done = if is_same { self.file.metadata().map_err(at(path))?.len() / row_bytes } else { 0 };
        let end = self.file.set_len(done * row_bytes).and_then(|()| self.file.seek(SeekFrom::End(0)));
        end.map_err(at(path))?;
        fs::write(&self.identity, identity).map_err(at(&self.identity))?;
        self.done = usize::try_from(done).unwrap_or(usize::MAX);
        Ok(())
    }

    /// Makes the rows that are missing.
    fn complete(&mut self, subject: &Subject, source: &Arc<dyn Source>) -> Result<(), Failure> {
        let (n, done) = (source.len(), self.done);
        if done >= n {
            return Ok(());
        }
        let (encoder, look) = (subject.encoder(), subject.look());
        let rest = Subset::new(Arc::clone(source), (done..n).collect());
        let counter = Counter::start("embedding", n);
        let mut bytes = Vec::new();
        let signals = Signals::listen().or_exit(Exit::Bug)?;
        let (file, path) = (&mut self.file, &self.path);
        stream_features(&rest, encoder, look.size_px, look.normalize, |first, rows| {
            bytes.clear();
            bytes.extend(rows.iter().flat_map(|value| value.to_le_bytes()));
            file.write_all(&bytes)?;
            let made = done + first + rows.len() / encoder.feature_dim();
            counter.at(made, n);
            if signals.stop.load(Ordering::Relaxed) && made < n { Err(EmbedError::Stopped(made)) } else { Ok(()) }
        })
        .map_err(|error: EmbedError| match error {
            EmbedError::Stopped(made) => {
                let message = format!("stopped after {made} of {n} pictures; the same command goes on from there");
                Failure::new(signals.exit(), message)
            }
            EmbedError::Extract(error) => Failure { exit: Exit::Data, error: error.into() },
            EmbedError::Write(error) => at(path)(error),
        })?;
        counter.end();
        Ok(())
    }

    fn reader(&mut self) -> Result<BufReader<&mut File>, Failure> {
        self.file.seek(SeekFrom::Start(0)).map_err(at(&self.path))?;
        Ok(BufReader::with_capacity(1 << 20, &mut self.file))
    }

    /// Takes the files away: what they held stands elsewhere now.
    fn remove(self) {
        let _ = self.file.set_len(0);
    }
}

impl Drop for Rows {
    /// Files without a row are no use to anyone.
    fn drop(&mut self) {
        if self.file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_file(&self.identity);
        }
    }
}

/// Whether the open file is still the one that has this name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (open, named) = (file.metadata().map(identity), fs::metadata(path).map(identity));
    open.is_ok_and(|open| named.is_ok_and(|named| open == named))
}

/// An open file cannot be taken away.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// Why a batch of rows is not in the file.
#[derive(Debug, thiserror::Error)]
enum EmbedError {
    #[error(transparent)]
    Extract(#[from] ExtractError),
    #[error(transparent)]
    Write(#[from] io::Error),
    #[error("stopped after {0} pictures")]
    Stopped(usize),
}

/// The list of names that belongs to a file of features.
pub(crate) fn names_beside(features: &Path) -> PathBuf {
    // Behind the whole name: features.npy and features.safetensors may lie side by side.
    let mut path = features.as_os_str().to_owned();
    path.push(".names.csv");
    PathBuf::from(path)
}

/// The names in a list that [`embed`] wrote, in its order.
///
/// # Errors
/// [`Exit::Io`] where it cannot be read, [`Exit::Data`] where it is no such list.
pub(crate) fn read_names(path: &Path) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    let unusable = |line: usize| {
        Failure::new(
            Exit::Data,
            format!("{}, row {line}: expected the columns path and label, as `embed` writes them", path.display()),
        )
    };
    let mut reader = csv::ReaderBuilder::new().has_headers(true).from_reader(text.as_bytes());
    let mut names = Vec::new();
    for (line, record) in (2..).zip(reader.records()) {
        let record = record.map_err(|_| unusable(line))?;
        names.push(record.get(0).ok_or_else(|| unusable(line))?.to_owned());
    }
    Ok(names)
}

/// A header of safetensors: one tensor `features` of `[n, dim]` 32-bit floats, which follow.
fn write_safetensors_header(out: &mut impl Write, n: usize, dim: usize) -> io::Result<()> {
    let header = json!({
        "__metadata__": { "format": "pt", "made_by": concat!("twoview ", env!("CARGO_PKG_VERSION")) },
        "features": { "dtype": "F32", "shape": [n, dim], "data_offsets": [0, 4 * n * dim] },
    });
    let mut header = header.to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())
}

/// Path, label and features of each picture; without features only the first two.
fn write_csv(out: &mut impl Write, source: &dyn Source, features: Option<(&mut impl Read, usize)>) -> io::Result<()> {
    let (mut values, dim) = features.map_or((None, 0), |(values, dim)| (Some(values), dim));
    let mut table = csv::Writer::from_writer(out);
    let columns =
        ["path".to_owned(), "label".to_owned()].into_iter().chain((0..dim).map(|column| format!("f{column}")));
    table.write_record(columns)?;
    let mut row = vec![0; 4 * dim];
    for i in 0..source.len() {
        let label = source.label(i).and_then(|label| source.classes().get(label as usize));
        table.write_field(source.name(i).as_bytes())?;
        table.write_field(label.map_or("", String::as_str))?;
        if let Some(values) = &mut values {
            values.read_exact(&mut row)?;
            for bytes in row.chunks_exact(4) {
                table.write_field(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).to_string())?;
            }
        }
        table.write_record(None::<&[u8]>)?;
    }
    table.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_rows_of_the_same_set_are_kept() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let out = dir.path().join("features.npy");
        let rows_of = |identity: &str| {
            let mut rows = Rows::open(&out).expect("rows");
            rows.begin(identity, 3).map(|()| rows).expect("rows")
        };
        let mut rows = rows_of("these");
        assert_eq!(rows.done, 0);
        // Two rows and a part of the third, as a kill leaves them.
        rows.file.write_all(&[1; 2 * 12 + 5]).expect("written");
        assert!(Rows::open(&out).is_err_and(|refused| refused.exit == Exit::Run), "one at a time");
        drop(rows);
        let mut again = rows_of("these");
        assert_eq!(again.done, 2);
        let mut kept = Vec::new();
        again.reader().expect("a reader").read_to_end(&mut kept).expect("read");
        assert_eq!(kept, [1; 24]);
        drop(again);
        assert_eq!(rows_of("others").done, 0);
    }
}
