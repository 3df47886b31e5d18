//! Where the members of an uncompressed tar archive lie, without reading their contents.

use std::path::PathBuf;

use crate::fixed_file::FixedFile;
use crate::picture_at::ByteRange;
use crate::tar_error::TarError;

const BLOCK: usize = 512;
const BLOCK_BYTES: u64 = BLOCK as u64;
/// Longest name in a member of its own; a path of Linux has at most 4096 bytes.
const MAX_NAME_BYTES: u64 = 64 << 10;
/// Longest set of pax records.
const MAX_PAX_BYTES: u64 = 1 << 20;

/// A regular file in an archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TarMember {
    /// Its name as stored.
    pub(crate) name: Vec<u8>,
    /// Its contents.
    pub(crate) place: ByteRange,
}

/// Names and sizes that the next member's own header has no room for.
#[derive(Debug, Default)]
struct Extension {
    name: Option<Vec<u8>>,
    bytes: Option<u64>,
}

/// Reads all headers of an archive: ustar, old GNU and pax, with their long names. Links, folders and devices are passed
/// over. Blocks of zeros between archives are passed over as well, so that several in one file are one.
///
/// # Errors
/// [`TarError`] for a header that is none, a member that reaches beyond the file, a missing end mark.
pub(crate) fn index_tar(file: &FixedFile) -> Result<Vec<TarMember>, TarError> {
    let mut members = Vec::new();
    let mut next = Extension::default();
    let mut at = 0;
    let mut ended = false;
    while at < file.len() {
        let mut header = [0; BLOCK];
        file.read_exact_at(at, &mut header).map_err(|reason| match reason.kind() {
            std::io::ErrorKind::UnexpectedEof => TarError::Truncated { path: path(file), bytes: file.len() },
            _ => TarError::Unreadable { path: path(file), reason },
        })?;
        let header_at = at;
        at += BLOCK_BYTES;
        if header == [0; BLOCK] {
            ended = true;
            continue;
        }
        ended = false;
        let corrupt = |reason| TarError::Header { path: path(file), at: header_at, reason };
        if !checksum_fits(&header) {
            return Err(corrupt(if header_at == 0 { "it is no tar archive" } else { "its checksum does not fit" }));
        }
        let kind = header[156];
        // Links, folders and devices have no contents, whatever their size says.
        let has_contents = !matches!(kind, b'1'..=b'6');
        let stated =
            next.bytes.take().or_else(|| number(&header[124..136])).ok_or_else(|| corrupt("its size is no number"))?;
        let place = ByteRange { offset: at, bytes: if has_contents { stated } else { 0 } };
        let end = place.offset.checked_add(place.bytes).filter(|end| *end <= file.len());
        let end = end.ok_or_else(|| TarError::Truncated { path: path(file), bytes: file.len() })?;
        match kind {
            b'L' => next.name = Some(long_name(file, place, header_at)?),
            b'x' => next = pax(file, place, header_at)?,
            b'0' | 0 | b'7' => {
                let name = next.name.take().unwrap_or_else(|| name(&header));
                members.push(TarMember { name, place });
                next = Extension::default();
            }
            b'S' => return Err(corrupt("it is a sparse file, which is not supported")),
            // Defaults for all members, and names of links.
            b'g' | b'K' => {}
            _ => next = Extension::default(),
        }
        at = end.next_multiple_of(BLOCK_BYTES);
    }
    if ended { Ok(members) } else { Err(TarError::Truncated { path: path(file), bytes: file.len() }) }
}

fn path(file: &FixedFile) -> PathBuf {
    file.path().to_owned()
}

/// The sum of the header's bytes, with its own field read as blanks; some old programs summed signed bytes.
fn checksum_fits(header: &[u8; BLOCK]) -> bool {
    let stated = number(&header[148..156]);
    let read = |i: usize| if (148..156).contains(&i) { b' ' } else { header[i] };
    let unsigned: u64 = (0..header.len()).map(|i| u64::from(read(i))).sum();
    let signed: i64 = (0..header.len()).map(|i| i64::from(read(i).cast_signed())).sum();
    stated.is_some_and(|stated| stated == unsigned || i64::try_from(stated) == Ok(signed))
}

/// A number in octal digits, or in base 256 behind a set highest bit.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        // Other bits in the first byte make a negative number, or one of more than 64 bits.
        let add = |number: u64, byte: &u8| (number >> 56 == 0).then_some(number << 8 | u64::from(*byte));
        return if field[0] == 0x80 { field[1..].iter().try_fold(0, add) } else { None };
    }
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches([' ', '\0']);
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

fn name(header: &[u8; BLOCK]) -> Vec<u8> {
    let (name, prefix) = (until_zero(&header[..100]), until_zero(&header[345..500]));
    // GNU's own format has other things where ustar has the prefix.
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() }
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn long_name(file: &FixedFile, place: ByteRange, at: u64) -> Result<Vec<u8>, TarError> {
    Ok(until_zero(&contents(file, place, MAX_NAME_BYTES, at)?).to_vec())
}

/// Contents of a header's companion, within a limit.
fn contents(file: &FixedFile, place: ByteRange, most: u64, at: u64) -> Result<Vec<u8>, TarError> {
    if place.bytes > most {
        return Err(TarError::Header { path: path(file), at, reason: "its name or its records are too long" });
    }
    let mut bytes = Vec::new();
    let read = file.read_at(place.offset, place.bytes, &mut bytes);
    read.map(|()| bytes).map_err(|reason| TarError::Unreadable { path: path(file), reason })
}

/// Records of the form `27 path=some/long/name\n`, where 27 is the length of the whole record.
fn pax(file: &FixedFile, place: ByteRange, at: u64) -> Result<Extension, TarError> {
    let corrupt = |reason| TarError::Header { path: path(file), at, reason };
    let bytes = contents(file, place, MAX_PAX_BYTES, at)?;
    let mut extension = Extension::default();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (length, record) = pax_record(rest).ok_or_else(|| corrupt("its pax records are no records"))?;
        rest = &rest[length..];
        let Some(equals) = record.iter().position(|byte| *byte == b'=') else {
            return Err(corrupt("its pax records are no records"));
        };
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => extension.name = Some(value.to_vec()),
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                extension.bytes = Some(size.ok_or_else(|| corrupt("its size is no number"))?);
            }
            _ if key.starts_with(b"GNU.sparse") => {
                return Err(corrupt("it is a sparse file, which is not supported"));
            }
            _ => {}
        }
    }
    Ok(extension)
}

/// Length of the first record with all that belongs to it, and its `key=value`.
fn pax_record(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
    let record = bytes.get(blank + 1..length)?;
    record.strip_suffix(b"\n").map(|record| (length, record))
}
