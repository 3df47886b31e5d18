//! Decoding files of every format: whole, cut, damaged, hostile.

use image::{DynamicImage, ImageFormat};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use proptest::prelude::*;
use twoview_pixels::{DecodeError, DecodeOptions, Format, Header, Image, decode, encode_png, read_header};

const OPTIONS: DecodeOptions = DecodeOptions::STANDARD;

/// A soft gradient with a little texture; lossy formats keep it closely.
fn picture(width: u32, height: u32) -> Image {
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let texture = (x * 7 + y * 13) % 16;
            let channels = [40 + 150 * x / width + texture, 60 + 120 * y / height + texture, 90 + texture];
            pixels.extend(channels.map(|value| u8::try_from(value).expect("below 256")));
        }
    }
    Image::from_rgb8(width, height, pixels).expect("a valid size")
}

fn dynamic(image: &Image) -> DynamicImage {
    image::RgbImage::from_raw(image.width(), image.height(), image.as_rgb8().to_vec()).expect("the right length").into()
}

fn file(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("an encodable picture");
    bytes.into_inner()
}

/// A baseline or progressive JPEG with halved chroma, as cameras write them.
fn jpeg(image: &Image, progressive: bool) -> Vec<u8> {
    let side = |length: u32| u16::try_from(length).expect("a small picture");
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 92);
    encoder.set_progressive(progressive);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(image.as_rgb8(), side(image.width()), side(image.height()), ColorType::Rgb).expect("encodable");
    bytes
}

/// One file per format and flavour, all of the same picture.
fn files(image: &Image) -> Vec<(Format, Vec<u8>)> {
    let rgb = dynamic(image);
    vec![
        (Format::Jpeg, jpeg(image, false)),
        (Format::Jpeg, jpeg(image, true)),
        (Format::Png, encode_png(image).expect("encodable")),
        (Format::Bmp, file(&rgb, ImageFormat::Bmp)),
        (Format::Webp, file(&rgb, ImageFormat::WebP)),
        (Format::Gif, file(&rgb, ImageFormat::Gif)),
        (Format::Tiff, file(&rgb, ImageFormat::Tiff)),
        (Format::Pnm, file(&rgb, ImageFormat::Pnm)),
    ]
}

fn mean_difference(a: &Image, b: &Image) -> f64 {
    assert_eq!((a.width(), a.height()), (b.width(), b.height()));
    let sum: u64 = a.as_rgb8().iter().zip(b.as_rgb8()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.as_rgb8().len() as f64
}

#[test]
fn every_format_gives_back_its_picture() {
    for (width, height) in [(37, 23), (32, 32), (1, 1), (1, 200)] {
        let image = picture(width, height);
        for (format, bytes) in files(&image) {
            assert_eq!(read_header(&bytes, &OPTIONS), Ok(Header { format, width, height }));
            let got = decode(&bytes, &OPTIONS).unwrap_or_else(|error| panic!("{width}x{height} {format}: {error}"));
            let tolerance = match format {
                Format::Jpeg => 5.0,
                Format::Gif => 8.0, // 256 colours.
                _ => 0.0,
            };
            let difference = mean_difference(&got, &image);
            assert!(difference <= tolerance, "{width}x{height} {format}: differs by {difference} on average");
        }
    }
}

#[test]
fn other_pixel_types_become_rgb() {
    let image = picture(20, 10);
    let rgb = dynamic(&image);
    let grey = DynamicImage::from(rgb.to_luma8());
    let grey_as_rgb = Image::from_rgb8(20, 10, grey.to_rgb8().into_raw()).expect("200 pixels");
    let mut transparent = rgb.to_rgba8();
    transparent.pixels_mut().enumerate().for_each(|(i, pixel)| pixel.0[3] = u8::try_from(i).expect("below 200"));
    let mut transparent_grey = grey.to_luma_alpha8();
    transparent_grey.pixels_mut().for_each(|pixel| pixel.0[1] = 17);
    for (what, variant, want) in [
        ("grey", grey.clone(), &grey_as_rgb),
        ("grey with alpha", transparent_grey.into(), &grey_as_rgb),
        ("alpha, which is dropped", transparent.into(), &image),
        ("16-bit colour", rgb.to_rgb16().into(), &image),
        ("16-bit grey", grey.to_luma16().into(), &grey_as_rgb),
    ] {
        let got = decode(&file(&variant, ImageFormat::Png), &OPTIONS).expect(what);
        assert_eq!(mean_difference(&got, want), 0.0, "{what}");
    }
    // A bitmap of one bit per pixel, in which 1 is black.
    let got = decode(b"P4 8 1 \xA5", &OPTIONS).expect("a PBM file");
    let want: Vec<u8> = [0, 255, 0, 255, 255, 0, 255, 0].into_iter().flat_map(|value| [value; 3]).collect();
    assert_eq!(got.as_rgb8(), want);
}

/// EXIF data that states nothing but an orientation, in the byte order of Intel or of Motorola.
fn exif(orientation: u8, little_endian: bool) -> Vec<u8> {
    // The header of a TIFF file, one directory with one entry: tag 0x0112, type SHORT, one value; no next directory.
    if little_endian {
        [b"II\x2A\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(), &[orientation, 0, 0, 0], &[0; 4]].concat()
    } else {
        [b"MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01".as_slice(), &[0, orientation, 0, 0], &[0; 4]].concat()
    }
}

fn jpeg_with_exif(image: &Image, exif: &[u8]) -> Vec<u8> {
    let plain = jpeg(image, false);
    let length = u16::try_from(2 + 6 + exif.len()).expect("short").to_be_bytes();
    [&plain[..2], b"\xFF\xE1", &length, b"Exif\0\0", exif, &plain[2..]].concat()
}

#[test]
fn exif_orientation_turns_only_when_asked_to() {
    const RED: [u8; 3] = [255, 0, 0];
    const GREEN: [u8; 3] = [0, 255, 0];
    const BLUE: [u8; 3] = [0, 0, 255];
    // Left half of the first rows red, right half green, the rest blue.
    let pixel = |i: usize| match (i / 32 < 16, i % 32 < 16) {
        (true, true) => RED,
        (true, false) => GREEN,
        _ => BLUE,
    };
    let stored = Image::from_rgb8(32, 48, (0..32 * 48).flat_map(pixel).collect()).expect("a picture");
    let rotating = DecodeOptions { exif_rotate: true, ..OPTIONS };
    let corner_of = |image: &Image, colour: [u8; 3]| {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let corners = [("top left", 0, 0), ("top right", width - 1, 0), ("bottom left", 0, height - 1)];
        let near = |x: usize, y: usize| {
            let at = (y * width + x) * 3;
            image.as_rgb8()[at..at + 3].iter().zip(colour).all(|(got, want)| got.abs_diff(want) < 40)
        };
        corners.iter().find(|(_, x, y)| near(*x, *y)).map_or("bottom right", |(name, ..)| name)
    };
    // EXIF 2.3, 4.6.4: where the first row and the first column of the stored picture are seen.
    for (orientation, red, green) in [
        (1, "top left", "top right"),
        (2, "top right", "top left"),
        (3, "bottom right", "bottom left"),
        (4, "bottom left", "bottom right"),
        (5, "top left", "bottom left"),
        (6, "top right", "bottom right"),
        (7, "bottom right", "top right"),
        (8, "bottom left", "top left"),
    ] {
        for little_endian in [true, false] {
            let file = jpeg_with_exif(&stored, &exif(orientation, little_endian));
            let plain = decode(&file, &OPTIONS).expect("a picture");
            assert_eq!((plain.width(), plain.height()), (32, 48), "{orientation} without being asked");
            let turned = decode(&file, &rotating).expect("a picture");
            let sides = if orientation > 4 { (48, 32) } else { (32, 48) };
            assert_eq!((turned.width(), turned.height()), sides, "orientation {orientation}");
            assert_eq!((corner_of(&turned, RED), corner_of(&turned, GREEN)), (red, green), "orientation {orientation}");
        }
    }
    // What says nothing, or nonsense, turns nothing.
    for broken in [exif(0, true), exif(9, false), b"II\x2A\0".to_vec(), b"junk".to_vec(), Vec::new()] {
        let file = jpeg_with_exif(&stored, &broken);
        assert_eq!(decode(&file, &rotating), decode(&file, &OPTIONS), "{broken:?}");
    }
    for (format, file) in files(&stored) {
        assert_eq!(decode(&file, &rotating), decode(&file, &OPTIONS), "{format} without EXIF data");
    }
}

#[test]
fn grey_and_cmyk_jpegs_become_rgb() {
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes, 95).encode(&[77; 16 * 16], 16, 16, ColorType::Luma).expect("encodable");
    let got = decode(&bytes, &OPTIONS).expect("a grey JPEG");
    assert!(mean_difference(&got, &Image::filled(16, 16, [77; 3]).expect("a valid size")) <= 1.0);

    // Full cyan ink and half black: no red, half green and blue.
    let ink = [255, 0, 0, 128].repeat(16 * 16);
    for colours in [ColorType::Cmyk, ColorType::CmykAsYcck] {
        let mut bytes = Vec::new();
        Encoder::new(&mut bytes, 95).encode(&ink, 16, 16, colours).expect("encodable");
        let got = decode(&bytes, &OPTIONS).expect("a CMYK JPEG");
        let difference = mean_difference(&got, &Image::filled(16, 16, [0, 127, 127]).expect("a valid size"));
        assert!(difference <= 3.0, "{colours:?}: {:?}", &got.as_rgb8()[..3]);
    }
}

#[test]
fn a_cut_file_is_an_error() {
    for size in [(32, 32), (64, 48)] {
        let image = picture(size.0, size.1);
        for (format, bytes) in files(&image) {
            let whole = decode(&bytes, &OPTIONS).expect("a whole file");
            for percent in [5, 30, 50, 75, 90, 97] {
                let cut = &bytes[..bytes.len() * percent / 100];
                let result = decode(cut, &OPTIONS);
                assert!(result.is_err(), "{size:?} {format} cut to {percent} %: {result:?}, whole {whole:?}");
            }
        }
    }
}

/// At every single length: what is accepted has all its pixels.
#[test]
fn a_jpeg_cut_anywhere_is_an_error_or_whole() {
    let image = picture(32, 32);
    for progressive in [false, true] {
        let bytes = jpeg(&image, progressive);
        let whole = decode(&bytes, &OPTIONS).expect("a whole file");
        let mut n_accepted = 0;
        for length in 0..bytes.len() {
            if let Ok(got) = decode(&bytes[..length], &OPTIONS) {
                assert!(got == whole, "cut from {} to {length} bytes, progressive: {progressive}", bytes.len());
                n_accepted += 1;
            }
        }
        // The end marker has two bytes, and the last byte of the data may hold nothing but padding. Of a picture
        // in several scans nothing is known to be whole before its end marker.
        let allowed = if progressive { 0..=0 } else { 2..=3 };
        assert!(allowed.contains(&n_accepted), "{n_accepted} cut files accepted, progressive: {progressive}");
    }
}

#[test]
fn truncation_is_called_by_its_name() {
    let image = picture(64, 48);
    for (format, bytes) in files(&image) {
        let error = decode(&bytes[..bytes.len() / 2], &OPTIONS).expect_err("half a file");
        let named = matches!(error, DecodeError::Truncated { .. });
        assert!(named || matches!(error, DecodeError::Corrupt { .. }), "{format}: {error:?}");
        assert!(named || !matches!(format, Format::Jpeg | Format::Png), "{format}: {error:?}");
    }
}

/// A JPEG that lost data before its end marker is damaged, not cut: the marker is there.
#[test]
fn a_jpeg_without_its_middle_is_corrupt() {
    let bytes = jpeg(&picture(64, 48), false);
    let (kept, end) = (bytes.len() * 3 / 5, bytes.len() - 2);
    let hollow = [&bytes[..kept], &bytes[end..]].concat();
    let reason = "its coded data end before the last pixel".to_owned();
    assert_eq!(decode(&hollow, &OPTIONS), Err(DecodeError::Corrupt { format: Format::Jpeg, reason }));
    assert_eq!(decode(&bytes[..kept], &OPTIONS), Err(DecodeError::Truncated { format: Format::Jpeg }));
}

#[test]
fn junk_after_the_end_is_ignored() {
    for (format, mut bytes) in files(&picture(24, 24)) {
        let clean = decode(&bytes, &OPTIONS);
        bytes.extend(b"trailing junk \xFF\xD8\xFF\xD9");
        assert!(decode(&bytes, &OPTIONS) == clean, "{format}");
    }
}

#[test]
fn strangers_are_named() {
    assert_eq!(decode(b"", &OPTIONS), Err(DecodeError::Empty));
    let error = decode(b"just some notes about a picture", &OPTIONS).expect_err("text");
    assert_eq!(
        error.to_string(),
        "not a picture in a known format (JPEG, PNG, BMP, WebP, GIF, TIFF, PNM): it looks like text"
    );
}

#[test]
fn limits_hold_for_every_format() {
    for (format, bytes) in files(&picture(40, 30)) {
        let pixels = DecodeOptions { max_pixels: 1199, ..OPTIONS };
        let want = DecodeError::TooManyPixels { width: 40, height: 30, max_pixels: 1199 };
        assert_eq!(decode(&bytes, &pixels), Err(want.clone()), "{format}");
        assert_eq!(read_header(&bytes, &pixels), Err(want), "{format}");
        assert!(decode(&bytes, &DecodeOptions { max_pixels: 1200, ..OPTIONS }).is_ok(), "{format}");

        let n_bytes = bytes.len() as u64;
        let length = DecodeOptions { max_file_bytes: n_bytes - 1, ..OPTIONS };
        let want = DecodeError::FileTooLarge { bytes: n_bytes, max_file_bytes: n_bytes - 1 };
        assert_eq!(decode(&bytes, &length), Err(want), "{format}");
    }
}

/// Headers that promise 65,000 pixels a side: refused before anything is allocated for them.
#[test]
fn bombs_are_refused_by_their_header() {
    let image = picture(16, 16);
    let replaced = |mut bytes: Vec<u8>, at: usize, with: &[u8]| {
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    let jpeg = jpeg(&image, false);
    let frame = jpeg.windows(2).position(|pair| pair == b"\xFF\xC0").expect("a frame header");
    let gif = file(&dynamic(&image), ImageFormat::Gif);
    let bmp = file(&dynamic(&image), ImageFormat::Bmp);
    for (format, bomb) in [
        (Format::Jpeg, replaced(jpeg, frame + 5, &[0xFD, 0xE8, 0xFD, 0xE8])),
        (Format::Gif, replaced(gif, 6, &[0xE8, 0xFD, 0xE8, 0xFD])),
        (Format::Bmp, replaced(bmp, 18, &[0xE8, 0xFD, 0, 0, 0xE8, 0xFD, 0, 0])),
        (Format::Pnm, b"P6 65000 65000 255\n".to_vec()),
    ] {
        let error = decode(&bomb, &OPTIONS).expect_err("a bomb");
        let want = DecodeError::TooManyPixels { width: 65_000, height: 65_000, max_pixels: OPTIONS.max_pixels };
        assert_eq!(error, want, "{format}");
    }
    assert!(matches!(decode(b"P6 0 5 255\n", &OPTIONS), Err(DecodeError::Corrupt { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Damage gives an error or a picture of the promised sides, never a panic.
    #[test]
    fn damaged_files_do_not_panic(
        kind in 0_usize..8,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let (_, mut bytes) = files(&picture(20, 14)).swap_remove(kind);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        // A small limit, because damaged sides may be large.
        let options = DecodeOptions { max_pixels: 1 << 20, ..OPTIONS };
        match (read_header(&bytes, &options), decode(&bytes, &options)) {
            (Ok(header), Ok(image)) => {
                prop_assert_eq!((header.width, header.height), (image.width(), image.height()));
            }
            (Err(of_header), result) => prop_assert_eq!(result, Err(of_header)),
            (Ok(_), Err(error)) => {
                let of_header = matches!(error, DecodeError::TooManyPixels { .. } | DecodeError::UnknownFormat { .. });
                prop_assert!(!of_header, "{error}");
            }
        }
    }

    #[test]
    fn noise_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), signature in 0_usize..8) {
        let (_, file) = files(&picture(4, 4)).swap_remove(signature);
        let _ = decode(&[&file[..10], &bytes[..]].concat(), &DecodeOptions { max_pixels: 1 << 20, ..OPTIONS });
        prop_assert!(decode(&bytes, &OPTIONS).is_err());
    }
}
