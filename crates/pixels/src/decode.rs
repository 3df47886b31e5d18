//! From the bytes of a file to an [`Image`], within limits that hold before anything is allocated.

use std::io::{Cursor, ErrorKind};
use std::panic::{self, AssertUnwindSafe};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::format::describe_unknown;
use crate::palette_tiff::PaletteTiff;
use crate::{Format, Image, ImageError, jpeg, plausible};

/// How much a single file may cost, and which way up its picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Longest file in bytes.
    pub max_file_bytes: u64,
    /// Most pixels, width times height, according to the header.
    pub max_pixels: u64,
    /// Turn the picture as the orientation in its EXIF data says, which cameras write instead of turning it themselves;
    /// of a TIFF file as its own tag says. torchvision and Pillow ignore it, save that Pillow always turns TIFF files.
    pub exif_rotate: bool,
}

impl DecodeOptions {
    /// 64 MiB of file, 100 million pixels: above any camera, below what exhausts a small machine. EXIF data is ignored.
    pub const STANDARD: DecodeOptions =
        DecodeOptions { max_file_bytes: 64 << 20, max_pixels: 100_000_000, exif_rotate: false };
}

/// What a file says about itself before its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// By content, not by extension.
    pub format: Format,
    /// Pixels per row as stored, not turned by an EXIF orientation.
    pub width: u32,
    /// Number of rows as stored.
    pub height: u32,
}

/// Why a file is not a usable picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// The file is longer than [`DecodeOptions::max_file_bytes`].
    #[error("the file has {bytes} bytes, the limit is {max_file_bytes}")]
    FileTooLarge {
        /// Length of the file.
        bytes: u64,
        /// The limit it broke.
        max_file_bytes: u64,
    },
    /// The header promises more pixels than [`DecodeOptions::max_pixels`].
    #[error("the picture has {width}x{height} pixels, the limit is {max_pixels} in total")]
    TooManyPixels {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// The limit they broke.
        max_pixels: u64,
    },
    /// A large picture in so few bytes that it can be no picture of anything.
    #[error(
        "the {format} file promises {width}x{height} pixels and has {bytes} bytes for them, fewer than any photograph: \
         refused as a decompression bomb"
    )]
    Bomb {
        /// Format by content.
        format: Format,
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// The bytes that hold the pixels.
        bytes: u64,
    },
    /// The first bytes belong to none of the formats.
    #[error("not a picture in a known format (JPEG, PNG, BMP, WebP, GIF, TIFF, PNM): {found}")]
    UnknownFormat {
        /// What the bytes seem to be instead: `it looks like text`.
        found: String,
    },
    /// The file ends before its last pixel.
    #[error("the {format} file is truncated: its end is missing")]
    Truncated {
        /// Format by content.
        format: Format,
    },
    /// The file breaks the rules of its format.
    #[error("the {format} file is corrupt: {reason}")]
    Corrupt {
        /// Format by content.
        format: Format,
        /// What the decoder said.
        reason: String,
    },
    /// The file may be sound, but this kind of it cannot be read.
    #[error("this kind of {format} is not supported: {reason}; convert it to PNG or plain JPEG")]
    Unsupported {
        /// Format by content.
        format: Format,
        /// What the decoder said.
        reason: String,
    },
    /// The decoder itself failed on the file. The panic was caught; its message also went through the panic hook.
    #[error("the {format} decoder panicked: {reason}")]
    DecoderPanicked {
        /// Format by content.
        format: Format,
        /// The message of the panic.
        reason: String,
    },
}

/// Reads the format and the sides, without decoding the pixels.
///
/// The content decides the format; the name of the file plays no part.
///
/// # Errors
/// [`DecodeError`]. A header that breaks a limit is an error here already, so that a caller who knows a file's
/// header may call [`decode`] without fear of its memory.
///
/// # Example
/// ```
/// use twoview_pixels::{DecodeError, DecodeOptions, Format, Image, encode_png, read_header};
///
/// let file = encode_png(&Image::filled(30, 20, [9; 3])?)?;
/// let header = read_header(&file, &DecodeOptions::STANDARD)?;
/// assert_eq!((header.format, header.width, header.height), (Format::Png, 30, 20));
///
/// let tight = DecodeOptions { max_pixels: 599, ..DecodeOptions::STANDARD };
/// assert!(matches!(read_header(&file, &tight), Err(DecodeError::TooManyPixels { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_header(bytes: &[u8], options: &DecodeOptions) -> Result<Header, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.len() as u64 > options.max_file_bytes {
        return Err(DecodeError::FileTooLarge { bytes: bytes.len() as u64, max_file_bytes: options.max_file_bytes });
    }
    let format = Format::of(bytes).ok_or_else(|| DecodeError::UnknownFormat { found: describe_unknown(bytes) })?;
    plausible::check_before_header(bytes, format)?;
    let (width, height) = catching_panics(format, || match format {
        Format::Jpeg => jpeg::dimensions(bytes),
        other => match palette_of(bytes, other) {
            Some(palette) => palette.dimensions(),
            None => {
                let decoder = reader(bytes, other, HEADER_ALLOCATION).into_decoder();
                Ok(decoder.map_err(|error| failure(other, &error))?.dimensions())
            }
        },
    })?;
    if width == 0 || height == 0 {
        return Err(DecodeError::Corrupt { format, reason: format!("its sides are {width}x{height}") });
    }
    if u64::from(width) * u64::from(height) > options.max_pixels {
        return Err(DecodeError::TooManyPixels { width, height, max_pixels: options.max_pixels });
    }
    Ok(Header { format, width, height })
}

/// Decodes the picture of a file; of an animation the first frame.
///
/// # Conventions
/// Everything becomes eight-bit RGB. A JPEG gives the bytes that libjpeg-turbo, and so Pillow, makes of it. Grey is
/// repeated over the channels, palettes and CMYK are converted (of the 16 bits of a palette in TIFF the higher 8), an
/// alpha channel is dropped and not composited (as Pillow's `convert("RGB")` does), sixteen bits are scaled to eight
/// (Pillow saturates sixteen-bit grey to white instead). Colour profiles are ignored, as torchvision ignores them, and
/// so is the EXIF orientation unless [`DecodeOptions::exif_rotate`] asks for it; a broken one turns nothing.
///
/// # Errors
/// [`DecodeError`]. Truncated data is an error and never a half-grey picture; a JPEG that lacks nothing but its end
/// marker is accepted. Corruption that leaves a decodable file (a flipped bit in a JPEG) cannot be noticed.
/// A panic inside a decoder is caught and reported as an error; this needs the default `panic = "unwind"`.
///
/// # Cost
/// For a JPEG mostly its compressed length. Memory stays within about 16 bytes per pixel of the header, and a header
/// that promises more than two million pixels is believed only if the file has a byte for every 1024 of them. A JPEG
/// without its end marker is decoded twice, to tell whether more than the marker is missing.
///
/// # Example
/// ```
/// use twoview_pixels::{DecodeError, DecodeOptions, decode};
///
/// let error = decode(b"<html>Not Found</html>", &DecodeOptions::STANDARD).unwrap_err();
/// assert!(error.to_string().ends_with("it looks like a web page, perhaps the error page of a failed download"));
/// ```
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Image, DecodeError> {
    let mut image = Image::default();
    decode_into(bytes, options, &mut image)?;
    Ok(image)
}

/// [`decode`] into a picture whose memory is used again. After an error it holds a picture of no meaning.
///
/// # Errors
/// As [`decode`].
pub fn decode_into(bytes: &[u8], options: &DecodeOptions, image: &mut Image) -> Result<(), DecodeError> {
    let header = read_header(bytes, options)?;
    let Header { format, width, height } = header;
    plausible::check(bytes, header)?;
    catching_panics(format, || match format {
        Format::Jpeg => jpeg::decode_into(bytes, header, image),
        other => {
            // 16 bytes per pixel are RGBA in f32, the widest there is; a slack for tables and small pictures.
            let allocation = (u64::from(width) * u64::from(height)).saturating_mul(16) + HEADER_ALLOCATION;
            if let Some(palette) = palette_of(bytes, format) {
                *image = palette.decode(bytes, header, allocation)?;
                return Ok(());
            }
            let decoded = reader(bytes, other, allocation).decode().map_err(|error| failure(other, &error))?;
            *image = Image::from_rgb8(width, height, DynamicImage::into_rgb8(decoded).into_raw())
                .map_err(|error: ImageError| DecodeError::Corrupt { format, reason: error.to_string() })?;
            Ok(())
        }
    })?;
    if options.exif_rotate {
        catching_panics(format, || {
            turn(image, orientation(bytes, format));
            Ok(())
        })?;
    }
    Ok(())
}

/// What a TIFF file says whose colours stand in a table.
fn palette_of(bytes: &[u8], format: Format) -> Option<PaletteTiff> {
    if format == Format::Tiff { PaletteTiff::find(bytes) } else { None }
}

/// Whether [`DecodeOptions::exif_rotate`] changes the picture of this file: it states an orientation other than upright.
///
/// ```
/// use twoview_pixels::{Image, encode_png, states_a_turn};
/// assert!(!states_a_turn(&encode_png(&Image::filled(3, 2, [9; 3])?)?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn states_a_turn(bytes: &[u8]) -> bool {
    let Some(format) = Format::of(bytes) else { return false };
    let stated = catching_panics(format, || Ok(orientation(bytes, format)));
    stated.is_ok_and(|orientation| orientation != Orientation::NoTransforms)
}

/// How the picture has to be turned to stand upright; not at all where the file does not say, or not well.
fn orientation(bytes: &[u8], format: Format) -> Orientation {
    let stated = match format {
        Format::Jpeg => jpeg::exif(bytes).and_then(Orientation::from_exif_chunk),
        other => match palette_of(bytes, other) {
            Some(palette) => palette.orientation(),
            None => {
                let decoder = reader(bytes, other, HEADER_ALLOCATION).into_decoder();
                decoder.and_then(|mut decoder| decoder.orientation()).ok()
            }
        },
    };
    stated.unwrap_or(Orientation::NoTransforms)
}

fn turn(image: &mut Image, orientation: Orientation) {
    if orientation == Orientation::NoTransforms {
        return;
    }
    let (width, height) = (image.width(), image.height());
    if let Some(pixels) = RgbImage::from_raw(width, height, std::mem::take(image).into_rgb8()) {
        let mut turned = DynamicImage::ImageRgb8(pixels);
        turned.apply_orientation(orientation);
        *image = Image::from_kernel(turned.width(), turned.height(), turned.into_rgb8().into_raw());
    }
}

/// Enough for the tables and metadata of a header; pixels come on top.
const HEADER_ALLOCATION: u64 = 16 << 20;

/// A decoder of the `image` crate that may allocate `max_alloc` bytes.
fn reader(bytes: &[u8], format: Format, max_alloc: u64) -> ImageReader<Cursor<&[u8]>> {
    let mut reader = ImageReader::with_format(
        Cursor::new(bytes),
        match format {
            Format::Jpeg => ImageFormat::Jpeg,
            Format::Png => ImageFormat::Png,
            Format::Bmp => ImageFormat::Bmp,
            Format::Webp => ImageFormat::WebP,
            Format::Gif => ImageFormat::Gif,
            Format::Tiff => ImageFormat::Tiff,
            Format::Pnm => ImageFormat::Pnm,
        },
    );
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_alloc);
    reader.limits(limits);
    reader
}

/// Sorts the errors of the `image` crate into ours.
fn failure(format: Format, error: &image::ImageError) -> DecodeError {
    use image::ImageError as E;
    match error {
        E::Unsupported(_) | E::Limits(_) => DecodeError::Unsupported { format, reason: error.to_string() },
        _ if ends_early(error) => DecodeError::Truncated { format },
        _ => DecodeError::Corrupt { format, reason: error.to_string() },
    }
}

/// Whether the end of the file is among the causes of an error.
fn ends_early(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = match error.downcast_ref::<image::ImageError>() {
            Some(image::ImageError::IoError(io)) => Some(io),
            _ => error.downcast_ref::<std::io::Error>(),
        };
        if io.is_some_and(|io| io.kind() == ErrorKind::UnexpectedEof) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Runs a decoder; decoders of hostile bytes are known to panic now and then.
fn catching_panics<T>(format: Format, run: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    // The closure only reads the file's bytes and owns everything it changes, so nothing half-changed can be seen.
    panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        let reason = payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()))
            .unwrap_or_else(|| "no message".to_owned());
        Err(DecodeError::DecoderPanicked { format, reason })
    })
}
