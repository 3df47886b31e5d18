//! NumPy's array file, version 1.0, for a matrix of 32-bit floats.

use std::io::{self, Write};

/// Writes `rows` (row-major, `dim` numbers each) as an array of shape `[N, dim]`.
///
/// The format is NumPy's: a magic string, the version, the length of the header, a Python dictionary padded so that the
/// data begin at a multiple of 64, then the numbers, little-endian.
///
/// # Errors
/// Where `out` cannot take it.
///
/// # Source
/// NumPy, `numpy.lib.format`, version 1.0.
pub(crate) fn write_npy(mut out: impl Write, rows: &[f32], dim: usize) -> io::Result<()> {
    let shape = (rows.len().checked_div(dim).unwrap_or(0), dim);
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", shape.0, shape.1);
    let before_header = 10;
    let unpadded = before_header + dictionary.len() + 1;
    let padding = unpadded.next_multiple_of(64) - unpadded;
    let header = format!("{dictionary}{}\n", " ".repeat(padding));
    let length = u16::try_from(header.len()).map_err(|_| io::Error::other("the header of an npy file is too long"))?;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for value in rows {
        out.write_all(&value.to_le_bytes())?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_data_are_numpys() {
        let mut bytes = Vec::new();
        write_npy(&mut bytes, &[1.0, 2.0, 3.0, -4.0, 5.0, 6.0], 3).expect("memory takes it");
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        assert_eq!((10 + length) % 64, 0);
        let header = std::str::from_utf8(&bytes[10..10 + length]).expect("ASCII");
        assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"), "{header}");
        assert!(header.ends_with('\n'));
        assert_eq!(bytes.len(), 10 + length + 6 * 4);
        assert_eq!(bytes[10 + length + 12..10 + length + 16], (-4.0_f32).to_le_bytes());
    }
}
