//! `figure_png`: a figure as pixels.

use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb::Database};

use crate::Figure;

/// Roboto by Google, Apache License 2.0, cut down to the letters of European languages and the signs of figures.
const FONTS: [&[u8]; 2] = [include_bytes!("fonts/Roboto-Regular.ttf"), include_bytes!("fonts/Roboto-Medium.ttf")];

/// Why a figure cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FigurePngError {
    /// The text is no SVG.
    #[error("the figure `{name}` is no SVG file: {reason}")]
    Svg {
        /// The name of the figure.
        name: String,
        /// What the parser said.
        reason: resvg::usvg::Error,
    },
    /// There would be no pixel, or more than a buffer holds.
    #[error(
        "the figure `{name}` cannot be drawn with {zoom} pixels for each of its units: expected a size that memory holds"
    )]
    Size {
        /// The name of the figure.
        name: String,
        /// What was asked for.
        zoom: f32,
    },
    /// The pixels cannot be encoded.
    #[error("the figure `{name}` cannot be encoded as PNG: {reason}")]
    Encode {
        /// The name of the figure.
        name: String,
        /// What the encoder said.
        reason: String,
    },
}

/// The bytes of a PNG file with `zoom` pixels for each unit of the drawing, of which it has 480 across.
///
/// The letters are those of a font in the program, so that the same figure gives the same pixels on every machine.
///
/// # Errors
/// [`FigurePngError`].
/// # Cost
/// About 20 ms at `zoom` 2.
/// # Example
/// ```
/// use twoview_report::{Figure, figure_png};
///
/// let svg = r#"<svg xmlns="http://www.w3.org/2000/svg" width="4" height="2"><rect width="4" height="2"/></svg>"#;
/// let png = figure_png(&Figure { name: "bar".to_owned(), svg: svg.to_owned() }, 2.0)?;
/// assert!(png.starts_with(b"\x89PNG"));
/// # Ok::<(), twoview_report::FigurePngError>(())
/// ```
pub fn figure_png(figure: &Figure, zoom: f32) -> Result<Vec<u8>, FigurePngError> {
    let name = || figure.name.clone();
    let mut fonts = Database::new();
    FONTS.iter().for_each(|font| fonts.load_font_data(font.to_vec()));
    fonts.set_sans_serif_family("Roboto");
    let options = Options { font_family: "Roboto".to_owned(), fontdb: Arc::new(fonts), ..Options::default() };
    let tree = Tree::from_str(&figure.svg, &options).map_err(|reason| FigurePngError::Svg { name: name(), reason })?;
    let size = tree.size().scale_by(zoom).map(|size| size.to_int_size());
    let pixels = size.and_then(|size| Pixmap::new(size.width(), size.height()));
    let mut pixels = pixels.ok_or_else(|| FigurePngError::Size { name: name(), zoom })?;
    resvg::render(&tree, Transform::from_scale(zoom, zoom), &mut pixels.as_mut());
    pixels.encode_png().map_err(|reason| FigurePngError::Encode { name: name(), reason: reason.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Report, Section, StepRow, figures};

    /// Pixels that are neither white nor transparent, of a square of the picture.
    fn dark(pixels: &Pixmap, [left, top, right, bottom]: [u32; 4]) -> usize {
        let at = |x, y| pixels.pixel(x, y).is_some_and(|pixel| pixel.alpha() == 255 && pixel.red() < 128);
        (top..bottom).flat_map(|y| (left..right).map(move |x| (x, y))).filter(|&(x, y)| at(x, y)).count()
    }

    #[test]
    fn a_curve_is_drawn_with_its_words() {
        let row =
            |step: u16| StepRow { step: step.into(), loss: Some(5.0 - f32::from(step) / 40.0), ..StepRow::default() };
        let report = Report { steps: Section::Present((1..=80).map(row).collect()), ..Report::default() };
        let figure = figures(&report).remove(0);
        let png = figure_png(&figure, 2.0).expect("drawn");
        let pixels = Pixmap::decode_png(&png).expect("a PNG file");
        assert_eq!((pixels.width(), pixels.height()), (960, 620));
        // The title stands at the top left; without a font there would be none.
        assert!(dark(&pixels, [20, 10, 120, 50]) > 100, "{}", dark(&pixels, [20, 10, 120, 50]));
        assert!(dark(&pixels, [200, 100, 900, 500]) > 500);
        assert_eq!(figure_png(&figure, 2.0).expect("drawn"), png);
    }

    #[test]
    fn what_is_no_drawing_says_so() {
        let figure = |svg: &str| Figure { name: "loss".to_owned(), svg: svg.to_owned() };
        assert!(matches!(figure_png(&figure("words"), 1.0), Err(FigurePngError::Svg { .. })));
        let good = r#"<svg xmlns="http://www.w3.org/2000/svg" width="4" height="2"/>"#;
        for zoom in [0.0, -1.0, f32::NAN, 1e9] {
            assert!(matches!(figure_png(&figure(good), zoom), Err(FigurePngError::Size { .. })), "{zoom}");
        }
    }
}
