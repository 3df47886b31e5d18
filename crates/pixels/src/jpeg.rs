//! JPEG files: the header, the pixels, and whether all of them are in the file.

use libjpeg_turbo_rs::{DecodeLimits, Decoder, JpegError, PixelFormat};

use crate::{DecodeError, Format, Header, Image, plausible};

/// Width and height in pixels, read from the frame header without decoding.
pub(crate) fn dimensions(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    let frame = segments(bytes).find(|(marker, _)| is_frame(*marker)).map(|(_, segment)| segment);
    match frame {
        Some(&[_, h1, h0, w1, w0, ..]) => {
            Ok((u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into()))
        }
        _ if Structure::of(bytes).has_end => {
            Err(DecodeError::Corrupt { format: Format::Jpeg, reason: "it has no frame header".to_owned() })
        }
        _ => Err(DecodeError::Truncated { format: Format::Jpeg }),
    }
}

/// The EXIF data as it stands in the file, if there is any.
pub(crate) fn exif(bytes: &[u8]) -> Option<&[u8]> {
    segments(bytes).find_map(|(marker, segment)| if marker == 0xE1 { segment.strip_prefix(b"Exif\0\0") } else { None })
}

/// Whether a marker begins a frame: SOF0 to SOF15, between which three other markers lie.
fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
}

/// The markers before the first scan with what their segments hold; it ends early where a segment is incomplete.
fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut at = 2;
    std::iter::from_fn(move || {
        // Stray bytes and fill bytes may lie between segments.
        let marker = loop {
            match (*bytes.get(at)?, *bytes.get(at + 1)?) {
                (0xFF, 0x00 | 0x01 | 0xD0..=0xD8 | 0xFF) | (0x00..=0xFE, _) => at += 1,
                (0xFF, marker) => break marker,
            }
        };
        if matches!(marker, 0xD9 | 0xDA) {
            return None;
        }
        let length = usize::from(u16::from_be_bytes(*bytes.get(at + 2..)?.first_chunk()?)).max(2);
        let segment = bytes.get(at + 4..at + 2 + length)?;
        at += 2 + length;
        Some((marker, segment))
    })
}

/// Passes over the picture in a progressive file; cameras and programs make about ten.
///
/// Every scan costs time in the pixels of the picture and hardly a byte of the file.
const MAX_SCANS: usize = 100;

/// Writes the RGB bytes of a complete file into `image`, which takes the sides of its header.
///
/// The decoder notices missing data except in the last row of blocks, which in a 32-pixel picture is a quarter to a
/// half of everything. A file that ends without the end marker is therefore decoded twice, with two different
/// continuations: if any pixel depends on what follows the last byte, the file is truncated; if none does, only
/// the marker is missing and the picture is whole. A picture in several scans could lack whole scans without
/// a trace, so it must have its end marker.
pub(crate) fn decode_into(bytes: &[u8], header: Header, image: &mut Image) -> Result<(), DecodeError> {
    let structure = Structure::of(bytes);
    plausible::check_density(header, structure.coded_bytes)?;
    if structure.n_scans > MAX_SCANS {
        let reason = format!("it has {} scans, the limit is {MAX_SCANS}", structure.n_scans);
        return Err(DecodeError::Corrupt { format: Format::Jpeg, reason });
    }
    let pixels = image.reshape(header.width, header.height);
    if structure.has_end {
        return decode_strictly(bytes, pixels).map_err(|error| failure(bytes, error));
    }
    if !structure.is_single_scan {
        return Err(DecodeError::Truncated { format: Format::Jpeg });
    }
    // A last 0xFF is half a marker, or half a stuffed byte, whose absence shows like that of any other.
    let data = &bytes[..bytes.len() - bytes.iter().rev().take_while(|&&byte| byte == 0xFF).count()];
    let continued = |byte: u8| {
        let mut file = data.to_vec();
        file.extend([byte; 64]);
        file.extend(END_OF_IMAGE);
        let mut out = vec![0; pixels.len()];
        decode_strictly(&file, &mut out).map(|()| out).map_err(|_| DecodeError::Truncated { format: Format::Jpeg })
    };
    let (one, other) = (continued(0x5A)?, continued(0xA5)?);
    if one != other {
        return Err(DecodeError::Truncated { format: Format::Jpeg });
    }
    pixels.copy_from_slice(&one);
    Ok(())
}

const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];

/// What the segments of a file say about its completeness.
///
/// Segments are skipped by their length, so that nothing inside an embedded thumbnail counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Structure {
    /// The end-of-image marker is there, whatever follows it.
    has_end: bool,
    /// The picture is not progressive, and its first scan holds all components.
    is_single_scan: bool,
    /// Scans up to the end marker.
    n_scans: usize,
    /// Bytes of coded data in all of them, stuffed ones apart.
    coded_bytes: u64,
}

impl Structure {
    fn of(bytes: &[u8]) -> Structure {
        let mut structure = Structure::default();
        let mut n_components = None;
        let mut at = 2;
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            if byte != 0xFF {
                // Coded data, or stray bytes between segments.
                let rest = &bytes[at..];
                let run = memchr::memchr(0xFF, rest).unwrap_or(rest.len());
                structure.coded_bytes += if structure.n_scans > 0 { 1 + run as u64 } else { 0 };
                at += run;
                continue;
            }
            let Some(&marker) = bytes.get(at) else { break };
            match marker {
                0xD9 => return Structure { has_end: true, ..structure },
                0xFF => {}                            // A fill byte: the marker is still to come.
                0x00 | 0x01 | 0xD0..=0xD8 => at += 1, // A stuffed byte, or a marker without a segment.
                _ => {
                    let Some(length) = bytes.get(at + 1..at + 3) else { break };
                    let segment = bytes.get(at + 3..).unwrap_or_default();
                    match marker {
                        // Sequential frames: precision, height and width come before the number of components.
                        0xC0 | 0xC1 => n_components = segment.get(5),
                        0xDA => {
                            structure.n_scans += 1;
                            structure.is_single_scan = n_components.is_some() && segment.first() == n_components;
                        }
                        _ => {}
                    }
                    at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                }
            }
        }
        structure
    }
}

/// Strictly, because otherwise the missing part of a truncated file comes out grey.
fn decode_strictly(bytes: &[u8], pixels: &mut [u8]) -> Result<(), JpegError> {
    let n_bytes = pixels.len() as u64;
    let limits = DecodeLimits {
        max_pixels: n_bytes / 3,
        max_scans: MAX_SCANS,
        // Sixteen bytes a pixel, as for other formats: coefficients and planes of four components are twelve.
        max_memory: Some(n_bytes / 3 * 16 + FIXED_MEMORY),
        ..DecodeLimits::default()
    };
    let mut decoder = Decoder::new_with_limits(bytes, limits)?;
    decoder.set_output_format(PixelFormat::Rgb);
    let written = decoder.decode_image_into(pixels)?.bytes_written;
    if written == pixels.len() { Ok(()) } else { Err(JpegError::UnexpectedEof) }
}

/// Tables, and small pictures' share of rounding up to whole blocks, in bytes.
const FIXED_MEMORY: u64 = 16 << 20;

/// A file that ends early is called truncated whatever the decoder stumbled over. One with its end marker does not end
/// early: where its data run out, the damage lies before the marker, and looking for a longer copy of it is in vain.
fn failure(bytes: &[u8], error: JpegError) -> DecodeError {
    match error {
        JpegError::Unsupported(reason) => DecodeError::Unsupported { format: Format::Jpeg, reason },
        _ if !Structure::of(bytes).has_end => DecodeError::Truncated { format: Format::Jpeg },
        JpegError::UnexpectedEof => {
            let reason = "its coded data end before the last pixel".to_owned();
            DecodeError::Corrupt { format: Format::Jpeg, reason }
        }
        other => DecodeError::Corrupt { format: Format::Jpeg, reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_inside_a_segment_counts() {
        let has_end = |parts: &[&[u8]]| Structure::of(&parts.concat()).has_end;
        let thumbnail = b"\xFF\xD8\xFF\xE1\x00\x06\xFF\xD9..\xFF\xDA\x00\x02data\xFF\x00data";
        assert!(!has_end(&[thumbnail]));
        assert!(has_end(&[thumbnail, &END_OF_IMAGE, b"junk"]));
        assert!(has_end(&[thumbnail, b"\xFF\xFF\xD9"]), "fill bytes may precede a marker");
        assert!(!has_end(&[b"\xFF\xD8\xFF"]));
        assert!(!has_end(&[b"\xFF\xD8\xFF\xE0\xFF"]));
    }

    #[test]
    fn scans_are_told_apart() {
        let is_single_scan = |frame: u8, n_scanned: u8| {
            let header = [0xFF, frame, 0, 8, 8, 0, 1, 0, 1, 3];
            let scan = [0xFF, 0xDA, 0, 3, n_scanned];
            Structure::of(&[&[0xFF, 0xD8], &header[..], &scan].concat()).is_single_scan
        };
        assert!(is_single_scan(0xC0, 3) && is_single_scan(0xC1, 3));
        assert!(!is_single_scan(0xC0, 1), "one component after the other");
        assert!(!is_single_scan(0xC2, 3), "progressive");
        assert!(!Structure::of(b"\xFF\xD8\xFF\xDA\x00\x02").is_single_scan, "no frame");
    }
}
