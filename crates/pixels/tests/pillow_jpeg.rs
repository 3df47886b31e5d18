//! JPEG files against Pillow: the pictures in `pillow_jpeg/` were made by the script there.

use std::fs;
use std::path::Path;

use twoview_pixels::{DecodeOptions, Image, decode};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

const KINDS: [&str; 8] =
    ["subsampled_420", "subsampled_422", "subsampled_444", "coarse", "progressive", "restarts", "grey", "cmyk"];

fn file(name: &str) -> Vec<u8> {
    fs::read(Path::new("tests/pillow_jpeg").join(name)).expect("a readable file")
}

fn picture(name: &str) -> Image {
    decode(&file(name), &DecodeOptions::STANDARD).expect("a picture")
}

fn worst(got: &[u8], want: &[u8]) -> u8 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(a, b)| a.abs_diff(*b)).max().expect("pixels")
}

#[test]
fn pixels_are_pillows_bytes() {
    for kind in KINDS {
        let (got, want) = (picture(&format!("{kind}.jpg")), picture(&format!("{kind}.png")));
        assert_eq!((got.width(), got.height()), (want.width(), want.height()), "{kind}");
        assert_eq!(worst(got.as_rgb8(), want.as_rgb8()), 0, "{kind}");
    }
}

/// A decoder with which ours shares no line. It rounds its own way, so some levels of difference are nobody's fault.
#[test]
fn another_decoder_sees_the_same_picture() {
    for kind in KINDS.into_iter().filter(|&kind| kind != "cmyk") {
        let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file(&format!("{kind}.jpg"))), options);
        let want = decoder.decode().expect("a picture");
        let difference = worst(picture(&format!("{kind}.jpg")).as_rgb8(), &want);
        assert!(difference <= 8, "{kind}: {difference} levels");
    }
}
