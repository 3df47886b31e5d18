//! The body of the fuzz target `decode` on seeds and on thousands of damaged copies of them, in seconds and without a fuzzer.

mod decode_target;
mod mutate;

use std::io::Cursor;

use decode_target::decode_target;
use image::{DynamicImage, GrayImage, ImageFormat, RgbImage, RgbaImage};
use jpeg_encoder::{ColorType, Encoder};
use mutate::{Numbers, damaged};

const SIDE: u32 = 24;

/// A file of each format, and of the flavours that take other roads through a decoder.
fn seeds() -> Vec<Vec<u8>> {
    let value = |x: u32, y: u32, c: u32| u8::try_from((x * 9 + y * 5 + c * 70) % 256).expect("below 256");
    let rgb = RgbImage::from_fn(SIDE, SIDE, |x, y| image::Rgb([value(x, y, 0), value(x, y, 1), value(x, y, 2)]));
    let rgba = RgbaImage::from_fn(SIDE, SIDE, |x, y| image::Rgba([value(x, y, 0), value(x, y, 1), 7, value(x, y, 2)]));
    let gray = GrayImage::from_fn(SIDE, SIDE, |x, y| image::Luma([value(x, y, 0)]));
    let gray16 = DynamicImage::ImageLuma8(gray.clone()).into_luma16();
    let encoded = |image: DynamicImage, format| {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).expect("encodable");
        bytes.into_inner()
    };
    let mut seeds = Vec::new();
    for format in
        [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Tiff, ImageFormat::Pnm]
    {
        seeds.push(encoded(rgb.clone().into(), format));
    }
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff, ImageFormat::Bmp] {
        seeds.push(encoded(rgba.clone().into(), format));
    }
    seeds.push(encoded(gray.into(), ImageFormat::Png));
    seeds.push(encoded(gray16.into(), ImageFormat::Png));
    let side = u16::try_from(SIDE).expect("small");
    let cmyk: Vec<u8> = rgba.as_raw().clone();
    for (color, pixels, progressive) in
        [(ColorType::Rgb, rgb.as_raw(), false), (ColorType::Rgb, rgb.as_raw(), true), (ColorType::Cmyk, &cmyk, false)]
    {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 90);
        encoder.set_progressive(progressive);
        encoder.encode(pixels, side, side, color).expect("encodable");
        seeds.push(bytes);
    }
    seeds.push(b"P1 3 2 1 0 1 0 1 0".to_vec());
    seeds.push(b"P5 2 2 65535 12345678".to_vec());
    seeds
}

#[test]
fn damaged_files_are_pictures_or_errors() {
    let mut numbers = Numbers(0);
    let (mut pictures, mut errors) = (0, 0);
    let mut count = |is_picture| if is_picture { pictures += 1 } else { errors += 1 };
    for seed in seeds() {
        decode_target(&seed);
        for _ in 0..2000 {
            count(decode_target(&damaged(&seed, &mut numbers)));
        }
    }
    // Both roads were taken often, or the damage is too little or too much to find anything.
    assert!(pictures > 500 && errors > 500, "{pictures} pictures, {errors} errors");
}

#[test]
fn noise_behind_every_signature_is_an_error_or_a_picture() {
    let mut numbers = Numbers(1);
    for seed in seeds() {
        for n_kept in [2, 4, 8, 16, 32] {
            for _ in 0..10 {
                let mut bytes = seed[..n_kept.min(seed.len())].to_vec();
                bytes.extend((0..200).map(|_| numbers.byte()));
                decode_target(&bytes);
            }
        }
    }
    decode_target(b"");
}
