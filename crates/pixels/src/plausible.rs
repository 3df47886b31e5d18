//! Whether a file can hold the picture that its header promises, asked before memory is set aside for the picture.

use crate::{DecodeError, Format, Header};

/// Pictures of up to this many pixels are decoded however short their file is: they cost little.
const FREE_PIXELS: u64 = 2_000_000;

/// Above [`FREE_PIXELS`] a file must have a byte for this many pixels.
///
/// Deflate, the densest of the common codings, makes at best 1032 bytes out of one, and a photograph is hundreds of
/// times less dense. What lies beyond is a bomb, or a picture of nothing: a blank page in a fax coding, one colour in
/// lossless WebP.
const MAX_PIXELS_PER_BYTE: u64 = 1024;

/// The most that a byte of deflate can unfold to.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Chunks of a PNG besides those with pixels. The decoder keeps every text, which can cost ten times its bytes.
const MAX_PNG_CHUNKS: usize = 10_000;

/// Refuses a file whose header alone could cost much memory.
///
/// # Errors
/// [`DecodeError::Corrupt`].
pub(crate) fn check_before_header(bytes: &[u8], format: Format) -> Result<(), DecodeError> {
    if format == Format::Png && png_chunks(bytes).filter(|(name, _)| name != b"IDAT").nth(MAX_PNG_CHUNKS).is_some() {
        let reason = format!("it has more than {MAX_PNG_CHUNKS} chunks besides its pixels");
        return Err(DecodeError::Corrupt { format, reason });
    }
    Ok(())
}

/// Refuses what cannot be a picture of that size.
///
/// # Errors
/// [`DecodeError::Bomb`] when there are too few bytes for so many pixels, [`DecodeError::Truncated`] when they are
/// provably not all there, [`DecodeError::Corrupt`] when a frame is larger than the picture it belongs to.
pub(crate) fn check(bytes: &[u8], header: Header) -> Result<(), DecodeError> {
    let Header { format, width, height } = header;
    let pixels = u64::from(width) * u64::from(height);
    if format == Format::Webp {
        check_webp_frames(bytes, pixels)?;
    }
    match format {
        Format::Png if pixels > FREE_PIXELS => {
            let (coded, bits_per_pixel) = png_data(bytes);
            check_density(header, coded)?;
            let unfolded = u64::from(height) * (u64::from(width) * bits_per_pixel).div_ceil(8);
            if unfolded / MAX_DEFLATE_RATIO > coded {
                return Err(DecodeError::Truncated { format });
            }
        }
        // The smallest pixel has a bit, or one character where the numbers are text.
        Format::Pnm if pixels > FREE_PIXELS && pixels / 8 > bytes.len() as u64 => {
            return Err(DecodeError::Truncated { format });
        }
        _ => {}
    }
    check_density(header, bytes.len() as u64)
}

/// Refuses a large picture whose pixels are coded in fewer bytes than any picture needs.
///
/// # Errors
/// [`DecodeError::Bomb`].
pub(crate) fn check_density(header: Header, coded: u64) -> Result<(), DecodeError> {
    let Header { format, width, height } = header;
    let pixels = u64::from(width) * u64::from(height);
    if pixels > FREE_PIXELS && pixels / MAX_PIXELS_PER_BYTE > coded {
        return Err(DecodeError::Bomb { format, width, height, bytes: coded });
    }
    Ok(())
}

/// How many bytes of compressed pixels a PNG has, and how many bits one of its pixels takes.
fn png_data(bytes: &[u8]) -> (u64, u64) {
    let bits = match bytes.get(24..26) {
        Some(&[depth, color]) => {
            u64::from(depth)
                * match color {
                    2 => 3,
                    4 => 2,
                    6 => 4,
                    _ => 1,
                }
        }
        _ => 1,
    };
    let coded = png_chunks(bytes).filter(|(name, _)| name == b"IDAT").map(|(_, len)| len as u64).sum();
    (coded, bits)
}

/// The chunks of a PNG: their names and how many bytes of each are there.
fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], usize)> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (&[l0, l1, l2, l3, name @ ..], after) = rest.split_first_chunk::<8>()?;
        let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        // Four bytes of checksum follow.
        rest = after.get(len.saturating_add(4)..).unwrap_or_default();
        Some((name, len.min(after.len())))
    })
}

/// A lossy frame says how large it is, and the decoder believes it before it compares it with the picture.
fn check_webp_frames(bytes: &[u8], pixels: u64) -> Result<(), DecodeError> {
    let mut rest = bytes.get(12..).unwrap_or_default();
    while let Some((head, after)) = rest.split_at_checked(8) {
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        match &head[..4] {
            // The frame's own chunks follow sixteen bytes about its place.
            b"ANMF" => rest = after.get(16..).unwrap_or_default(),
            name => {
                if let (b"VP8 ", Some(&[w0, w1, h0, h1])) = (name, after.get(6..10)) {
                    let side = |low, high| u64::from(u16::from_le_bytes([low, high]) & 0x3FFF);
                    let (width, height) = (side(w0, w1), side(h0, h1));
                    if width * height > pixels {
                        let reason = format!("it holds a frame of {width}x{height}, larger than itself");
                        return Err(DecodeError::Corrupt { format: Format::Webp, reason });
                    }
                }
                rest = after.get(len.saturating_add(len % 2)..).unwrap_or_default();
            }
        }
    }
    Ok(())
}
