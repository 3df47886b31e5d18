//! Pictures and the deterministic kernels that turn one into a view.
//!
//! ```text
//! bytes of a file -> Image (RGB interleaved) -> resized_crop -> Planes (RGB apart) -> colours, blur -> Normalize -> f32
//! ```
//!
//! [`decode`] makes an [`Image`] within [`DecodeOptions`]; [`resized_crop`] cuts [`Planes`] out of it; the other kernels
//! ([`apply_colors`], [`gaussian_blur`], ...) change those; a [`Normalize`] writes them as the numbers a network reads.
//! `twoview-augment` decides *which* kernels run with which parameters, `twoview-data` calls [`decode`]; this crate draws
//! no random number and knows no tensor library.
//!
//! Every kernel has the semantics of torchvision's eight-bit tensors, and resampling those of Pillow, because
//! published results were obtained with them. Each rounds back to eight bits. They use integer arithmetic, the exact
//! IEEE operations of `f32` and `f64` (fused where the source says `mul_add`, nowhere else) and `libm`, so that every
//! platform and every set of [`Instructions`] makes the same bytes.
//!
//! ```
//! use twoview_pixels::{CropBox, DecodeOptions, Filter, Image, Planes, Workspace, decode, encode_png, resized_crop};
//!
//! let file = encode_png(&Image::filled(640, 480, [200, 30, 30])?)?;
//! let image = decode(&file, &DecodeOptions::STANDARD)?;
//! let middle = CropBox { top: 120, left: 160, height: 240, width: 320 };
//! let (mut workspace, mut view) = (Workspace::default(), Planes::default());
//! resized_crop(&image, middle, 32, 32, Filter::Bilinear, false, &mut workspace, &mut view)?;
//! assert_eq!(view, Planes::filled(32, 32, [200, 30, 30])?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blur;
mod color;
mod decode;
mod encode;
mod flip;
mod format;
mod image;
mod instructions;
mod jpeg;
mod normalize;
mod palette_tiff;
mod planes;
mod plausible;
mod resample;
mod transpose;
mod workspace;

pub use crate::blur::{BlurKind, gaussian_blur};
pub use crate::color::{ColorOp, apply_colors};
pub use crate::decode::{DecodeError, DecodeOptions, Header, decode, decode_into, read_header, states_a_turn};
pub use crate::encode::{EncodeError, encode_png};
pub use crate::flip::{horizontal_flip, quarter_turn, vertical_flip};
pub use crate::format::Format;
pub use crate::image::{Image, ImageError};
pub use crate::instructions::Instructions;
pub use crate::normalize::{Normalize, NormalizeError};
pub use crate::planes::Planes;
pub use crate::resample::{CropBox, CropError, Filter, MAX_SIDE_PX, resize_center_crop, resized_crop};
pub use crate::workspace::Workspace;
