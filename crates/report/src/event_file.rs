//! Measurements as an event file of TensorBoard.
//!
//! The format is TFRecord framing around protocol-buffer messages `Event`
//! (`tensorflow/core/lib/io/record_writer.cc`, `tensorflow/core/util/event.proto`). Only scalars are written, so the
//! few fields they need are encoded here.

use std::io::{self, Write};

/// Writes scalars that TensorBoard shows, to anything that takes bytes.
///
/// TensorBoard reads files whose names hold `tfevents`, such as `events.out.tfevents.1700000000.host`. A file may be
/// read while it is written: whole records are handed over at once.
///
/// # Example
/// ```
/// use twoview_report::EventFile;
///
/// let mut bytes = Vec::new();
/// let mut events = EventFile::new(&mut bytes, 1_700_000_000.0)?;
/// events.scalars(1_700_000_001.5, 1, &[("loss", 4.94), ("lr", 0.0)])?;
/// assert!(bytes.windows(4).any(|word| word == b"loss"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct EventFile<W> {
    out: W,
    record: Vec<u8>,
}

impl<W: Write> EventFile<W> {
    /// Begins a file: writes the record that names its version. `wall_time_s` is seconds since 1970.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(out: W, wall_time_s: f64) -> io::Result<EventFile<W>> {
        let mut file = EventFile { out, record: Vec::new() };
        let mut event = Vec::new();
        double(&mut event, 1, wall_time_s);
        bytes(&mut event, 3, b"brain.Event:2");
        file.write(&event)?;
        Ok(file)
    }

    /// Goes on with a file that [`EventFile::new`] began: `out` appends to it.
    pub fn append(out: W) -> EventFile<W> {
        EventFile { out, record: Vec::new() }
    }

    /// Writes one record of values measured at a step. `wall_time_s` is seconds since 1970; a name with a slash,
    /// `similarity/positive`, is shown in a group. Values that are not finite are written as they are.
    ///
    /// # Errors
    /// What the destination says.
    pub fn scalars(&mut self, wall_time_s: f64, step: u64, values: &[(&str, f32)]) -> io::Result<()> {
        let (mut summary, mut value) = (Vec::new(), Vec::new());
        for (tag, number) in values {
            value.clear();
            bytes(&mut value, 1, tag.as_bytes());
            key(&mut value, 2, 5);
            value.extend_from_slice(&number.to_le_bytes());
            bytes(&mut summary, 1, &value);
        }
        let mut event = Vec::new();
        double(&mut event, 1, wall_time_s);
        key(&mut event, 2, 0);
        varint(&mut event, step);
        bytes(&mut event, 5, &summary);
        self.write(&event)
    }

    /// Hands over what the destination may hold back.
    ///
    /// # Errors
    /// What the destination says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// A record: its length, the length's checksum, the event, its checksum.
    fn write(&mut self, event: &[u8]) -> io::Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        self.record.clear();
        self.record.extend_from_slice(&length);
        self.record.extend_from_slice(&masked_checksum(&length).to_le_bytes());
        self.record.extend_from_slice(event);
        self.record.extend_from_slice(&masked_checksum(event).to_le_bytes());
        self.out.write_all(&self.record)
    }
}

fn key(out: &mut Vec<u8>, field: u8, wire_type: u8) {
    out.push(field << 3 | wire_type);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn double(out: &mut Vec<u8>, field: u8, value: f64) {
    key(out, field, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    key(out, field, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// The CRC-32C turned and shifted, so that the checksum of data that holds checksums stays a good one.
fn masked_checksum(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with the Castagnoli polynomial, a byte at a time: events are a few hundred bytes.
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0_u32; 256];
        let mut byte = 0;
        while byte < 256 {
            #[expect(clippy::cast_possible_truncation, reason = "at most 255")]
            let mut rest = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                rest = if rest & 1 == 1 { rest >> 1 ^ 0x82f6_3b78 } else { rest >> 1 };
                bit += 1;
            }
            table[byte] = rest;
            byte += 1;
        }
        table
    };
    let step = |crc: u32, byte: &u8| TABLE[(crc.to_le_bytes()[0] ^ byte) as usize] ^ crc >> 8;
    !data.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn varints_carry_on_at_seven_bits() {
        let written = |value| {
            let mut out = Vec::new();
            varint(&mut out, value);
            out
        };
        assert_eq!(written(0), [0]);
        assert_eq!(written(300), [0xac, 2]);
        assert_eq!(written(u64::MAX), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    }
}
