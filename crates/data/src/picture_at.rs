//! A picture file that lies within another file.

use twoview_pixels::{DecodeError, DecodeOptions, Image, decode_into};

use crate::fixed_file::FixedFile;
use crate::{Problem, ReadBuffers};

/// A range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// Reads the bytes of a picture file into `out`, unless there are more of them than the limits allow.
pub(crate) fn read_bytes(
    file: &FixedFile,
    place: ByteRange,
    decode: &DecodeOptions,
    out: &mut Vec<u8>,
) -> Result<(), Problem> {
    let max_file_bytes = decode.max_file_bytes;
    if place.bytes > max_file_bytes {
        return Err(Problem::Decode(DecodeError::FileTooLarge { bytes: place.bytes, max_file_bytes }));
    }
    file.read_at(place.offset, place.bytes, out).map_err(Problem::Read)
}

/// Reads and decodes a picture file.
pub(crate) fn read_picture<'a>(
    file: &FixedFile,
    place: ByteRange,
    decode: &DecodeOptions,
    buffers: &'a mut ReadBuffers,
) -> Result<&'a Image, Problem> {
    let ReadBuffers { bytes, image } = buffers;
    read_bytes(file, place, decode, bytes)?;
    decode_into(bytes, decode, image).map_err(Problem::Decode)?;
    Ok(image)
}
