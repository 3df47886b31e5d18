//! Duplicates from the scan to the batch: found, written, read back, known to the loader.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up may panic")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use tempfile::TempDir;
use twoview_augment::{AugmentConfig, ResizeFilter, TransformConfig};
use twoview_data::{
    DuplicateGroup, DuplicatesError, FolderConfig, FolderSource, KnownDuplicates, Likeness, Loader, LoaderConfig,
    NEAR_BITS, OnBad, PictureFiles, PixelType, Source, duplicates_text, read_duplicates,
};
use twoview_pixels::{
    ColorOp, CropBox, DecodeOptions, Filter, Image, Instructions, Normalize, Planes, Workspace, apply_colors,
    encode_png, resized_crop,
};

const CONFIG: FolderConfig = FolderConfig {
    decode: DecodeOptions::STANDARD,
    cache_mib: 16,
    full_scan_files: 1000,
    on_bad: OnBad::Skip,
    max_bad_fraction: 1.0,
};

/// Waves of every length in random strengths, another picture for each number.
fn scene(number: u64) -> Image {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let waves: Vec<[f32; 4]> = (1..=12)
        .map(|k| {
            [
                k as f32 * 2.0 * (uniform() - 0.5),
                k as f32 * 2.0 * (uniform() - 0.5),
                uniform() * 6.0,
                60.0 / (k as f32 + 1.0),
            ]
        })
        .collect();
    let tint: [f32; 3] = std::array::from_fn(|_| 60.0 * (uniform() - 0.5));
    let mut pixels = Vec::new();
    for y in 0..120 {
        for x in 0..160 {
            let (u, v) = (x as f32 / 25.0, y as f32 / 25.0);
            let grey: f32 =
                120.0 + waves.iter().map(|[a, b, phase, height]| height * (a * u + b * v + phase).sin()).sum::<f32>();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
            pixels.extend(tint.map(|shift| (grey + shift) as u8));
        }
    }
    Image::from_rgb8(160, 120, pixels).unwrap()
}

fn save_jpeg(path: &Path, image: &Image, quality: u8) {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let side = |length: u32| u16::try_from(length).unwrap();
    encoder.encode(image.as_rgb8(), side(image.width()), side(image.height()), ColorType::Rgb).unwrap();
    fs::write(path, bytes).unwrap();
}

fn save_png(path: &Path, image: &Image) {
    fs::write(path, encode_png(image).unwrap()).unwrap();
}

fn resized(image: &Image, height: u32, width: u32) -> Image {
    let whole = CropBox { top: 0, left: 0, height: image.height(), width: image.width() };
    let mut out = Planes::default();
    let workspace = &mut Workspace::default();
    resized_crop(image, whole, height, width, Filter::Bilinear, false, workspace, &mut out).unwrap();
    out.to_image()
}

fn check(folder: &TempDir, near_bits: u32) -> (FolderSource, Vec<DuplicateGroup>) {
    FolderSource::check(&PictureFiles::below(folder.path()), &CONFIG, near_bits, &|_, _| ()).unwrap()
}

/// Three scenes with copies, one without, and pictures of nothing.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, number) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        save_png(&at(&format!("{name}.png")), &scene(number));
    }
    fs::copy(at("a.png"), at("a-same.png")).unwrap();
    save_png(&at("b-half.png"), &resized(&scene(2), 60, 80));
    save_jpeg(&at("b-saved-anew.jpg"), &scene(2), 40);
    let mut brighter = Planes::from(&scene(3));
    apply_colors(&mut brighter, &[ColorOp::Brightness(1.15)], Instructions::best());
    save_png(&at("c-brighter.png"), &brighter.to_image());
    fs::copy(at("c.png"), at("c-same.png")).unwrap();
    for shade in [0, 3, 128, 255] {
        save_png(&at(&format!("flat-{shade}.png")), &Image::filled(40, 30, [shade; 3]).unwrap());
    }
    folder
}

fn group(kind: Likeness, paths: &[&str]) -> (Likeness, Vec<String>) {
    (kind, paths.iter().map(|&path| path.to_owned()).collect())
}

#[test]
fn copies_are_found_and_other_pictures_are_not() {
    let folder = folder();
    let (_, groups) = check(&folder, NEAR_BITS);
    let found: Vec<_> = groups.iter().map(|group| (group.kind, group.paths.clone())).collect();
    assert_eq!(
        found,
        [
            group(Likeness::Exact, &["a-same.png", "a.png"]),
            group(Likeness::Exact, &["c-same.png", "c.png"]),
            group(Likeness::Near, &["b-half.png", "b-saved-anew.jpg", "b.png"]),
            group(Likeness::Near, &["c-brighter.png", "c-same.png", "c.png"]),
        ]
    );
    assert!(groups.iter().all(|group| group.distance <= NEAR_BITS));
}

#[test]
fn many_different_pictures_have_no_group() {
    let folder = TempDir::new().unwrap();
    for number in 0..300 {
        save_png(&folder.path().join(format!("{number}.png")), &resized(&scene(number), 48, 64));
    }
    assert_eq!(check(&folder, 7).1, []);
}

#[test]
fn a_list_comes_back_as_it_was_written() {
    let folder = folder();
    let (_, groups) = check(&folder, NEAR_BITS);
    let file = folder.path().join("duplicates.jsonl");
    let text = duplicates_text(&groups);
    assert!(text.starts_with(r#"{"kind":"exact","distance":0,"paths":["a-same.png","a.png"]}"#), "{text}");
    fs::write(&file, &text).unwrap();
    assert_eq!(read_duplicates(&file).unwrap(), groups);
    fs::write(&file, text + "{\"kind\":\"guess\"}\n").unwrap();
    let error = read_duplicates(&file).unwrap_err();
    assert!(matches!(error, DuplicatesError::Line { line: 5, .. }), "{error}");
    assert!(matches!(read_duplicates(Path::new("/nowhere")), Err(DuplicatesError::Read { .. })));
}

#[test]
fn what_is_known_reaches_the_batch() {
    let folder = folder();
    let (source, groups) = check(&folder, NEAR_BITS);
    // a-same, a, b-half, b-saved-anew, b, c-brighter, c-same, c, d, four flat ones.
    let of = |source: &dyn Source| (0..source.len()).map(|i| source.group(i)).collect::<Vec<_>>();
    assert_eq!(of(&source), [0, 0, 2, 3, 4, 5, 6, 6, 8, 9, 10, 11, 12], "copies need no list");
    let mut groups = groups;
    groups[0].paths.push("removed.png".to_owned());
    let known = KnownDuplicates::new(Arc::new(source), &groups);
    let expected = [0, 0, 2, 2, 2, 5, 5, 5, 8, 9, 10, 11, 12];
    assert_eq!(of(&known), expected);
    assert_eq!((known.unknown(), known.n_grouped()), (["removed.png".to_owned()].as_slice(), 8));
    let same = KnownDuplicates::new(Arc::new(check(&folder, NEAR_BITS).0), &groups);
    assert_eq!(known.fingerprint(), same.fingerprint());
    let fewer = KnownDuplicates::new(Arc::new(check(&folder, NEAR_BITS).0), &groups[..3]);
    assert_ne!(known.fingerprint(), fewer.fingerprint());

    let crop = TransformConfig::RandomResizedCrop {
        size_px: 8,
        area: [0.5, 1.0],
        aspect: [0.75, 1.3333334],
        filter: ResizeFilter::Bilinear,
    };
    let augment = Arc::new(AugmentConfig(vec![crop]).init().unwrap());
    let config = LoaderConfig { batch_size: 13, drop_last: true, workers: 2, prefetch: 1, pixels: PixelType::F32 };
    let loader = Loader::new(Arc::new(known), augment, Normalize::NONE, 0, config).unwrap();
    let batch = loader.epoch(0, 0).next().unwrap().unwrap();
    let shown: Vec<u64> = batch.samples.iter().map(|&sample| expected[usize::try_from(sample).unwrap()]).collect();
    assert_eq!(batch.groups, shown);
}
