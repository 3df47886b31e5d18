//! The loader: what a batch may depend on, and what happens when a picture or a thread fails.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up may panic")]

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use twoview_augment::{Augment, AugmentConfig, Recipe, ViewKey};
use twoview_data::{
    EpochOrder, Fingerprint, FolderConfig, FolderSource, LoadError, Loader, LoaderConfig, LoaderError, OnBad,
    PatternsConfig, PatternsSource, PixelType, Problem, ReadBuffers, SampleError, Source, Split, ViewBatch, ViewPixels,
    image_batches,
};
use twoview_pixels::{DecodeOptions, Image, Instructions, Normalize, Planes};

const CONFIG: LoaderConfig =
    LoaderConfig { batch_size: 8, drop_last: true, workers: 2, prefetch: 2, pixels: PixelType::F32 };

/// Everything that draws random numbers, at 8 pixels to be quick.
fn augment() -> Arc<Augment> {
    let config: AugmentConfig = serde_json::from_str(
        r#"[
            {"op": "random_resized_crop", "size_px": 8, "area": [0.3, 1.0], "aspect": [0.75, 1.3333334]},
            {"op": "horizontal_flip", "p": 0.5},
            {"op": "color_jitter", "p": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
            {"op": "grayscale", "p": 0.2}
        ]"#,
    )
    .unwrap();
    Arc::new(config.init().unwrap())
}

fn patterns(per_class: u32) -> Arc<PatternsSource> {
    Arc::new(PatternsSource::new(PatternsConfig { seed: 1, split: Split::Train, per_class }).unwrap())
}

fn loader(source: Arc<dyn Source>, config: LoaderConfig) -> Loader {
    Loader::new(source, augment(), Normalize::CIFAR10, 11, config).unwrap()
}

fn batches(loader: &Loader, epoch: u32, first: usize) -> Vec<ViewBatch> {
    loader.epoch(epoch, first).map(Result::unwrap).collect()
}

/// One view of one row.
fn shown(batch: &ViewBatch, view: u32, row: usize) -> &[f32] {
    let place = (view as usize * batch.samples.len() + row) * 192;
    &batch.views.as_f32().unwrap()[place..place + 192]
}

fn hash(batches: &[ViewBatch]) -> Fingerprint {
    let mut bytes = Vec::new();
    for batch in batches {
        bytes.extend(format!("{} {} {:?} {:?}", batch.epoch, batch.index, batch.samples, batch.replaced).bytes());
        match &batch.views {
            ViewPixels::F32(values) => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            ViewPixels::U8 { values, .. } => bytes.extend(values),
        }
    }
    Fingerprint::of(&bytes)
}

#[test]
fn threads_and_prefetch_change_nothing() {
    let source = patterns(5);
    let of = |workers, prefetch, epoch| {
        let config = LoaderConfig { workers, prefetch, drop_last: false, ..CONFIG };
        hash(&batches(&loader(source.clone(), config), epoch, 0))
    };
    let expected = of(1, 1, 3);
    for (workers, prefetch) in [(0, 1), (1, 4), (2, 1), (3, 2), (8, 1), (8, 9)] {
        assert_eq!(of(workers, prefetch, 3), expected, "{workers} workers, prefetch {prefetch}");
    }
    assert_ne!(of(1, 1, 4), expected);
}

#[test]
fn instructions_and_used_memory_change_nothing() {
    let source = patterns(5);
    for pixels in [PixelType::F32, PixelType::U8] {
        let config = LoaderConfig { pixels, drop_last: false, ..CONFIG };
        let expected = hash(&batches(&loader(source.clone(), config), 3, 0));
        for instructions in Instructions::available() {
            let loader = loader(source.clone(), config).with_instructions(instructions);
            for batch in batches(&loader, 2, 0) {
                loader.recycle(batch);
            }
            assert_eq!(hash(&batches(&loader, 3, 0)), expected, "{pixels:?} by {instructions:?}");
        }
    }
}

/// JPEG photographs through everything the imagenet recipe does, blur included.
fn hash_of_photographs(instructions: Instructions) -> Fingerprint {
    let folder = tempfile::tempdir().unwrap();
    let rings = include_bytes!("files/rings.jpg").as_slice();
    for (i, jpeg) in [rings, COARSE, PROGRESSIVE, SUBSAMPLED].into_iter().cycle().take(16).enumerate() {
        std::fs::write(folder.path().join(format!("{i:02}.jpg")), jpeg).unwrap();
    }
    let config = FolderConfig {
        decode: DecodeOptions::STANDARD,
        cache_mib: 0,
        full_scan_files: 100,
        on_bad: OnBad::Fail,
        max_bad_fraction: 0.0,
    };
    let source = Arc::new(FolderSource::open(folder.path(), &config, &|_, _| ()).unwrap());
    let augment = Arc::new(Recipe::Imagenet.config(40).init().unwrap());
    let loader = Loader::new(source, augment, Normalize::IMAGENET, 11, CONFIG).unwrap().with_instructions(instructions);
    hash(&batches(&loader, 0, 0))
}

const COARSE: &[u8] = include_bytes!("../../pixels/tests/pillow_jpeg/coarse.jpg");
const PROGRESSIVE: &[u8] = include_bytes!("../../pixels/tests/pillow_jpeg/progressive.jpg");
const SUBSAMPLED: &[u8] = include_bytes!("../../pixels/tests/pillow_jpeg/subsampled_420.jpg");

/// What the JPEG decoder looks at once in the life of a process.
const WITHOUT_SIMD: &str = "JSIMD_FORCENONE";

#[test]
#[allow(clippy::print_stdout, reason = "how a process tells another one")]
fn photographs_are_the_same_by_any_instructions() {
    let expected = hash_of_photographs(Instructions::BASELINE);
    if std::env::var_os(WITHOUT_SIMD).is_some() {
        println!("hash {expected}");
        return;
    }
    for instructions in Instructions::available() {
        assert_eq!(hash_of_photographs(instructions), expected, "by {instructions:?}");
    }
    // The same test in a process of its own, whose decoder does without.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "photographs_are_the_same_by_any_instructions", "--nocapture"])
        .env(WITHOUT_SIMD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("hash {expected}")), "{said}");
}

#[test]
fn bytes_are_the_numbers_before_they_are_normalized() {
    let of = |pixels| batches(&loader(patterns(2), LoaderConfig { pixels, ..CONFIG }), 0, 0);
    for (numbers, bytes) in of(PixelType::F32).iter().zip(of(PixelType::U8)) {
        let ViewPixels::U8 { values, normalize } = &bytes.views else { panic!("asked for bytes") };
        for (i, (&number, &byte)) in numbers.views.as_f32().unwrap().iter().zip(values).enumerate() {
            let channel = i / 64 % 3;
            let want = (f32::from(byte) / 255.0 - normalize.mean[channel]) / normalize.std[channel];
            assert!((number - want).abs() < 1e-6, "{i}: {number}, {want}");
        }
    }
}

#[test]
fn an_epoch_entered_in_the_middle_is_the_tail_of_the_whole() {
    let loader = loader(patterns(5), LoaderConfig { drop_last: false, ..CONFIG });
    let whole = batches(&loader, 2, 0);
    assert_eq!(whole.len(), 7);
    for first in 0..=7 {
        assert_eq!(batches(&loader, 2, first), whole[first..]);
    }
    let mut behind = loader.epoch(2, 8);
    let error = behind.next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "an epoch has 7 batches, cannot start at batch 8");
    assert!(behind.next().is_none());
}

#[test]
fn rows_are_the_views_of_their_keys_in_epoch_order() {
    let source = patterns(2);
    let all = batches(&loader(source.clone(), LoaderConfig { drop_last: false, ..CONFIG }), 6, 0);
    let order: Vec<u64> = EpochOrder::new(20, 11, 6).as_slice().iter().map(|&sample| sample.into()).collect();
    assert_eq!(all.iter().flat_map(|batch| batch.samples.clone()).collect::<Vec<_>>(), order);
    assert_eq!(all.iter().map(|batch| batch.samples.len()).collect::<Vec<_>>(), [8, 8, 4]);
    let batch = &all[1];
    for (row, &sample) in batch.samples.iter().enumerate() {
        for view in [0, 1] {
            let image = source.image(usize::try_from(sample).unwrap()).unwrap();
            let key = ViewKey { seed: 11, epoch: 6, sample, view };
            let rendered = augment().plan(&key, 32, 32).render(&image).unwrap();
            let mut expected = vec![0.0; 3 * 8 * 8];
            Normalize::CIFAR10.write_chw(&Planes::from(&rendered), &mut expected, Instructions::BASELINE).unwrap();
            assert_eq!(shown(batch, view, row), expected);
        }
    }
}

/// Any number of plain pictures; some fail to load.
struct Plain {
    n: usize,
    fails: HashSet<usize>,
    loads: AtomicUsize,
}

impl Plain {
    fn new(n: usize, fails: impl IntoIterator<Item = usize>) -> Arc<Self> {
        Arc::new(Self { n, fails: fails.into_iter().collect(), loads: AtomicUsize::new(0) })
    }
}

impl Source for Plain {
    fn len(&self) -> usize {
        self.n
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn label(&self, _: usize) -> Option<u32> {
        None
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        format!("{i}.png").into()
    }

    fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if self.fails.contains(&i) {
            let problem = Problem::Read(io::Error::other("gone"));
            return Err(SampleError { path: format!("{i}.png").into(), problem });
        }
        let shade = u8::try_from(i % 256).unwrap();
        buffers.image = Image::filled(2, 2, [shade; 3]).unwrap();
        Ok(&buffers.image)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_epoch_is_cut_as_promised(n in 2usize..60, batch_size in 2usize..20, drop_last: bool) {
        prop_assume!(batch_size <= n);
        let loader = loader(Plain::new(n, []), LoaderConfig { batch_size, drop_last, ..CONFIG });
        let sizes: Vec<usize> = batches(&loader, 0, 0).iter().map(|batch| batch.samples.len()).collect();
        let rest = n % batch_size;
        let mut expected = vec![batch_size; n / batch_size];
        if !drop_last && rest >= 2 {
            expected.push(rest);
        }
        prop_assert_eq!(loader.batches_per_epoch(), expected.len());
        prop_assert_eq!(loader.left_out_per_epoch(), n - expected.iter().sum::<usize>());
        prop_assert_eq!(sizes, expected);
    }
}

#[test]
fn impossible_configurations_are_refused() {
    let error = |n, config| Loader::new(Plain::new(n, []), augment(), Normalize::NONE, 0, config).err().unwrap();
    assert_eq!(
        error(7, CONFIG).to_string(),
        "batch_size = 8 is larger than the data: 7 pictures; the largest batch_size is 7"
    );
    assert_eq!(error(7, LoaderConfig { batch_size: 1, ..CONFIG }), LoaderError::BatchTooSmall { least: 2, got: 1 });
    assert_eq!(error(0, CONFIG), LoaderError::TooFewPictures { least: 2, got: 0 });
    assert_eq!(error(1, CONFIG), LoaderError::TooFewPictures { least: 2, got: 1 });
    assert_eq!(error(9, LoaderConfig { prefetch: 0, ..CONFIG }), LoaderError::NoPrefetch);
    assert_eq!(error(u32::MAX as usize + 1, CONFIG), LoaderError::TooManyPictures { got: u32::MAX as usize + 1 });
}

#[test]
fn a_failed_picture_is_replaced_by_rule_and_named() {
    let source = Plain::new(24, [3, 17]);
    let all: Vec<Vec<ViewBatch>> =
        [1, 2, 8].map(|workers| batches(&loader(source.clone(), LoaderConfig { workers, ..CONFIG }), 5, 0)).into();
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0], all[2]);
    let order = EpochOrder::new(24, 11, 5);
    let mut replaced = Vec::new();
    for batch in &all[0] {
        for entry in &batch.replaced {
            let place = batch.index * 8 + entry.position;
            assert_eq!(u64::from(order.as_slice()[place]), entry.sample);
            assert_eq!(batch.samples[entry.position], entry.by);
            assert!(![3, 17].contains(&entry.by));
            assert_eq!(entry.path.to_str(), Some(&*format!("{}.png", entry.sample)));
            assert_eq!(entry.reason, "cannot be read: gone");
            // The stand-in, with the views of the picture whose place it takes.
            let by = source.image(usize::try_from(entry.by).unwrap()).unwrap();
            for view in [0, 1] {
                let key = ViewKey { seed: 11, epoch: 5, sample: entry.sample, view };
                let rendered = augment().plan(&key, 2, 2).render(&by).unwrap();
                let mut expected = vec![0.0; 192];
                let planes = Planes::from(&rendered);
                Normalize::CIFAR10.write_chw(&planes, &mut expected, Instructions::BASELINE).unwrap();
                assert_eq!(shown(batch, view, entry.position), expected);
            }
            replaced.push(entry.sample);
        }
    }
    replaced.sort_unstable();
    assert_eq!(replaced, [3, 17]);
}

#[test]
fn when_everything_fails_the_epoch_ends_with_the_first_file() {
    let loader = loader(Plain::new(24, 0..24), CONFIG);
    let mut epoch = loader.epoch(0, 0);
    let error = epoch.next().unwrap().unwrap_err();
    let first = EpochOrder::new(24, 11, 0).as_slice()[0];
    assert!(error.to_string().starts_with(&format!("{first}.png: cannot be read: gone; 16 other")), "{error}");
    assert!(matches!(error, LoadError::NoStandIn { .. }));
    assert!(epoch.next().is_none());
}

/// Panics at one picture.
struct Panicking(Arc<Plain>);

impl Source for Panicking {
    fn len(&self) -> usize {
        self.0.n
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn label(&self, _: usize) -> Option<u32> {
        None
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        self.0.name(i).into_owned().into()
    }

    fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        assert_ne!(i, 13, "picture 13 breaks everything");
        self.0.read(i, buffers)
    }
}

#[test]
fn a_panic_is_an_error_and_the_end() {
    let loader = loader(Arc::new(Panicking(Plain::new(24, []))), CONFIG);
    let place = EpochOrder::new(24, 11, 0).as_slice().iter().position(|&sample| sample == 13).unwrap();
    let items: Vec<_> = loader.epoch(0, 0).collect();
    assert_eq!(items.len(), place / 8 + 1);
    let message = items.last().unwrap().as_ref().unwrap_err().to_string();
    assert!(message.contains(&format!("epoch 0, batch {}", place / 8)), "{message}");
    assert!(message.contains("picture 13 breaks everything"), "{message}");
    assert!(items[..place / 8].iter().all(Result::is_ok));
}

#[test]
fn the_work_ends_with_the_iterator_wherever_it_stops() {
    let source = Plain::new(100, []);
    let loader = loader(source.clone(), LoaderConfig { workers: 4, ..CONFIG });
    for taken in [0, 1, 5, 12, 13] {
        let mut epoch = loader.epoch(0, 0);
        assert_eq!(epoch.by_ref().take(taken).count(), taken.min(12));
        drop(epoch);
        // Whatever makes batches holds the source through the batch maker: only the loader and this test are left.
        assert_eq!(Arc::strong_count(&source), 2, "after {taken} batches");
    }
}

#[test]
fn no_more_is_made_ahead_than_prefetch_allows() {
    for prefetch in [1, 3] {
        let source = Plain::new(400, []);
        let loader = loader(source.clone(), LoaderConfig { workers: 4, prefetch, ..CONFIG });
        let mut epoch = loader.epoch(0, 0);
        for taken in 1..=3 {
            epoch.next().unwrap().unwrap();
            // Time for a loader without bounds to run ahead; one that keeps them passes however long it is.
            std::thread::sleep(Duration::from_millis(20));
            let loads = source.loads.load(Ordering::SeqCst);
            assert!(loads <= (taken + prefetch) * 8, "prefetch {prefetch}: {loads} pictures after {taken} batches");
        }
    }
}

#[test]
fn evaluation_keeps_the_order_of_the_source() {
    let source = patterns(2);
    let of = |batch_size| -> Vec<f32> {
        image_batches(&*source, 32, Normalize::NONE, batch_size)
            .unwrap()
            .flat_map(|batch| batch.unwrap().pixels)
            .collect()
    };
    let whole = of(20);
    assert_eq!(whole, of(3));
    assert_eq!(whole, of(1000));
    // Nothing is resampled at the size of the pictures.
    for i in 0..20 {
        let mut expected = vec![0.0; 3 * 32 * 32];
        let planes = Planes::from(&source.image(i).unwrap());
        Normalize::NONE.write_chw(&planes, &mut expected, Instructions::BASELINE).unwrap();
        assert_eq!(whole[i * 3072..][..3072], expected);
    }
    let smaller: Vec<_> = image_batches(&*source, 24, Normalize::NONE, 6).unwrap().map(Result::unwrap).collect();
    let shapes: Vec<_> = smaller.iter().map(|batch| (batch.first, batch.len, batch.pixels.len())).collect();
    assert_eq!(shapes, [(0, 6, 6 * 1728), (6, 6, 6 * 1728), (12, 6, 6 * 1728), (18, 2, 2 * 1728)]);
}

#[test]
fn evaluation_stops_at_a_failed_picture_and_names_it() {
    let source = Plain::new(10, [5, 7]);
    let mut batches = image_batches(&*source, 2, Normalize::NONE, 4).unwrap();
    assert!(batches.next().unwrap().is_ok());
    assert_eq!(batches.next().unwrap().unwrap_err().to_string(), "5.png: cannot be read: gone");
    assert!(batches.next().is_none());
}

#[test]
fn evaluation_refuses_what_cannot_be() {
    let error = |n, size_px, batch_size| {
        image_batches(&*Plain::new(n, []), size_px, Normalize::NONE, batch_size).err().unwrap()
    };
    assert_eq!(error(0, 2, 4), LoaderError::TooFewPictures { least: 1, got: 0 });
    assert_eq!(error(3, 2, 0), LoaderError::BatchTooSmall { least: 1, got: 0 });
    assert_eq!(error(3, 0, 4).to_string(), "size_px must be from 1 to 8192, got 0");
}
