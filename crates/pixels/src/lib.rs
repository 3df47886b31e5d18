//! Pictures and the deterministic kernels that turn one into a view.
//!
//! The main type is [`Image`], eight-bit RGB in one buffer. [`decode`] makes one from the bytes of a file, within
//! [`DecodeLimits`]; the kernels ([`resized_crop`], [`brightness`], [`gaussian_blur`], ...) change it; a
//! [`Normalize`] writes it as the numbers a network reads. `twoview-augment` decides *which* kernels run with which
//! parameters, `twoview-data` calls [`decode`]; this crate draws no random number and knows no tensor library.
//!
//! Every kernel has the semantics of torchvision's eight-bit tensors, and resampling those of Pillow, because
//! published results were obtained with them. Each rounds back to eight bits. They use integer arithmetic, the exact
//! IEEE operations of `f32` and `f64` (no fused multiply-add) and `libm`, so that every platform makes the same bytes.
//!
//! ```
//! use twoview_pixels::{CropBox, DecodeLimits, Filter, Image, decode, encode_png, resized_crop};
//!
//! let file = encode_png(&Image::filled(640, 480, [200, 30, 30])?)?;
//! let image = decode(&file, &DecodeLimits::STANDARD)?;
//! let middle = CropBox { top: 120, left: 160, height: 240, width: 320 };
//! let view = resized_crop(&image, middle, 32, 32, Filter::Bilinear)?;
//! assert_eq!(view, Image::filled(32, 32, [200, 30, 30])?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blur;
mod color;
mod decode;
mod encode;
mod flip;
mod format;
mod image;
mod jpeg;
mod normalize;
mod plausible;
mod resample;

pub use crate::blur::gaussian_blur;
pub use crate::color::{brightness, contrast, grayscale, hue, saturation, solarize};
pub use crate::decode::{DecodeError, DecodeLimits, Header, decode, decode_into, read_header};
pub use crate::encode::{EncodeError, encode_png};
pub use crate::flip::horizontal_flip;
pub use crate::format::Format;
pub use crate::image::{Image, ImageError};
pub use crate::normalize::{Normalize, NormalizeError};
pub use crate::resample::{CropBox, CropError, Filter, MAX_SIDE_PX, resize_center_crop, resized_crop};
