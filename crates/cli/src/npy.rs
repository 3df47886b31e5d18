//! NumPy's array file, for a matrix of 32-bit floats.

use std::io::{self, Read, Write};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Writes what stands before the numbers of an array of shape `[n, dim]`, which follow row by row, little-endian.
///
/// The format is NumPy's: a magic string, the version, the length of the header, a Python dictionary padded so that the
/// data begin at a multiple of 64.
///
/// # Errors
/// Where `out` cannot take it.
///
/// # Source
/// NumPy, `numpy.lib.format`, version 1.0.
pub(crate) fn write_npy_header(mut out: impl Write, n: usize, dim: usize) -> io::Result<()> {
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, {dim}), }}");
    let before_header = 10;
    let unpadded = before_header + dictionary.len() + 1;
    let padding = unpadded.next_multiple_of(64) - unpadded;
    let header = format!("{dictionary}{}\n", " ".repeat(padding));
    let length = u16::try_from(header.len()).map_err(|_| io::Error::other("the header of an npy file is too long"))?;
    out.write_all(MAGIC)?;
    out.write_all(b"\x01\x00")?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(header.as_bytes())
}

/// Reads an array of 32-bit floats of shape `[N, dim]`: its numbers, row-major, and `dim`.
///
/// # Errors
/// Where `file` cannot be read, is none, or holds another type, order or number of dimensions.
pub(crate) fn read_npy(mut file: impl Read) -> io::Result<(Vec<f32>, usize)> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut start = [0; 8];
    file.read_exact(&mut start)?;
    if &start[..6] != MAGIC {
        return Err(invalid("this is no NumPy array file (.npy)".to_owned()));
    }
    let length = if start[6] == 1 {
        let mut length = [0; 2];
        file.read_exact(&mut length)?;
        usize::from(u16::from_le_bytes(length))
    } else {
        let mut length = [0; 4];
        file.read_exact(&mut length)?;
        // A header names a type and a shape; more than this is no header.
        usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX).min(1 << 16)
    };
    let mut header = vec![0; length];
    file.read_exact(&mut header)?;
    let header: String = String::from_utf8_lossy(&header).split_whitespace().collect();
    let expected = "expected 32-bit floats in rows ('descr': '<f4', 'fortran_order': False, two dimensions)";
    let is_plain = header.contains("'descr':'<f4'") && header.contains("'fortran_order':False");
    let shape = header.split_once("'shape':(").and_then(|(_, rest)| rest.split_once(')')).map(|(shape, _)| shape);
    let sides: Vec<usize> = shape.unwrap_or_default().split(',').filter_map(|side| side.parse().ok()).collect();
    let (true, [n, dim]) = (is_plain, sides.as_slice()) else {
        return Err(invalid(format!("{expected}, got {header}")));
    };
    let n_values = n.checked_mul(*dim).ok_or_else(|| invalid(format!("impossible shape in {header}")))?;
    let mut bytes = Vec::new();
    file.take(4 * n_values as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() != 4 * n_values {
        return Err(invalid(format!(
            "expected {n} x {dim} numbers, got {} bytes: the file is cut or damaged",
            bytes.len()
        )));
    }
    let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    Ok((bytes.chunks_exact(4).map(number).collect(), *dim))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn file(values: &[f32], dim: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_npy_header(&mut bytes, values.len() / dim, dim).unwrap();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    #[test]
    fn header_and_data_are_numpys() {
        let bytes = file(&[1.0, 2.0, 3.0, -4.0, 5.0, 6.0], 3);
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        assert_eq!((10 + length) % 64, 0);
        let header = String::from_utf8(bytes[10..10 + length].to_vec()).unwrap();
        assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"), "{header}");
        assert!(header.ends_with('\n'));
    }

    #[test]
    fn what_is_written_is_read() {
        let values = [1.0, 2.0, 3.0, -4.0, 5.0, f32::MIN_POSITIVE];
        assert_eq!(read_npy(file(&values, 3).as_slice()).unwrap(), (values.to_vec(), 3));
    }

    #[test]
    fn other_files_say_what_they_are() {
        let refused = |bytes: &[u8]| read_npy(bytes).unwrap_err().to_string();
        assert!(refused(b"PK\x03\x04 anything else").contains("no NumPy array file"));
        let whole = file(&[1.0; 6], 3);
        assert!(refused(&whole[..whole.len() - 1]).contains("cut or damaged"));
        assert!(refused(&[whole.clone(), vec![0]].concat()).contains("cut or damaged"));
        let double = String::from_utf8_lossy(&whole).replace("<f4", "<f8");
        assert!(read_npy(double.as_bytes()).is_err());
    }
}
