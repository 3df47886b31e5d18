//! TIFF pictures whose samples are places in a table of colours; the `image` crate refuses them.

use std::io::{Cursor, ErrorKind};

use image::metadata::Orientation;
use tiff::TiffError;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use crate::{DecodeError, Format, Header, Image};

const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS_PER_SAMPLE: u16 = 258;
const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
const ORIENTATION: u16 = 274;
const SAMPLES_PER_PIXEL: u16 = 277;

/// Values of [`PHOTOMETRIC`].
const BLACK_IS_ZERO: u16 = 1;
const PALETTE: u16 = 3;

/// What the first directory of such a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PaletteTiff {
    width: u32,
    height: u32,
    bits: u32,
    samples: u32,
    fill_order: u32,
    orientation: Option<u32>,
    /// Where the file says that its samples are places in a table.
    photometric_at: usize,
    big_endian: bool,
}

impl PaletteTiff {
    /// Reads the first directory of a TIFF file; nothing where it is incomplete or describes another kind of picture.
    pub(crate) fn find(bytes: &[u8]) -> Option<Self> {
        let directory = Directory::first(bytes)?;
        // Of another type than the standard's, the number would have to be replaced elsewhere; nobody writes that.
        let photometric = directory.entry(PHOTOMETRIC).filter(|entry| entry.kind == SHORT && entry.count == 1)?;
        if photometric.number != u32::from(PALETTE) {
            return None;
        }
        let or = |tag, otherwise| directory.entry(tag).map_or(otherwise, |entry| entry.number);
        // A value for each sample does not fit into the entry; what stands there instead is no depth.
        let depth = directory.entry(BITS_PER_SAMPLE);
        Some(Self {
            width: directory.entry(WIDTH)?.number,
            height: directory.entry(HEIGHT)?.number,
            bits: depth.map_or(1, |depth| if depth.count == 1 { depth.number } else { 0 }),
            samples: or(SAMPLES_PER_PIXEL, 1),
            fill_order: or(FILL_ORDER, 1),
            orientation: directory.entry(ORIENTATION).map(|entry| entry.number),
            photometric_at: photometric.value_at,
            big_endian: directory.big_endian,
        })
    }

    /// The sides of a picture that can be read.
    ///
    /// # Errors
    /// [`DecodeError::Unsupported`] for other depths than 1, 2, 4 and 8 bits, further samples and reversed bits.
    pub(crate) fn dimensions(&self) -> Result<(u32, u32), DecodeError> {
        let Self { bits, samples, fill_order, .. } = *self;
        if matches!(bits, 1 | 2 | 4 | 8) && samples == 1 && fill_order == 1 {
            return Ok((self.width, self.height));
        }
        let reason = format!("a palette with {samples} samples of {bits} bits in fill order {fill_order}");
        Err(DecodeError::Unsupported { format: Format::Tiff, reason })
    }

    /// How the picture has to be turned to stand upright.
    pub(crate) fn orientation(&self) -> Option<Orientation> {
        Orientation::from_exif(u8::try_from(self.orientation?).ok()?)
    }

    /// Decodes the picture, within `allocation` bytes of memory besides a copy of the file.
    ///
    /// The places are read as shades of grey, which are packed alike: the decoder knows no palettes, and the copy says
    /// grey where the file says palette. Of the 16 bits of a colour the higher 8 count, as for Pillow.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub(crate) fn decode(&self, bytes: &[u8], header: Header, allocation: u64) -> Result<Image, DecodeError> {
        let mut grey = bytes.to_vec();
        let value = if self.big_endian { BLACK_IS_ZERO.to_be_bytes() } else { BLACK_IS_ZERO.to_le_bytes() };
        grey[self.photometric_at..self.photometric_at + 2].copy_from_slice(&value);
        let most = usize::try_from(allocation).unwrap_or(usize::MAX);
        let mut limits = Limits::default();
        (limits.decoding_buffer_size, limits.ifd_value_size, limits.intermediate_buffer_size) = (most, most, most);
        let mut decoder = Decoder::new(Cursor::new(grey)).map_err(failure)?.with_limits(limits);
        let colors = decoder.get_tag_u16_vec(Tag::ColorMap).map_err(failure)?;
        let n_colors = 1usize << self.bits;
        if colors.len() != 3 * n_colors {
            return Err(corrupt(format!("its palette has {} values, expected {}", colors.len(), 3 * n_colors)));
        }
        let DecodingResult::U8(packed) = decoder.read_image().map_err(failure)? else {
            let reason = "a palette with samples that are no natural numbers".to_owned();
            return Err(DecodeError::Unsupported { format: Format::Tiff, reason });
        };
        let color = |place: usize| [0, 1, 2].map(|channel| colors[channel * n_colors + place].to_be_bytes()[0]);
        let (width, bits) = (header.width as usize, self.bits as usize);
        let row_bytes = (width * bits).div_ceil(8);
        if packed.len() != row_bytes * header.height as usize {
            return Err(corrupt(format!("{} bytes of places in its palette", packed.len())));
        }
        let mut pixels = Vec::with_capacity(width * header.height as usize * 3);
        for row in packed.chunks_exact(row_bytes) {
            // The leftmost pixel has the highest bits.
            let place = |x: usize| usize::from(row[x * bits / 8]) >> (8 - bits - x * bits % 8) & (n_colors - 1);
            pixels.extend((0..width).flat_map(|x| color(place(x))));
        }
        Image::from_rgb8(header.width, header.height, pixels).map_err(|error| corrupt(error.to_string()))
    }
}

fn corrupt(reason: String) -> DecodeError {
    DecodeError::Corrupt { format: Format::Tiff, reason }
}

/// Sorts the errors of the `tiff` crate into ours.
fn failure(error: TiffError) -> DecodeError {
    let format = Format::Tiff;
    match error {
        TiffError::IoError(io) if io.kind() == ErrorKind::UnexpectedEof => DecodeError::Truncated { format },
        TiffError::UnsupportedError(_) | TiffError::LimitsExceeded => {
            DecodeError::Unsupported { format, reason: error.to_string() }
        }
        _ => corrupt(error.to_string()),
    }
}

const SHORT: u16 = 3;
const LONG: u16 = 4;

/// The first directory of a TIFF file: entries of 12 bytes.
struct Directory<'a> {
    entries: &'a [[u8; 12]],
    entries_at: usize,
    big_endian: bool,
}

/// An entry with a number in it.
struct Entry {
    kind: u16,
    count: u32,
    number: u32,
    value_at: usize,
}

impl<'a> Directory<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = bytes.starts_with(b"MM");
        let at = usize::try_from(u32_at(bytes.get(4..8)?, big_endian)?).ok()?;
        let n_entries = usize::from(u16_at(bytes.get(at..)?, big_endian)?);
        let entries_at = at + 2;
        let (entries, _) = bytes.get(entries_at..entries_at + 12 * n_entries)?.as_chunks();
        Some(Self { entries, entries_at, big_endian })
    }

    /// The first entry with this tag, if it holds one or more 16-bit or 32-bit numbers.
    fn entry(&self, tag: u16) -> Option<Entry> {
        let u16_of = |bytes: &[u8]| u16_at(bytes, self.big_endian);
        let place = self.entries.iter().position(|entry| u16_of(entry) == Some(tag))?;
        let entry = &self.entries[place];
        let kind = u16_of(&entry[2..])?;
        let number = match kind {
            SHORT => u32::from(u16_of(&entry[8..])?),
            LONG => u32_at(&entry[8..], self.big_endian)?,
            _ => return None,
        };
        let count = u32_at(&entry[4..], self.big_endian)?;
        Some(Entry { kind, count, number, value_at: self.entries_at + 12 * place + 8 })
    }
}

fn u16_at(bytes: &[u8], big_endian: bool) -> Option<u16> {
    let bytes = *bytes.first_chunk()?;
    Some(if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
}

fn u32_at(bytes: &[u8], big_endian: bool) -> Option<u32> {
    let bytes = *bytes.first_chunk()?;
    Some(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
}
