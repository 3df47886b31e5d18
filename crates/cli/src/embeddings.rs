//! `Embeddings`: the features of every picture of a set, made now or read from where `embed` put them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use twoview_data::{Source, Split, escape_path};
use twoview_eval::{ExtractError, stream_features};

use crate::{
    args::PicturesArgs,
    embed::{names_beside, read_names},
    failure::{Exit, Failure, OrExit, at},
    npy::read_npy,
    pictures,
    subject::Subject,
    terminal::Counter,
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
            Some(path) => read(path, source.as_ref(), dim)?,
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
