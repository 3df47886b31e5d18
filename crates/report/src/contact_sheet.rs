//! A sheet of pictures in rows, each with words below it.

use std::convert::Infallible;

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_6X10;
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Pixel, Point, RgbColor, Size};
use embedded_graphics::text::{Baseline, Text};
use twoview_pixels::{Image, ImageError, Workspace};

use crate::shrink::shrunk;

/// A picture of a sheet and what is written below it.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Shown as large as fits; a small one is enlarged by a whole number, pixel by pixel.
    pub picture: Image,
    /// Wrapped to the width of the cell. Signs that are not ASCII show as `?`.
    pub caption: String,
}

/// Why a sheet cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SheetError {
    /// There is nothing to show.
    #[error("a contact sheet needs at least one picture, got none")]
    Empty,
    /// So much that no buffer holds the sheet.
    #[error("the contact sheet is too large: {0}")]
    TooLarge(ImageError),
}

/// Pixels around and between cells.
const MARGIN_PX: u32 = 12;
/// Least side of a cell: words need some width.
const CELL_PX: u32 = 168;
const LETTER_PX: (u32, u32) = (6, 12);
const PAPER: [u8; 3] = [250; 3];

/// Draws rows of cells: dark words on light paper, every cell as large as the largest picture of `side_px`.
///
/// `side_px` is the side that pictures are made to fit; it is raised to the width that words need.
///
/// # Errors
/// [`SheetError`] if there is no cell, or the sheet would exceed what a buffer can hold.
///
/// # Example
/// ```
/// use twoview_pixels::Image;
/// use twoview_report::{Cell, contact_sheet};
///
/// let cell = Cell { picture: Image::filled(32, 32, [200, 30, 30])?, caption: "crop 20x20 at (3, 5)".to_owned() };
/// let sheet = contact_sheet(&[vec![cell.clone(), cell]], 32)?;
/// assert!(sheet.width() > 2 * 160);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn contact_sheet(rows: &[Vec<Cell>], side_px: u32) -> Result<Image, SheetError> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    if columns == 0 {
        return Err(SheetError::Empty);
    }
    let zoom = CELL_PX.div_ceil(side_px.max(1)).max(1);
    let cell_px = side_px.max(1).saturating_mul(zoom);
    let letters = (cell_px / LETTER_PX.0).max(1) as usize;
    let captions: Vec<Vec<Vec<String>>> =
        rows.iter().map(|row| row.iter().map(|cell| wrapped(&cell.caption, letters)).collect()).collect();
    let row_heights: Vec<u32> = captions
        .iter()
        .map(|row| {
            let lines = row.iter().map(Vec::len).max().unwrap_or(0);
            cell_px + 4 + u32::try_from(lines).unwrap_or(u32::MAX).saturating_mul(LETTER_PX.1) + MARGIN_PX
        })
        .collect();
    let columns = u32::try_from(columns).unwrap_or(u32::MAX);
    let width = columns.saturating_mul(cell_px + MARGIN_PX).saturating_add(MARGIN_PX);
    let height = row_heights.iter().fold(MARGIN_PX, |sum, height| sum.saturating_add(*height));
    let mut sheet = Sheet(Image::filled(width, height, PAPER).map_err(SheetError::TooLarge)?);

    let mut workspace = Workspace::default();
    let mut top = MARGIN_PX;
    for ((row, captions), row_height) in rows.iter().zip(&captions).zip(row_heights) {
        for ((cell, lines), column) in row.iter().zip(captions).zip(0..) {
            let left = MARGIN_PX + column * (cell_px + MARGIN_PX);
            sheet.paste(&fitted(&cell.picture, cell_px, &mut workspace), left, top);
            for (line, words) in lines.iter().enumerate() {
                let y = top + cell_px + 4 + u32::try_from(line).unwrap_or(0) * LETTER_PX.1;
                sheet.write(words, left, y);
            }
        }
        top += row_height;
    }
    Ok(sheet.0)
}

/// The picture within a square: enlarged by a whole number if it is small, else shrunk.
fn fitted(picture: &Image, side_px: u32, workspace: &mut Workspace) -> Image {
    let (width, height) = (picture.width(), picture.height());
    let long = width.max(height);
    if long <= side_px {
        return enlarged(picture, side_px / long);
    }
    shrunk(picture, side_px, workspace)
}

fn enlarged(picture: &Image, zoom: u32) -> Image {
    let (width, zoom_px) = (picture.width() as usize, zoom as usize);
    let mut pixels = Vec::with_capacity(picture.as_rgb8().len() * zoom_px * zoom_px);
    for row in picture.as_rgb8().chunks_exact(3 * width) {
        let wide: Vec<u8> = row.chunks_exact(3).flat_map(|pixel| pixel.repeat(zoom_px)).collect();
        (0..zoom).for_each(|_| pixels.extend_from_slice(&wide));
    }
    Image::from_rgb8(picture.width() * zoom, picture.height() * zoom, pixels).unwrap_or_default()
}

/// Lines of at most so many letters, broken between words where possible.
fn wrapped(text: &str, letters: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: String = word.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
        while let Some(line) = lines.last_mut() {
            let space = usize::from(!line.is_empty());
            if line.len() + space + word.len() <= letters {
                if space == 1 {
                    line.push(' ');
                }
                line.push_str(&word);
                break;
            }
            if line.is_empty() {
                // A word longer than a line is cut.
                let rest = word.split_off(letters.min(word.len()));
                line.push_str(&word);
                word = rest;
            }
            lines.push(String::new());
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

/// A picture that can be drawn on.
struct Sheet(Image);

impl Sheet {
    fn paste(&mut self, picture: &Image, left: u32, top: u32) {
        let (stride, width) = (self.0.width() as usize * 3, picture.width() as usize * 3);
        let start = top as usize * stride + left as usize * 3;
        let rows = picture.as_rgb8().chunks_exact(width);
        for (row, out) in rows.zip(self.0.as_rgb8_mut()[start..].chunks_mut(stride)) {
            out[..width].copy_from_slice(row);
        }
    }

    fn write(&mut self, words: &str, left: u32, top: u32) {
        let style = MonoTextStyle::new(&FONT_6X10, Rgb888::new(60, 60, 60));
        let place = Point::new(i32::try_from(left).unwrap_or(i32::MAX), i32::try_from(top).unwrap_or(i32::MAX));
        match Text::with_baseline(words, place, style, Baseline::Top).draw(self) {
            Ok(_) => {}
            Err(never) => match never {},
        }
    }
}

impl OriginDimensions for Sheet {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Sheet {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        let (width, height) = (self.0.width(), self.0.height());
        for Pixel(Point { x, y }, color) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
                && x < width
                && y < height
            {
                let at = 3 * (y as usize * width as usize + x as usize);
                self.0.as_rgb8_mut()[at..at + 3].copy_from_slice(&[color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(width: u32, height: u32, caption: &str) -> Cell {
        let picture = Image::filled(width, height, [10, 20, 30]).expect("a valid size");
        Cell { picture, caption: caption.to_owned() }
    }

    #[test]
    fn small_pictures_are_enlarged_pixel_by_pixel() {
        let picture = Image::from_rgb8(2, 1, vec![1, 2, 3, 4, 5, 6]).expect("a valid size");
        let larger = enlarged(&picture, 2);
        assert_eq!(larger.as_rgb8(), [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6].repeat(2));
    }

    #[test]
    fn words_are_wrapped_and_cut() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrapped("", 4), [""; 0]);
        assert_eq!(wrapped("naïve", 9), ["na?ve"]);
    }

    #[test]
    fn every_cell_has_its_place() {
        let rows = [vec![cell(32, 32, "a b"), cell(300, 20, "long ".repeat(60).trim())], vec![cell(1, 1, "")]];
        let sheet = contact_sheet(&rows, 32).expect("a sheet");
        let side = 6 * 32; // The smallest multiple of 32 that is at least 168.
        assert_eq!(sheet.width(), 2 * (side + 12) + 12);
        let at = |x: u32, y: u32| {
            let at = 3 * (y * sheet.width() + x) as usize;
            [sheet.as_rgb8()[at], sheet.as_rgb8()[at + 1], sheet.as_rgb8()[at + 2]]
        };
        assert_eq!(at(12, 12), [10, 20, 30]);
        assert_eq!(at(12 + side - 1, 12 + side - 1), [10, 20, 30]);
        assert_eq!(at(5, 5), PAPER);
        // Some of the words are there.
        let below = (0..side).flat_map(|x| (0..12).map(move |y| (12 + x, 12 + side + 4 + y)));
        assert!(below.into_iter().any(|(x, y)| at(x, y) != PAPER));
        assert_eq!(contact_sheet(&[], 32), Err(SheetError::Empty));
    }
}
