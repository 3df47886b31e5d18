//! TIFF files against Pillow: the pictures in `pillow_tiff/` were made by the script there.

use std::fs;
use std::path::Path;

use twoview_pixels::{DecodeError, DecodeOptions, Format, Image, decode, read_header, states_a_turn};

const UPRIGHT: DecodeOptions = DecodeOptions { exif_rotate: true, ..DecodeOptions::STANDARD };

fn file(name: &str) -> Vec<u8> {
    fs::read(Path::new("tests/pillow_tiff").join(name)).expect("a readable file")
}

#[track_caller]
fn check(name: &str, options: &DecodeOptions) -> Image {
    let tiff = file(&format!("{name}.tif"));
    let got = decode(&tiff, options).unwrap_or_else(|error| panic!("{name}: {error}"));
    let want = decode(&file(&format!("{name}.png")), options).expect("a picture");
    assert!(got == want, "{name}: {}x{}, expected {}x{}", got.width(), got.height(), want.width(), want.height());
    got
}

#[test]
fn palettes_are_pillows_colours() {
    for bits in [1, 2, 4, 8] {
        check(&format!("palette_{bits}"), &DecodeOptions::STANDARD);
        // In the byte order of Motorola.
        check(&format!("palette_{bits}_tiles"), &DecodeOptions::STANDARD);
    }
    check("palette_lzw", &DecodeOptions::STANDARD);
    check("palette_deflate", &DecodeOptions::STANDARD);
}

/// Pillow turns a tagged TIFF file without being asked.
#[test]
fn asked_to_turn_a_file_is_turned_as_by_pillow() {
    for orientation in 1..=8 {
        let name = format!("turned_{orientation}");
        let turned = check(&name, &UPRIGHT);
        let tiff = file(&format!("{name}.tif"));
        let stored = decode(&tiff, &DecodeOptions::STANDARD).expect("a picture");
        assert_eq!((stored.width(), stored.height()), (7, 5), "{name}");
        assert_eq!((stored != turned, states_a_turn(&tiff)), (orientation != 1, orientation != 1), "{name}");
    }
    check("palette_turned", &UPRIGHT);
    assert!(states_a_turn(&file("palette_turned.tif")) && !states_a_turn(&file("palette_4.tif")));
}

#[test]
fn a_broken_palette_is_an_error_of_its_own() {
    let whole = file("palette_4.tif");
    let options = &DecodeOptions::STANDARD;
    // The directory lies at the end, so a cut file has lost it.
    for length in [0, 4, 7, 9, 100, whole.len() / 2, whole.len() - 30] {
        assert!(decode(&whole[..length], options).is_err(), "cut to {length}");
    }
    // An entry of a tag, of 16-bit numbers, with another count or value.
    let with = |tag: u8, count: u8, value: u8| {
        let mut bytes = whole.clone();
        let entry = whole.windows(8).rposition(|entry| *entry == [tag, 1, 3, 0, 1, 0, 0, 0]).expect("the tag is there");
        (bytes[entry + 4], bytes[entry + 8]) = (count, value);
        bytes
    };
    for (what, bytes) in
        [("16 bits", with(2, 1, 16)), ("a depth for each sample", with(2, 2, 8)), ("2 samples", with(21, 1, 2))]
    {
        let error = read_header(&bytes, options).expect_err(what);
        assert!(matches!(error, DecodeError::Unsupported { format: Format::Tiff, .. }), "{what}: {error:?}");
    }
    let error = decode(&with(2, 1, 2), options).expect_err("a table of 16 colours for 2 bits");
    assert!(matches!(error, DecodeError::Corrupt { format: Format::Tiff, .. }), "{error:?}");
}

/// Damage of any byte is an error or a picture of the promised sides.
#[test]
fn damaged_palettes_do_not_panic() {
    let whole = file("palette_2_tiles.tif");
    let options = DecodeOptions { max_pixels: 1 << 16, ..DecodeOptions::STANDARD };
    for at in 0..whole.len() {
        for value in [0, 1, 3, 0x7F, 0xFF] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            match (read_header(&bytes, &options), decode(&bytes, &options)) {
                (Ok(header), Ok(image)) => {
                    assert_eq!((header.width, header.height), (image.width(), image.height()), "byte {at} = {value}");
                }
                (Err(of_header), got) => assert_eq!(got, Err(of_header), "byte {at} = {value}"),
                (Ok(_), Err(error)) => {
                    let panicked = matches!(error, DecodeError::DecoderPanicked { .. });
                    assert!(!panicked, "byte {at} = {value}: {error}");
                }
            }
        }
    }
}
