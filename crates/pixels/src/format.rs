//! Recognising a picture file by its first bytes; the name of a file is never looked at.

use std::fmt;

/// The picture formats that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Baseline and progressive JPEG with Huffman coding.
    Jpeg,
    /// PNG; of an animated one the default picture.
    Png,
    /// Windows bitmap.
    Bmp,
    /// WebP, lossy or lossless; of an animated one the first frame.
    Webp,
    /// GIF; of an animated one the first frame.
    Gif,
    /// TIFF; of several pages the first.
    Tiff,
    /// PBM, PGM, PPM and PAM.
    Pnm,
}

impl Format {
    /// The format whose signature `bytes` begin with.
    ///
    /// ```
    /// use twoview_pixels::Format;
    /// assert_eq!(Format::of(b"GIF89a..."), Some(Format::Gif));
    /// assert_eq!(Format::of(b"not a picture"), None);
    /// ```
    pub fn of(bytes: &[u8]) -> Option<Format> {
        let starts = |signature: &[u8]| bytes.starts_with(signature);
        if starts(b"\xFF\xD8\xFF") {
            Some(Format::Jpeg)
        } else if starts(b"\x89PNG\r\n\x1A\n") {
            Some(Format::Png)
        } else if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(Format::Webp)
        } else if starts(b"GIF87a") || starts(b"GIF89a") {
            Some(Format::Gif)
        } else if starts(b"II*\0") || starts(b"MM\0*") {
            Some(Format::Tiff)
        } else if starts(b"BM") && bytes.get(6..10) == Some(&[0; 4]) {
            // The four bytes are reserved and zero; without them every text that begins with "BM" is a bitmap.
            Some(Format::Bmp)
        } else if let [b'P', b'1'..=b'7', b' ' | b'\t' | b'\r' | b'\n' | b'#', ..] = bytes {
            Some(Format::Pnm)
        } else {
            None
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::Bmp => "BMP",
            Format::Webp => "WebP",
            Format::Gif => "GIF",
            Format::Tiff => "TIFF",
            Format::Pnm => "PNM",
        })
    }
}

/// What bytes that no [`Format`] owns seem to be, for an error message: `looks like text`.
pub(crate) fn describe_unknown(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(64)];
    let starts = |signature: &[u8]| head.starts_with(signature);
    let brand = if head.get(4..8) == Some(b"ftyp") { head.get(8..12) } else { None };
    let known = if brand == Some(b"avif") || brand == Some(b"avis") {
        "AVIF, which is not supported: convert it to PNG or JPEG"
    } else if matches!(brand, Some(b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1")) {
        "HEIC, which is not supported: convert it to PNG or JPEG"
    } else if brand.is_some() {
        "a video"
    } else if starts(b"\0\0\0\x0CJXL ") || starts(b"\xFF\x0A") {
        "JPEG XL, which is not supported: convert it to PNG or JPEG"
    } else if starts(b"\0\0\0\x0CjP  ") {
        "JPEG 2000, which is not supported: convert it to PNG or JPEG"
    } else if starts(b"%PDF") {
        "a PDF document"
    } else if starts(b"PK\x03\x04") {
        "a ZIP archive"
    } else if starts(b"\x1F\x8B") {
        "a gzip archive"
    } else if starts(b"version https://git-lfs") {
        "a Git LFS pointer: fetch the real file with `git lfs pull`"
    } else if head.iter().all(|&byte| byte == 0) {
        "zeros only"
    } else if let Some(kind) = describe_text(head) {
        kind
    } else {
        let first: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        return format!("it begins with the bytes {}", first.join(" "));
    };
    format!("it looks like {known}")
}

/// The kind of text that `head` begins, if it is text at all.
fn describe_text(head: &[u8]) -> Option<&'static str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The cut after 64 bytes may have split the last character; anything worse is no text.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    let start = text.trim_start_matches('\u{FEFF}').trim_start().to_ascii_lowercase();
    Some(if start.starts_with("<!doctype html") || start.starts_with("<html") {
        "a web page, perhaps the error page of a failed download"
    } else if start.starts_with("<svg") || start.starts_with("<?xml") {
        "XML or SVG, which is not supported: convert it to PNG"
    } else {
        "text"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_described() {
        for (bytes, want) in [
            (&b"hello, not a picture"[..], "it looks like text"),
            (b"  <!DOCTYPE html><html>", "it looks like a web page, perhaps the error page of a failed download"),
            (&[0; 100], "it looks like zeros only"),
            (b"PK\x03\x04....", "it looks like a ZIP archive"),
            (b"\0\0\0\x18ftypmp42", "it looks like a video"),
            (b"\x01\x02\xFE", "it begins with the bytes 01 02 fe"),
            (b"BMX is a sport", "it looks like text"),
        ] {
            assert_eq!(Format::of(bytes), None, "{want}");
            assert_eq!(describe_unknown(bytes), want);
        }
        // 63 ASCII bytes and the first byte of a two-byte character.
        let cut = format!("{}é and more", "a".repeat(63));
        assert_eq!(describe_unknown(cut.as_bytes()), "it looks like text");
    }

    #[test]
    fn signatures_are_told_apart() {
        for (bytes, want) in [
            (&b"\xFF\xD8\xFF\xE0"[..], Format::Jpeg),
            (b"\x89PNG\r\n\x1A\n", Format::Png),
            (b"RIFF\0\0\0\0WEBPVP8 ", Format::Webp),
            (b"GIF87a", Format::Gif),
            (b"II*\0", Format::Tiff),
            (b"MM\0*", Format::Tiff),
            (b"BM\x36\0\0\0\0\0\0\0", Format::Bmp),
            (b"P6\n1 1\n255\n", Format::Pnm),
        ] {
            assert_eq!(Format::of(bytes), Some(want));
        }
        assert_eq!(Format::of(b"RIFF\0\0\0\0WAVE"), None);
    }
}
