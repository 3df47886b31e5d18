//! From a source of pictures to batches of two views, ahead of the training loop and in order.

use std::any::Any;
use std::io;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};
use twoview_augment::{Augment, Renderer, Stream, ViewKey, ViewPlan};
use twoview_pixels::{Instructions, Normalize, Planes};

use crate::{
    EpochOrder, PixelType, Problem, ReadBuffers, Replaced, SampleError, Source, ViewBatch, ViewPixels, stream_ops,
};

/// How many other pictures are tried for one that failed before the loader gives up.
const MAX_STAND_INS: u32 = 16;

/// Longest side of an evaluation picture.
pub(crate) const MAX_SIDE_PX: u32 = 8192;

/// How batches are cut and prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderConfig {
    /// Pictures per batch, at least 2: a contrast needs another picture.
    pub batch_size: usize,
    /// Whether the pictures that do not fill a last batch sit the epoch out. A single one left over always does.
    pub drop_last: bool,
    /// Threads that decode and augment; with 0 the caller's own makes each batch when it is asked for. Changes no batch.
    pub workers: usize,
    /// How many batches may be made before the loop asks for them, at least 1. Changes no batch.
    pub prefetch: usize,
    /// What views are made of.
    #[serde(default)]
    pub pixels: PixelType,
}

/// Hands out the batches of any epoch, each a pure function of the source, the augmentation, `(seed, epoch)` and its
/// place.
///
/// Row `i` of batch `b` is the picture at place `b · batch_size + i` of the [`EpochOrder`], and its two views are those
/// of `ViewKey { seed, epoch, sample, view: 0 | 1 }`. A run that stopped in the middle of an epoch goes on by entering
/// that epoch at its next batch.
///
/// # A picture that fails
/// When a picture that passed the scan cannot be read or no view can be made of it, another stands in for it, drawn from
/// a stream that belongs to `(seed, epoch, sample)`. It is shown with the views keyed to the failed picture, so that it
/// does not repeat its own row in the same epoch. [`ViewBatch::replaced`] names every case; counting and stopping are the
/// caller's part.
///
/// # Threads
/// The `workers` threads begin with the first epoch and end with the loader. Each epoch has up to two more that keep the
/// order, each over every second batch, so that the workers find a next batch to go on with when the last pictures of one
/// are still being made. All are at most `prefetch` batches ahead of the loop, those being made included, and nothing is
/// being made any more when [`EpochBatches`] is dropped.
///
/// # Cost
/// A thread reads, decodes and renders in buffers of its own, which grow to the largest picture and stay, and a batch that
/// comes back through [`recycle`](Self::recycle) is filled again. What remains to allocate for a picture is small: its
/// path, the state of its decoder, and the decoded pixels of formats other than JPEG.
pub struct Loader {
    source: Arc<dyn Source>,
    augment: Arc<Augment>,
    normalize: Normalize,
    seed: u64,
    config: LoaderConfig,
    instructions: Instructions,
    spare: Arc<Spare>,
    crew: Mutex<Option<Arc<Crew>>>,
    n_pictures: u32,
}

/// Memory of batches that came back.
type Spare = Mutex<Vec<ViewPixels>>;

/// Why a loader cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoaderError {
    /// There is nothing to make a batch of.
    #[error("expected at least {least} pictures, got {got}")]
    TooFewPictures {
        /// How many are needed.
        least: usize,
        /// How many the source has.
        got: usize,
    },
    /// Pictures are numbered with 32 bits.
    #[error("expected at most {} pictures, got {got}", u32::MAX)]
    TooManyPictures {
        /// How many the source has.
        got: usize,
    },
    /// The batch is too small to be one.
    #[error("batch_size must be at least {least}, got {got}")]
    BatchTooSmall {
        /// The smallest batch.
        least: usize,
        /// What was configured.
        got: usize,
    },
    /// An epoch would have no batch at all.
    #[error(
        "batch_size = {batch_size} is larger than the data: {pictures} pictures; the largest batch_size is {pictures}"
    )]
    BatchLargerThanData {
        /// What was configured.
        batch_size: usize,
        /// How many pictures there are, and so the largest valid batch.
        pictures: usize,
    },
    /// Without a batch in the making nothing is ready when the loop asks.
    #[error("prefetch must be at least 1, got 0")]
    NoPrefetch,
    /// The pictures asked for have no pixel or are absurdly large.
    #[error("size_px must be from 1 to {MAX_SIDE_PX}, got {got}")]
    Size {
        /// The side asked for.
        got: u32,
    },
}

/// Why the batches of an epoch end early. Nothing follows such an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A picture failed and so did everything tried in its place.
    #[error("{error}; {tried} other pictures were tried in its place and failed as well")]
    NoStandIn {
        /// The picture that belongs in the batch.
        error: SampleError,
        /// How many others were tried.
        tried: u32,
    },
    /// An epoch was entered behind its end.
    #[error("an epoch has {batches} batches, cannot start at batch {first_batch}")]
    BehindTheEnd {
        /// Where the caller wanted to start.
        first_batch: usize,
        /// How many batches there are.
        batches: usize,
    },
    /// The operating system gave no threads.
    #[error("cannot start {workers} loader threads: {reason}")]
    Threads {
        /// How many were asked for.
        workers: usize,
        /// What the operating system said.
        reason: io::Error,
    },
    /// A loader thread panicked, which is a bug in a source or in this program.
    #[error("a loader thread panicked in epoch {epoch}, batch {batch}: {message}")]
    Panicked {
        /// The epoch.
        epoch: u32,
        /// The batch that was being made.
        batch: usize,
        /// What the panic said.
        message: String,
    },
}

impl Loader {
    /// Checks the configuration against the source.
    ///
    /// # Errors
    /// See [`LoaderError`]; a batch larger than the data names the largest one possible.
    pub fn new(
        source: Arc<dyn Source>,
        augment: Arc<Augment>,
        normalize: Normalize,
        seed: u64,
        config: LoaderConfig,
    ) -> Result<Self, LoaderError> {
        let pictures = source.len();
        let LoaderConfig { batch_size, prefetch, .. } = config;
        if batch_size < 2 {
            return Err(LoaderError::BatchTooSmall { least: 2, got: batch_size });
        }
        if prefetch == 0 {
            return Err(LoaderError::NoPrefetch);
        }
        if pictures < 2 {
            return Err(LoaderError::TooFewPictures { least: 2, got: pictures });
        }
        if batch_size > pictures {
            return Err(LoaderError::BatchLargerThanData { batch_size, pictures });
        }
        let n_pictures = u32::try_from(pictures).map_err(|_| LoaderError::TooManyPictures { got: pictures })?;
        let (instructions, spare, crew) = (Instructions::best(), Arc::default(), Mutex::default());
        Ok(Self { source, augment, normalize, seed, config, instructions, spare, crew, n_pictures })
    }

    /// The same batches made by other instructions, for comparing their speed.
    pub fn with_instructions(self, instructions: Instructions) -> Self {
        Self { instructions, crew: Mutex::default(), ..self }
    }

    /// Takes back a batch that is not needed any more, so that its memory is filled again.
    pub fn recycle(&self, batch: ViewBatch) {
        // More than are ever on their way at once would only lie around.
        let most = self.config.prefetch + 1;
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < most {
            spare.push(batch.views);
        }
    }

    /// How many batches an epoch has, at least 1.
    ///
    /// `⌊n / batch_size⌋`, and one more for the rest when `drop_last` is off and the rest is at least 2.
    pub fn batches_per_epoch(&self) -> usize {
        let (n, size) = (self.n_pictures as usize, self.config.batch_size);
        n / size + usize::from(!self.config.drop_last && n % size >= 2)
    }

    /// How many pictures the source has.
    pub fn n_pictures(&self) -> usize {
        self.n_pictures as usize
    }

    /// How many pictures a batch has.
    pub fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    /// How many pictures sit each epoch out, other ones every time.
    pub fn left_out_per_epoch(&self) -> usize {
        let (n, size) = (self.n_pictures as usize, self.config.batch_size);
        n.saturating_sub(self.batches_per_epoch() * size)
    }

    /// The batches of an epoch from `first_batch` on, made ahead from now on.
    ///
    /// `first_batch` may be the number of batches, which leaves none; beyond it the only item is
    /// [`LoadError::BehindTheEnd`].
    pub fn epoch(&self, epoch: u32, first_batch: usize) -> EpochBatches {
        let batches = self.batches_per_epoch();
        if first_batch > batches {
            return EpochBatches::failed(epoch, LoadError::BehindTheEnd { first_batch, batches });
        }
        if first_batch == batches {
            return EpochBatches::finished(epoch, batches);
        }
        let workers = self.config.workers;
        let threads = |reason| EpochBatches::failed(epoch, LoadError::Threads { workers, reason });
        let crew = match self.crew() {
            Ok(crew) => crew,
            Err(reason) => return threads(reason),
        };
        let maker = BatchMaker {
            source: Arc::clone(&self.source),
            augment: Arc::clone(&self.augment),
            normalize: self.normalize,
            seed: self.seed,
            epoch,
            n_pictures: self.n_pictures,
            batch_size: self.config.batch_size,
            pixels: self.config.pixels,
            order: EpochOrder::new(self.n_pictures, self.seed, epoch),
            spare: Arc::clone(&self.spare),
            crew,
            abandoned: Arc::default(),
        };
        if workers == 0 {
            let mut inline = EpochBatches::waiting(epoch, first_batch..batches);
            inline.maker = Some(maker);
            return inline;
        }
        EpochBatches::start(maker, first_batch..batches, self.config.prefetch).unwrap_or_else(threads)
    }

    /// The threads, hired when they are first needed.
    fn crew(&self) -> io::Result<Arc<Crew>> {
        let mut hired = self.crew.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(crew) = &*hired {
            return Ok(Arc::clone(crew));
        }
        let crew = Arc::new(Crew::hire(self.config.workers, self.instructions)?);
        *hired = Some(Arc::clone(&crew));
        Ok(crew)
    }
}

/// The batches of one epoch in order, made by [`Loader::epoch`].
///
/// Dropping it stops the work on them and waits until nothing is being made, which takes no longer than the views of one
/// picture per thread.
pub struct EpochBatches {
    epoch: u32,
    /// Where no threads were asked for, what they would have run.
    maker: Option<BatchMaker>,
    /// Batches still to come; empty after an error.
    due: Range<usize>,
    failure: Option<LoadError>,
    /// Where the batches come from, in turns; empty when no more can come.
    lanes: Vec<Lane>,
    /// The lane that the next batch comes from.
    turn: usize,
    abandoned: Arc<AtomicBool>,
}

/// A thread that has every so many-th batch made, and what it hands them over by.
struct Lane {
    receiver: Receiver<Result<ViewBatch, LoadError>>,
    conductor: JoinHandle<()>,
}

/// The most batches that are being made at the same time: while the last pictures of one keep some workers busy, the
/// others have the next one to go on with.
const LANES: usize = 2;

impl EpochBatches {
    fn waiting(epoch: u32, due: Range<usize>) -> Self {
        Self { epoch, maker: None, due, failure: None, lanes: Vec::new(), turn: 0, abandoned: Arc::default() }
    }

    fn finished(epoch: u32, batches: usize) -> Self {
        Self::waiting(epoch, batches..batches)
    }

    fn failed(epoch: u32, failure: LoadError) -> Self {
        let mut nothing = Self::finished(epoch, 0);
        nothing.failure = Some(failure);
        nothing
    }

    fn start(maker: BatchMaker, due: Range<usize>, prefetch: usize) -> io::Result<Self> {
        let mut batches = Self::waiting(maker.epoch, due.clone());
        batches.abandoned = Arc::clone(&maker.abandoned);
        let maker = Arc::new(maker);
        let n_lanes = prefetch.min(LANES);
        for lane in 0..n_lanes {
            // Each conductor holds one batch more, the one it is making or waiting to hand over.
            let waiting = prefetch / n_lanes + usize::from(lane < prefetch % n_lanes) - 1;
            let (sender, receiver) = sync_channel(waiting);
            let (maker, to_make) = (Arc::clone(&maker), due.clone().skip(lane).step_by(n_lanes));
            let conductor = thread::Builder::new()
                .name(format!("twoview-loader-{lane}"))
                .spawn(move || conduct(&maker, to_make, &sender))?;
            batches.lanes.push(Lane { receiver, conductor });
        }
        Ok(batches)
    }

    fn stop(&mut self) {
        self.due = self.due.end..self.due.end;
        self.abandoned.store(true, Ordering::Relaxed);
        // A conductor that waits to hand over a batch wakes up when nobody can receive it any more.
        let conductors: Vec<JoinHandle<()>> = self.lanes.drain(..).map(|lane| lane.conductor).collect();
        for conductor in conductors {
            // It catches the panics of its work; one of its own has been reported as a missing batch.
            let _ = conductor.join();
        }
    }
}

impl Iterator for EpochBatches {
    type Item = Result<ViewBatch, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(failure) = self.failure.take() {
            return Some(Err(failure));
        }
        let batch = self.due.next()?;
        if let Some(maker) = &self.maker {
            let made = maker.make(batch);
            if made.is_err() {
                self.stop();
            }
            return Some(made);
        }
        let lane = self.lanes.get(self.turn);
        self.turn = (self.turn + 1) % self.lanes.len().max(1);
        let received = lane.and_then(|lane| lane.receiver.recv().ok()).unwrap_or_else(|| {
            let message = "it ended without a word".to_owned();
            Err(LoadError::Panicked { epoch: self.epoch, batch, message })
        });
        if received.is_err() || self.due.is_empty() {
            self.stop();
        }
        Some(received)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.due.len() + usize::from(self.failure.is_some());
        (usize::from(n > 0), Some(n))
    }
}

impl Drop for EpochBatches {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Threads for the work inside a batch, and where each of them works. Dropping it waits for their end.
struct Crew {
    /// Without threads, the caller's own does the work.
    pool: Option<ThreadPool>,
    threads: Vec<JoinHandle<()>>,
    /// One for each thread; a thread never waits for another's.
    workplaces: Vec<Mutex<Workplace>>,
}

impl Crew {
    fn hire(workers: usize, instructions: Instructions) -> io::Result<Self> {
        let workplaces = (0..workers.max(1)).map(|_| Mutex::new(Workplace::new(instructions))).collect();
        if workers == 0 {
            return Ok(Self { pool: None, threads: Vec::new(), workplaces });
        }
        let threads = Arc::new(Mutex::new(Vec::new()));
        let hired = Arc::clone(&threads);
        let pool = ThreadPoolBuilder::new()
            .num_threads(workers)
            .spawn_handler(move |worker| {
                let name = format!("twoview-worker-{}", worker.index());
                let thread = thread::Builder::new().name(name).spawn(move || worker.run())?;
                hired.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
                Ok(())
            })
            .build()
            .map_err(io::Error::other)?;
        let threads = std::mem::take(&mut *threads.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Self { pool: Some(pool), threads, workplaces })
    }

    /// Runs `work` on the threads; a panic in it becomes its message.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, String> {
        // What the work leaves half done on a panic is a batch that nobody will see.
        panic::catch_unwind(AssertUnwindSafe(|| match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }))
        .map_err(|payload| message_of(&*payload))
    }

    /// Where this thread works.
    fn workplace(&self) -> MutexGuard<'_, Workplace> {
        let thread = self.pool.as_ref().and_then(ThreadPool::current_thread_index).unwrap_or(0);
        self.workplaces[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.pool = None;
        for thread in self.threads.drain(..) {
            // A panic of a worker has been reported by `run`.
            let _ = thread.join();
        }
    }
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

/// Has one batch made after the other until none is due, one fails, or nobody wants them.
fn conduct(maker: &BatchMaker, due: impl Iterator<Item = usize>, sender: &SyncSender<Result<ViewBatch, LoadError>>) {
    for batch in due {
        let made = maker.make(batch);
        if maker.is_abandoned() {
            return;
        }
        let failed = made.is_err();
        if sender.send(made).is_err() || failed {
            return;
        }
    }
}

/// Everything a batch depends on.
struct BatchMaker {
    source: Arc<dyn Source>,
    augment: Arc<Augment>,
    normalize: Normalize,
    seed: u64,
    epoch: u32,
    n_pictures: u32,
    batch_size: usize,
    pixels: PixelType,
    order: EpochOrder,
    spare: Arc<Spare>,
    crew: Arc<Crew>,
    /// Set when the iterator is gone and the rest of the work is in vain.
    abandoned: Arc<AtomicBool>,
}

impl BatchMaker {
    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Has batch `index` made by the crew. A panic of its work is an error.
    fn make(&self, index: usize) -> Result<ViewBatch, LoadError> {
        let panicked = |message| Err(LoadError::Panicked { epoch: self.epoch, batch: index, message });
        self.crew.run(|| self.make_here(index)).unwrap_or_else(panicked)
    }

    /// One task per picture: both views share its decoding, and each thread writes to rows of its own.
    fn make_here(&self, index: usize) -> Result<ViewBatch, LoadError> {
        let size_px = self.augment.size_px();
        let row_len = 3 * size_px as usize * size_px as usize;
        let order = self.order.as_slice();
        let start = index * self.batch_size;
        let shown = &order[start..order.len().min(start + self.batch_size)];
        let length = 2 * shown.len() * row_len;
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (views, outcomes) = match self.pixels {
            PixelType::F32 => {
                let mut values = if let Some(ViewPixels::F32(values)) = spare { values } else { Vec::new() };
                values.resize(length, 0.0);
                let outcomes = self.write_rows(shown, row_len, &mut values, |view, out, instructions| {
                    let written = self.normalize.write_chw(view, out, instructions);
                    written.expect("a row has the size of the views");
                });
                (ViewPixels::F32(values), outcomes)
            }
            PixelType::U8 => {
                let mut values = if let Some(ViewPixels::U8 { values, .. }) = spare { values } else { Vec::new() };
                values.resize(length, 0);
                let write = |view: &Planes, out: &mut [u8], _| out.copy_from_slice(view.as_chw());
                let outcomes = self.write_rows(shown, row_len, &mut values, write);
                (ViewPixels::U8 { values, normalize: self.normalize }, outcomes)
            }
        };

        let mut samples: Vec<u64> = shown.iter().map(|&sample| sample.into()).collect();
        let mut replaced = Vec::new();
        for outcome in outcomes {
            if let Some(entry) = outcome? {
                samples[entry.position] = entry.by;
                replaced.push(entry);
            }
        }
        let label = |&sample: &u64| self.source.label(usize::try_from(sample).ok()?).map(u64::from);
        let labels = samples.iter().map(label).collect::<Option<Vec<u64>>>().unwrap_or_default();
        let group = |&sample: &u64| usize::try_from(sample).map_or(sample, |i| self.source.group(i));
        let groups = samples.iter().map(group).collect();
        Ok(ViewBatch { epoch: self.epoch, index, samples, groups, labels, size_px, views, replaced })
    }

    /// The views of all pictures shown, into the two halves of `values`.
    fn write_rows<T: Send>(
        &self,
        shown: &[u32],
        row_len: usize,
        values: &mut [T],
        write: impl Fn(&Planes, &mut [T], Instructions) + Sync,
    ) -> Vec<Result<Option<Replaced>, LoadError>> {
        let (first, second) = values.split_at_mut(shown.len() * row_len);
        let one = |position: usize, first: &mut [T], second: &mut [T]| {
            self.write_row(position, shown[position], [first, second], &write, &mut self.crew.workplace())
        };
        if self.crew.pool.is_some() {
            let rows = first.par_chunks_mut(row_len).zip(second.par_chunks_mut(row_len)).enumerate();
            return rows.map(|(position, (first, second))| one(position, first, second)).collect();
        }
        let rows = first.chunks_mut(row_len).zip(second.chunks_mut(row_len)).enumerate();
        rows.map(|(position, (first, second))| one(position, first, second)).collect()
    }

    fn write_row<T>(
        &self,
        position: usize,
        sample: u32,
        mut row: [&mut [T]; 2],
        write: &impl Fn(&Planes, &mut [T], Instructions),
        workplace: &mut Workplace,
    ) -> Result<Option<Replaced>, LoadError> {
        if self.is_abandoned() {
            return Ok(None);
        }
        let Err(error) = self.write_views(sample, sample, &mut row, write, workplace) else { return Ok(None) };
        let mut stream = Stream::new(self.seed, self.epoch, sample.into(), 0, stream_ops::STAND_IN);
        for _ in 0..MAX_STAND_INS {
            // Uniform among the others: step over the one that failed.
            let draw = stream.below(self.n_pictures - 1);
            let by = if draw < sample { draw } else { draw + 1 };
            if self.write_views(by, sample, &mut row, write, workplace).is_ok() {
                let (sample, by, reason) = (sample.into(), by.into(), error.problem.to_string());
                return Ok(Some(Replaced { position, sample, path: error.path, reason, by }));
            }
        }
        Err(LoadError::NoStandIn { error, tried: MAX_STAND_INS })
    }

    /// Writes the two views of picture `shown` that are keyed to `sample`.
    fn write_views<T>(
        &self,
        shown: u32,
        sample: u32,
        row: &mut [&mut [T]; 2],
        write: &impl Fn(&Planes, &mut [T], Instructions),
        workplace: &mut Workplace,
    ) -> Result<(), SampleError> {
        let Workplace { buffers, plan, renderer } = workplace;
        let image = self.source.read(shown as usize, buffers)?;
        for (view, out) in (0..).zip(row) {
            let key = ViewKey { seed: self.seed, epoch: self.epoch, sample: sample.into(), view };
            self.augment.plan_into(&key, image.width(), image.height(), plan);
            let instructions = renderer.instructions();
            let view = renderer.render(plan, image).map_err(|error| SampleError {
                path: self.source.path(shown as usize),
                problem: Problem::View(error),
            })?;
            write(view, out, instructions);
        }
        Ok(())
    }
}

/// Where one thread works: everything that is used again from picture to picture.
struct Workplace {
    buffers: ReadBuffers,
    plan: ViewPlan,
    renderer: Renderer,
}

impl Workplace {
    fn new(instructions: Instructions) -> Self {
        let plan = ViewPlan { source_width: 1, source_height: 1, ops: Vec::new() };
        Self { buffers: ReadBuffers::default(), plan, renderer: Renderer::new(instructions) }
    }
}
