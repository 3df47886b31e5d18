//! Pillow's blur against Pillow: the pictures in `pillow_blur/` were made by the script there.

use std::fs;
use std::path::PathBuf;

use twoview_pixels::{BlurKind, DecodeOptions, Image, Instructions, Planes, Workspace, decode, gaussian_blur};

fn picture(name: &str) -> Image {
    let path = PathBuf::from("tests/pillow_blur").join(name);
    decode(&fs::read(&path).expect("a readable file"), &DecodeOptions::STANDARD).expect("a picture")
}

#[test]
fn three_boxes_are_pillows_bytes() {
    let input = picture("input.png");
    for sigma in ["0.1", "0.5", "1.3", "2.0", "7.5"] {
        let want = picture(&format!("sigma_{sigma}.png"));
        for instructions in Instructions::available() {
            let mut planes = Planes::from(&input);
            let workspace = &mut Workspace::new(instructions);
            gaussian_blur(&mut planes, BlurKind::Pillow, 0, sigma.parse().expect("a number"), workspace);
            let got = planes.to_image();
            let worst = got.as_rgb8().iter().zip(want.as_rgb8()).map(|(a, b)| a.abs_diff(*b)).max();
            assert_eq!(worst, Some(0), "sigma {sigma} by {instructions:?}");
        }
    }
}
