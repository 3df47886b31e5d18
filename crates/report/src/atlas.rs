//! Many thumbnails in a few JPEG files, and single pictures as the text of an address.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use twoview_pixels::{Image, Planes, Workspace, encode_png};

use crate::report::ReportError;
use crate::shrink::{shrunk, squared};

/// Thumbnails in squares of one size, in rows, on as many sheets as they need.
#[derive(Debug)]
pub(crate) struct Atlas {
    /// Side of a thumbnail in pixels, a multiple of 16: so no block of the JPEG files spans two of them. Decoders still
    /// blend the colours of the outermost pixels, which are therefore not to be shown.
    pub(crate) side_px: u32,
    /// Thumbnails in a row of a sheet.
    pub(crate) columns: u32,
    /// Thumbnails on a full sheet.
    pub(crate) per_sheet: u32,
    /// The sheets as `data:` addresses.
    pub(crate) sheets: Vec<String>,
}

/// Largest side of a sheet: what every browser can decode and draw, phones too.
const SHEET_PX: u32 = 2048;
/// Sizes and JPEG qualities to try, the finest first.
const FINENESS: [(u32, u8); 8] = [(64, 80), (64, 65), (48, 80), (48, 65), (32, 80), (32, 60), (16, 80), (16, 40)];

impl Atlas {
    /// The finest atlas that takes no more than `budget` bytes of JPEG; the coarsest if none does.
    ///
    /// # Errors
    /// [`ReportError::Encode`] if the encoder fails.
    pub(crate) fn new(thumbnails: &[&Image], budget: usize) -> Result<Atlas, ReportError> {
        let largest = thumbnails.iter().map(|image| image.width().min(image.height())).max().unwrap_or(1);
        let pixels = |side: u32| thumbnails.len() * (side * side) as usize;
        let mut tries = FINENESS.iter().copied().filter(|(side_px, quality)| {
            // No larger than the pictures are, and no try that cannot fit: a pixel takes over 0.15 bytes.
            (*side_px < largest + 16 || *side_px == 16) && (pixels(*side_px) * 3 / 20 < budget || *quality == 40)
        });
        let mut side_drawn = 0;
        let mut sheets: Vec<Image> = Vec::new();
        loop {
            let Some((side_px, quality)) = tries.next() else { unreachable!("the coarsest is always taken") };
            if side_px != side_drawn {
                (side_drawn, sheets) = (side_px, draw(thumbnails, side_px));
            }
            let files = sheets.iter().map(|sheet| jpeg(sheet, quality, SamplingFactor::F_2_2));
            let files: Vec<Vec<u8>> = files.collect::<Result<_, _>>()?;
            if files.iter().map(Vec::len).sum::<usize>() <= budget || (side_px, quality) == FINENESS[7] {
                let columns = SHEET_PX / side_px;
                let sheets = files.iter().map(|file| data_address("jpeg", file)).collect();
                return Ok(Atlas { side_px, columns, per_sheet: columns * columns, sheets });
            }
        }
    }
}

/// The sheets for thumbnails of a size.
fn draw(thumbnails: &[&Image], side_px: u32) -> Vec<Image> {
    let columns = (SHEET_PX / side_px) as usize;
    let (mut workspace, mut planes) = (Workspace::default(), Planes::default());
    let row_bytes = side_px as usize * 3;
    let sheet = |thumbnails: &[&Image]| {
        let wide = columns.min(thumbnails.len());
        let rows = thumbnails.len().div_ceil(columns);
        let stride = wide * row_bytes;
        let mut pixels = vec![127; stride * rows * side_px as usize];
        for (at, thumbnail) in thumbnails.iter().enumerate() {
            let small = squared(thumbnail, side_px, &mut workspace, &mut planes);
            let start = (at / columns) * side_px as usize * stride + (at % columns) * row_bytes;
            if small.width() == side_px {
                for (row, out) in small.as_rgb8().chunks_exact(row_bytes).zip(pixels[start..].chunks_mut(stride)) {
                    out[..row_bytes].copy_from_slice(row);
                }
            }
        }
        let sides = |count: usize| u32::try_from(count).unwrap_or(0) * side_px;
        Image::from_rgb8(sides(wide), sides(rows), pixels).unwrap_or_default()
    };
    thumbnails.chunks(columns * columns).map(sheet).collect()
}

/// A picture within a square of `side_px` as a `data:` address, as JPEG.
///
/// # Errors
/// [`ReportError::Encode`] if the encoder fails.
pub(crate) fn picture_address(image: &Image, side_px: u32) -> Result<(String, [u32; 2]), ReportError> {
    let small = shrunk(image, side_px, &mut Workspace::default());
    // Colours at full resolution: in a thumbnail each pixel counts.
    let file = jpeg(&small, 88, SamplingFactor::F_1_1)?;
    Ok((data_address("jpeg", &file), [small.width(), small.height()]))
}

/// A picture as it is, as the `data:` address of a PNG.
///
/// # Errors
/// [`ReportError::Encode`] if the encoder fails.
pub(crate) fn png_address(image: &Image) -> Result<String, ReportError> {
    let file = encode_png(image).map_err(|error| ReportError::Encode(error.to_string()))?;
    Ok(data_address("png", &file))
}

fn jpeg(image: &Image, quality: u8, sampling: SamplingFactor) -> Result<Vec<u8>, ReportError> {
    let failed = |reason: String| ReportError::Encode(format!("{}x{}: {reason}", image.width(), image.height()));
    let side = |side: u32| u16::try_from(side).map_err(|error| failed(error.to_string()));
    let (width, height) = (side(image.width())?, side(image.height())?);
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, quality);
    encoder.set_sampling_factor(sampling);
    encoder.encode(image.as_rgb8(), width, height, ColorType::Rgb).map_err(|error| failed(error.to_string()))?;
    Ok(file)
}

fn data_address(kind: &str, file: &[u8]) -> String {
    let mut address = format!("data:image/{kind};base64,");
    STANDARD.encode_string(file, &mut address);
    address
}

#[cfg(test)]
mod tests {
    use twoview_pixels::{DecodeOptions, decode};

    use super::*;

    #[test]
    fn every_thumbnail_is_where_it_is_looked_for() {
        let images: Vec<Image> = (0..1500_u32)
            .map(|at| {
                let shade = u8::try_from(at % 4 * 80).expect("a shade");
                Image::filled(60, 70, [shade, 255 - shade, 40]).expect("a valid size")
            })
            .collect();
        let atlas = Atlas::new(&images.iter().collect::<Vec<_>>(), 1 << 20).expect("an atlas");
        assert_eq!((atlas.side_px, atlas.columns, atlas.sheets.len()), (64, 32, 2));
        let file = atlas.sheets[1].strip_prefix("data:image/jpeg;base64,").expect("a JPEG address");
        let sheet = decode(&STANDARD.decode(file).expect("base64"), &DecodeOptions::STANDARD).expect("a JPEG");
        for at in 1024..1500_u32 {
            let (column, row) = (at % 1024 % 32, at % 1024 / 32);
            for (x, y) in [(1, 1), (62, 62), (31, 32)] {
                let place = 3 * ((row * 64 + y) * sheet.width() + column * 64 + x) as usize;
                let want = images[at as usize].as_rgb8();
                let close = sheet.as_rgb8()[place..].iter().zip(&want[..3]).all(|(a, b)| a.abs_diff(*b) <= 6);
                assert!(close, "picture {at} at ({x}, {y}): {:?}", &sheet.as_rgb8()[place..place + 3]);
            }
        }
    }

    #[test]
    fn the_budget_decides_the_size() {
        // Noise is what JPEG is worst at.
        let mut state = 1_u32;
        let mut noise = |side: u32| {
            let bytes = (0..side * side * 3).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            });
            Image::from_rgb8(side, side, bytes.collect()).expect("a valid size")
        };
        let images: Vec<Image> = (0..64).map(|_| noise(64)).collect();
        let refs: Vec<&Image> = images.iter().collect();
        let fine = Atlas::new(&refs, 10 << 20).expect("an atlas");
        let coarse = Atlas::new(&refs, 20_000).expect("an atlas");
        assert_eq!((fine.side_px, coarse.side_px), (64, 32));
        assert!(coarse.sheets.iter().map(String::len).sum::<usize>() < 27_000);
        assert!(Atlas::new(&[], 100).expect("no picture, no sheet").sheets.is_empty());
    }
}
