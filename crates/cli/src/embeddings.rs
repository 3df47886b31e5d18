//! `Embeddings`: the features of every picture of a set, made now or read from where `embed` put them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use twoview_data::{Source, Split, Subset, escape_path};
use twoview_eval::{ExtractError, extract_features, stream_features};

use crate::{
    args::PicturesArgs,
    embed::{names_beside, read_names},
    failure::{Exit, Failure, OrExit, at},
    npy::read_npy,
    pictures,
    spread::spread,
    subject::Subject,
    terminal::{Counter, program, quoted},
};

/// Pictures with their features.
pub(crate) struct Embeddings {
    pub(crate) source: Arc<dyn Source>,
    /// `[N, F]`, row-major.
    pub(crate) rows: Vec<f32>,
    /// `F`.
    pub(crate) dim: usize,
}

impl Embeddings {
    /// Those that a command line asks for.
    ///
    /// # Errors
    /// [`Exit::Data`] where the pictures cannot be used, or the features that are given belong to others.
    pub(crate) fn open(args: &PicturesArgs, subject: &Subject) -> Result<Self, Failure> {
        let config = pictures::source_or_own(args.data.as_deref(), "--in", &subject.file.data.source)?;
        let source = pictures::open(&config, Split::from(args.split))?.source;
        let dim = subject.encoder().feature_dim();
        let rows = match &args.embeddings {
            Some(path) => {
                let rows = read(path, source.as_ref(), dim)?;
                check_features(subject, &source, &rows, path)?;
                rows
            }
            None => make(subject, source.as_ref())?,
        };
        Ok(Self { source, rows, dim })
    }

    /// How many pictures there are.
    pub(crate) fn len(&self) -> usize {
        self.source.len()
    }
}

/// The features of every picture, in the order of the source.
///
/// # Errors
/// [`Exit::Data`] where a picture cannot be read.
pub(crate) fn make(subject: &Subject, source: &dyn Source) -> Result<Vec<f32>, Failure> {
    let (encoder, look) = (subject.encoder(), subject.look());
    let counter = Counter::start("embedding", source.len());
    let mut rows = Vec::with_capacity(source.len() * encoder.feature_dim());
    stream_features(source, encoder, look.size_px, look.normalize, |first, batch| {
        rows.extend_from_slice(batch);
        counter.at(first + batch.len() / encoder.feature_dim(), source.len());
        Ok::<(), ExtractError>(())
    })
    .or_exit(Exit::Data)?;
    counter.end();
    Ok(rows)
}

/// Pictures whose features are made again to see whose those in a file are.
const REMADE: usize = 4;

/// Features that differ by more than this share of their length are not those of another device, but of another encoder.
const SAME: f64 = 0.01;

/// Makes the features of a few pictures again: those of another encoder, of another step of training or of pictures
/// that were edited since fit in shape and name, and would be searched in without a word.
fn check_features(subject: &Subject, source: &Arc<dyn Source>, rows: &[f32], path: &Path) -> Result<(), Failure> {
    let dim = subject.encoder().feature_dim();
    let compared = spread(&(0..source.len()).collect::<Vec<_>>(), REMADE);
    let some = Subset::new(Arc::clone(source), compared.clone());
    let look = subject.look();
    let made =
        extract_features(&some, subject.encoder(), look.size_px, look.normalize, &|_, _| {}).or_exit(Exit::Data)?;
    for (i, made) in compared.into_iter().zip(made.chunks_exact(dim)) {
        let given = &rows[i * dim..(i + 1) * dim];
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
        let difference = norm(&mut made.iter().zip(given).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        let length = norm(&mut made.iter().map(|value| f64::from(*value)));
        if difference > SAME * length {
            let message = format!(
                "--embeddings {}: the features of {} are not what this run's encoder makes of it: they are another encoder's, of \
                 another step, or the picture was edited; run `{} embed {}` on these pictures again",
                path.display(),
                source.name(i),
                program(),
                quoted(subject.run_dir.path())
            );
            return Err(Failure::new(Exit::Data, message));
        }
    }
    Ok(())
}

/// What `embed --format npy` wrote about the same pictures.
fn read(path: &Path, source: &dyn Source, dim: usize) -> Result<Vec<f32>, Failure> {
    let unusable = |why: String| Failure::new(Exit::Data, format!("--embeddings {}: {why}", path.display()));
    let file = fs::File::open(path).map_err(at(path))?;
    let (rows, columns) = read_npy(file).map_err(|error| unusable(error.to_string()))?;
    if columns != dim {
        return Err(unusable(format!(
            "{columns} features for each picture, and the encoder has {dim}: give its own run"
        )));
    }
    let names: PathBuf = names_beside(path);
    let names = read_names(&names)?;
    let n = source.len();
    let differs = (0..n.max(names.len())).find(|&i| i >= n || names.get(i).is_none_or(|name| *name != source.name(i)));
    if let Some(i) = differs {
        let got = names.get(i).map_or_else(|| "nothing".to_owned(), Clone::clone);
        let expected = if i < n { source.name(i).into_owned() } else { "nothing".to_owned() };
        let what = format!("picture {i} is {expected} in the data and {got} beside the features");
        return Err(unusable(format!("{what}: run `twoview embed` on these pictures again")));
    }
    if rows.len() != n * dim {
        return Err(unusable(format!("{} rows for {n} pictures", rows.len() / dim)));
    }
    if let Some(i) = rows.iter().position(|value| !value.is_finite()) {
        return Err(unusable(format!("a feature of {} is {}", escape_path(&source.path(i / dim)), rows[i])));
    }
    Ok(rows)
}
