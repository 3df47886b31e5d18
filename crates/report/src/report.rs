//! `Report`: everything the page of a run shows, as plain values.

use twoview_pixels::Image;

use crate::steps::StepRow;

/// What a page shows of a run. All words may hold any signs.
///
/// `Report::default()` is an empty page; fill in what there is.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The name of the run, the heading of the page.
    pub name: String,
    /// A sentence on what the run is: encoder, loss, data.
    pub about: String,
    /// When the page was made, as it shall be read.
    pub made: String,
    /// The program and its version, such as `twoview 0.1.0`.
    pub program: String,
    /// How long the training took, in seconds.
    pub duration_s: Option<f64>,
    /// What a reader must know first, a sentence each: a collapse, skipped pictures, an unfinished run.
    pub warnings: Vec<String>,
    /// The data in a few lines.
    pub data: Vec<Fact>,
    /// Machine, device, versions.
    pub environment: Vec<Fact>,
    /// The resolved configuration, as it was stored.
    pub config: Option<String>,
    /// The names of the classes; all indices of classes below point into it.
    pub classes: Vec<String>,
    /// The measurements, in the order of their steps ([`read_steps`](crate::read_steps)).
    pub steps: Section<Vec<StepRow>>,
    /// Lines to compare the kNN curve with: the untrained encoder, raw pixels.
    pub knn_references: Vec<Reference>,
    /// Evaluations of the finished encoder; the first is shown at the top of the page.
    pub scores: Section<Vec<ScoreLadder>>,
    /// Which classes are taken for which.
    pub confusion: Section<Confusion>,
    /// The embeddings in the plane.
    pub map: Section<EmbeddingMap>,
    /// Pictures and their nearest neighbours.
    pub neighbours: Section<Vec<GalleryRow>>,
    /// A contact sheet of what the augmentations do.
    pub augmentations: Section<Image>,
    /// Pairs of pictures worth a look.
    pub pairs: Section<Vec<PairList>>,
}

/// A part of a page.
#[derive(Clone, Debug, Default)]
pub enum Section<T> {
    /// The page does not speak of it.
    #[default]
    Absent,
    /// A sentence in its place, for example which command adds it. Words between backquotes show as code.
    Hint(String),
    /// The part itself.
    Present(T),
}

impl<T> Section<T> {
    /// The part, if it is there.
    pub fn present(&self) -> Option<&T> {
        match self {
            Section::Present(value) => Some(value),
            Section::Absent | Section::Hint(_) => None,
        }
    }
}

/// A line of a list: a name and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Such as `Pictures`.
    pub name: String,
    /// Such as `3,000 in 10 classes`.
    pub value: String,
}

impl Fact {
    /// A line from anything that can be shown.
    pub fn new(name: impl Into<String>, value: impl ToString) -> Fact {
        Fact { name: name.into(), value: value.to_string() }
    }
}

/// A line to compare a curve with.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// Such as `untrained`.
    pub label: String,
    /// A share in `[0, 1]`.
    pub value: f64,
}

/// One evaluation beside everything it has to beat.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreLadder {
    /// Such as `kNN` or `Linear probe`.
    pub title: String,
    /// How it was measured, in words: pictures, classes, hyper-parameters, what was held out.
    pub protocol: String,
    /// From the least demanding up; the last one is the trained encoder.
    pub rungs: Vec<Rung>,
}

/// One score of a [`ScoreLadder`].
#[derive(Clone, Debug, PartialEq)]
pub struct Rung {
    /// Such as `chance`, `raw pixels`, `untrained`, `trained`.
    pub label: String,
    /// Accuracy, a share in `[0, 1]`.
    pub value: f64,
    /// Its 95 % interval, if it was measured.
    pub interval: Option<[f64; 2]>,
}

/// How often pictures of one class were taken for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// What predicted, such as `kNN, k = 20`.
    pub of: String,
    /// `counts[is][taken_for]`: one row and one column for each of [`Report::classes`].
    pub counts: Vec<Vec<u64>>,
}

/// Pictures in the plane, near each other where their embeddings are.
#[derive(Clone, Debug, Default)]
pub struct EmbeddingMap {
    /// The pictures, up to some ten thousand.
    pub pictures: Vec<MapPicture>,
    /// One or several ways to lay them out; the first is shown first.
    pub projections: Vec<Projection>,
}

/// A way to lay out the pictures of an [`EmbeddingMap`].
#[derive(Clone, Debug)]
pub struct Projection {
    /// Such as `PCA`.
    pub name: String,
    /// What it keeps and what it does not, in a sentence.
    pub note: String,
    /// A place for each picture, at any scale; both axes are drawn at the same one. A picture whose place is not
    /// finite is not drawn.
    pub places: Vec<[f32; 2]>,
}

/// A picture of an [`EmbeddingMap`].
#[derive(Clone, Debug)]
pub struct MapPicture {
    /// Its file name or another name.
    pub name: String,
    /// Index of its class, if it is known.
    pub class: Option<usize>,
    /// Index of its cluster, if it was assigned to one.
    pub cluster: Option<usize>,
    /// Shown at 16 to 64 pixels, cut to its central square; nothing is gained by handing over more than 64.
    pub thumbnail: Image,
    /// The nearest other pictures of the map, nearest first.
    pub neighbours: Vec<MapNeighbour>,
}

/// A neighbour of a [`MapPicture`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapNeighbour {
    /// Index into [`EmbeddingMap::pictures`].
    pub picture: usize,
    /// Cosine of the two embeddings.
    pub cosine: f32,
}

/// A picture to look at.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Its file name or another name.
    pub name: String,
    /// Index of its class, if it is known.
    pub class: Option<usize>,
    /// Shown at 96 pixels at most; nothing is gained by handing over more than twice that.
    pub image: Image,
}

/// A picture and those nearest to it.
#[derive(Clone, Debug)]
pub struct GalleryRow {
    /// The picture whose neighbours are sought.
    pub query: Picture,
    /// The pictures found with their cosines, nearest first.
    pub found: Vec<(Picture, f32)>,
}

/// Pairs of pictures of one kind.
#[derive(Clone, Debug)]
pub struct PairList {
    /// Such as `Look the same, count as different`.
    pub title: String,
    /// What to make of them, in a sentence.
    pub note: String,
    /// The pairs, the most remarkable first.
    pub pairs: Vec<Pair>,
}

/// Two pictures and how near they are.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The one and the other.
    pub pictures: [Picture; 2],
    /// Cosine of their embeddings.
    pub cosine: f32,
}

/// Why a page cannot be made: what was handed over contradicts itself, or no picture file can hold it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A picture has a class that has no name.
    #[error("class {class} of {picture:?} has no name: there are {classes} classes")]
    Class {
        /// The index of the class.
        class: usize,
        /// The name of the picture.
        picture: String,
        /// How many names there are.
        classes: usize,
    },
    /// A picture has a neighbour that is not on the map.
    #[error("neighbour {neighbour} of {picture:?} is not on the map of {pictures} pictures")]
    Neighbour {
        /// The index of the neighbour.
        neighbour: usize,
        /// The name of the picture.
        picture: String,
        /// How many pictures there are.
        pictures: usize,
    },
    /// A projection has a place too many or too few.
    #[error("the projection {name:?} has {places} places for {pictures} pictures")]
    Places {
        /// The name of the projection.
        name: String,
        /// How many places it has.
        places: usize,
        /// How many pictures there are.
        pictures: usize,
    },
    /// A confusion matrix is not square, or not of the size of the classes.
    #[error("row {row} of the confusion matrix has {columns} columns for {classes} classes, in {rows} rows")]
    Confusion {
        /// The first row that does not fit.
        row: usize,
        /// Its number of columns.
        columns: usize,
        /// How many rows there are.
        rows: usize,
        /// How many classes there are.
        classes: usize,
    },
    /// The map has more pictures, clusters or neighbours than a page can number.
    #[error("a map can have {most} {what}, got {got}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// How many there may be.
        most: usize,
    },
    /// A picture cannot be put on the page.
    #[error("a picture of the report cannot be encoded: {0}")]
    Encode(String),
}
