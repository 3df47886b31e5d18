//! Any bytes to the decoder: a picture of the promised size or an error.

use twoview_pixels::{DecodeError, DecodeOptions, decode, read_header};

/// Small, so that thousands of files take seconds and a bomb would stand out.
const OPTIONS: DecodeOptions = DecodeOptions { max_file_bytes: 1 << 20, max_pixels: 1 << 18, exif_rotate: false };

/// What must hold for every file. Returns whether it was a picture.
///
/// A panic inside a decoder is caught by [`decode`] and is no failure here: it is an error with a name of its own.
pub(crate) fn decode_target(bytes: &[u8]) -> bool {
    let header = read_header(bytes, &OPTIONS);
    match decode(bytes, &OPTIONS) {
        Ok(image) => {
            let header = header.expect("a file that decodes has a header");
            assert_eq!((image.width(), image.height()), (header.width, header.height));
            assert!(u64::from(image.width()) * u64::from(image.height()) <= OPTIONS.max_pixels);
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if bytes.is_empty() {
                assert_eq!(error, DecodeError::Empty);
            }
            false
        }
    }
}
