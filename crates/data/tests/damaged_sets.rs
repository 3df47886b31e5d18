//! Every format with its bytes cut and flipped at random: typed errors, no panic, no memory beyond what the files need.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up may panic")]
#![allow(unsafe_code, reason = "an allocator that notes the largest request can be written no other way")]

mod made_sets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use made_sets::{cifar10_binary, cifar10_python, idx, pack, stl, tar_shards};
use proptest::prelude::*;
use twoview_data::{
    CifarConfig, CifarLabels, CifarSource, IdxSource, PackForm, PackSource, ReadBuffers, Source, Split, StlPart,
    StlSource, TarSource,
};
use twoview_pixels::DecodeOptions;

const OPTIONS: DecodeOptions = DecodeOptions { max_file_bytes: 1 << 20, max_pixels: 1 << 16, exif_rotate: false };
/// All files here are smaller than 100 KB. The most that any of them may make of it are the tables of a PNG decoder and,
/// of compressed IDX, 1032 times its length.
const MOST_AT_ONCE: usize = 20 << 20;

/// The system's allocator, with the largest request on record.
struct Noting;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        LARGEST.fetch_max(bytes, Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(place, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Noting = Noting;

/// What happens to the bytes of a file.
#[derive(Debug, Clone)]
enum Damage {
    Cut(prop::sample::Index),
    Flip(Vec<(prop::sample::Index, u8)>),
    /// A run of one byte, which makes large numbers and long names.
    Fill(prop::sample::Index, u8),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        use prop::sample::Index;
        // Headers are where damage tells, so the beginning is hit more often than its share.
        prop_oneof![
            any::<Index>().prop_map(Self::Cut),
            prop::collection::vec((any::<Index>(), 1..=255u8), 1..4).prop_map(Self::Flip),
            (any::<Index>(), prop_oneof![Just(0u8), Just(0xff), Just(b'9'), any::<u8>()])
                .prop_map(|(at, byte)| Self::Fill(at, byte)),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>, within: usize) {
        let within = within.min(bytes.len()).max(1);
        match self {
            Self::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
            Self::Flip(flips) => flips.iter().for_each(|(at, bits)| bytes[at.index(within)] ^= bits),
            Self::Fill(at, byte) => {
                let at = at.index(within);
                let end = (at + 8).min(bytes.len());
                bytes[at..end].fill(*byte);
            }
        }
    }
}

/// Opens a damaged set and reads whatever it still has.
fn read_all<E: std::error::Error>(opened: Result<impl Source, E>) {
    match opened {
        Ok(source) => {
            let mut buffers = ReadBuffers::default();
            for i in 0..source.len() {
                assert!(source.label(i).is_none_or(|label| (label as usize) < source.classes().len()));
                let _ = source.name(i);
                if let Err(error) = source.read(i, &mut buffers) {
                    assert!(!error.to_string().is_empty());
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest <= MOST_AT_ONCE, "{largest} bytes at once");
}

/// A set, one file of it, and how it is opened.
struct Target {
    root: tempfile::TempDir,
    file: PathBuf,
    bytes: Vec<u8>,
    open: fn(&Path),
}

fn target(make: impl Fn(&Path), file: &str, open: fn(&Path)) -> Target {
    let root = tempfile::tempdir().unwrap();
    make(root.path());
    let file = root.path().join(file);
    let bytes = fs::read(&file).unwrap();
    Target { root, file, bytes, open }
}

fn targets() -> Vec<Target> {
    const FINE: CifarConfig = CifarConfig { split: Split::Train, labels: CifarLabels::Fine };
    let cifar = |root: &Path| read_all(CifarSource::open(root, FINE));
    let stl_train = |root: &Path| read_all(StlSource::open(root, StlPart::Train));
    let idx_train = |root: &Path| read_all(IdxSource::open(root, Split::Train));
    let open_pack = |root: &Path| read_all(PackSource::open(&root.join("set.pack"), OPTIONS));
    vec![
        target(|root| cifar10_binary(root, 0), "data_batch_2.bin", cifar),
        target(|root| cifar10_binary(root, 0), "batches.meta.txt", cifar),
        target(|root| cifar10_python(root, 0), "data_batch_2", cifar),
        target(|root| stl(root, 0), "stl10_binary/train_X.bin", stl_train),
        target(|root| stl(root, 0), "stl10_binary/train_y.bin", stl_train),
        target(|root| idx(root, false, 0), "train-images-idx3-ubyte", idx_train),
        target(|root| idx(root, true, 0), "train-images-idx3-ubyte.gz", idx_train),
        target(|root| idx(root, false, 0), "train-labels-idx1-ubyte", idx_train),
        target(
            |root| tar_shards(root, 0),
            "train-000.tar",
            |root| {
                read_all(TarSource::open(root, Split::Train, OPTIONS));
            },
        ),
        target(|root| drop(pack(root, PackForm::Original, 0)), "set.pack", open_pack),
        target(|root| drop(pack(root, PackForm::Decoded, 0)), "set.pack", open_pack),
    ]
}

#[test]
fn damage_is_an_error_and_nothing_worse() {
    let targets = targets();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(150)
    });
    let within = prop_oneof![Just(64usize), Just(700), Just(usize::MAX)];
    runner
        .run(&(Damage::any(), within), |(damage, within)| {
            for target in &targets {
                let mut bytes = target.bytes.clone();
                damage.apply(&mut bytes, within);
                fs::write(&target.file, &bytes).unwrap();
                (target.open)(target.root.path());
            }
            Ok(())
        })
        .unwrap();
}

/// Flipped bits of a pack never show as pixels: each picture is the one that was written or an error.
#[test]
fn a_pack_never_gives_another_picture() {
    let root = tempfile::tempdir().unwrap();
    let file = pack(root.path(), PackForm::Decoded, 0);
    let bytes = fs::read(&file).unwrap();
    let source = PackSource::open(&file, OPTIONS).unwrap();
    let pictures: Vec<_> = (0..source.len()).map(|i| source.image(i).unwrap()).collect();
    let mut errors = 0;
    for k in 0..600usize {
        let mut damaged = bytes.clone();
        let place = if k < 100 { k } else { (k * 7919) % bytes.len() };
        damaged[place] ^= 1 << (k % 8);
        fs::write(&file, damaged).unwrap();
        match PackSource::open(&file, OPTIONS) {
            Ok(source) => {
                for (i, picture) in pictures.iter().enumerate() {
                    match source.image(i) {
                        Ok(image) => assert_eq!(image, *picture, "byte {place}"),
                        Err(_) => errors += 1,
                    }
                }
            }
            Err(_) => errors += 1,
        }
    }
    assert!(errors > 200, "only {errors}");
}
