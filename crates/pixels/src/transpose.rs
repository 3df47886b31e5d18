//! Exchanging rows and columns of bytes, sixteen by sixteen.

/// Side of the blocks that are turned at once.
pub(crate) const BLOCK: usize = 16;

type Block = [[u8; BLOCK]; BLOCK];

/// Bytes in rows, each row at a fixed distance from the one before.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) stride: usize,
}

impl Rows<'_> {
    /// Sixteen bytes from `column` on; what lies behind the end of the slice counts as 0.
    fn sixteen(&self, row: usize, column: usize) -> [u8; BLOCK] {
        let start = row * self.stride + column;
        if let Some(bytes) = self.bytes.get(start..start + BLOCK).and_then(|bytes| bytes.first_chunk()) {
            return *bytes;
        }
        let mut padded = [0; BLOCK];
        let rest = self.bytes.get(start..).unwrap_or_default();
        padded[..rest.len()].copy_from_slice(rest);
        padded
    }
}

/// `to[column · to_stride + row] = from[row · stride + column]` for all `rows` and `columns`.
///
/// Whole blocks are written, so `to` must hold `⌈columns / 16⌉ · 16` rows and each of them, but for the last, that many
/// bytes more than the next begins after: `to_stride ≥ ⌈rows / 16⌉ · 16`. What a block holds beyond the rows and columns
/// asked for is of no meaning.
pub(crate) fn transpose(from: Rows<'_>, rows: usize, columns: usize, to: &mut [u8], to_stride: usize) {
    // Rows innermost: what a block writes, the next continues, while it is still in the nearest cache.
    for column in (0..columns).step_by(BLOCK) {
        for row in (0..rows).step_by(BLOCK) {
            let start = row * from.stride + column;
            let n_rows = (rows - row).min(BLOCK);
            let whole = start + (BLOCK - 1) * from.stride + BLOCK;
            let block = match from.bytes.get(start..whole) {
                Some(bytes) if n_rows == BLOCK => {
                    prefetch(&from.bytes[start..], from.stride);
                    whole_block(bytes, from.stride)
                }
                _ => {
                    let mut block = [[0; BLOCK]; BLOCK];
                    for (i, line) in block[..n_rows].iter_mut().enumerate() {
                        *line = from.sixteen(row + i, column);
                    }
                    block
                }
            };
            write_turned(&block, &mut to[column * to_stride + row..], to_stride);
        }
    }
}

/// Sixteen lines of sixteen bytes, all of which are there.
#[inline(always)]
fn whole_block(bytes: &[u8], stride: usize) -> Block {
    let mut block = [[0; BLOCK]; BLOCK];
    for i in 0..BLOCK {
        if let Some(line) = bytes[i * stride..].first_chunk::<BLOCK>() {
            block[i] = *line;
        }
    }
    block
}

/// Asks for what lies two cache lines to the right in sixteen rows. Short pieces of many rows are a pattern that no
/// processor foresees, and a picture that was decoded long ago lies in main memory.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables, reason = "elsewhere the instruction is not stable"))]
fn prefetch(bytes: &[u8], stride: usize) {
    #[cfg(target_arch = "x86_64")]
    for i in 0..BLOCK {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let ahead = bytes.as_ptr().wrapping_add(i * stride + 128);
        // SAFETY: a hint; it reads nothing and may point anywhere.
        #[allow(unsafe_code, reason = "the intrinsic takes a pointer")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
        }
    }
}

#[inline(always)]
fn write_turned(block: &Block, to: &mut [u8], stride: usize) {
    let lines = turned(block);
    for i in 0..BLOCK {
        if let Some(line) = to[i * stride..].first_chunk_mut::<BLOCK>() {
            *line = lines[i];
        }
    }
}

/// The plain definition, and what processors without a sibling below use.
#[cfg(any(test, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn turned_plainly(block: &Block) -> Block {
    std::array::from_fn(|column| std::array::from_fn(|row| block[row][column]))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use turned_plainly as turned;

/// Each row interleaved with the one eight below: that turns the four bits of the row and the four of the column by one
/// place, so that after four times they have changed places.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn interleaved<T: Copy>(lines: [T; BLOCK], zip: impl Fn(T, T) -> (T, T)) -> [T; BLOCK] {
    let mut out = lines;
    for i in 0..BLOCK / 2 {
        (out[2 * i], out[2 * i + 1]) = zip(lines[i], lines[i + BLOCK / 2]);
    }
    out
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vectors are arrays of bytes to the compiler only when told")]
#[inline(always)]
fn turned(block: &Block) -> Block {
    use std::arch::x86_64::{__m128i, _mm_unpackhi_epi8, _mm_unpacklo_epi8};

    #[inline(always)]
    fn zip(one: __m128i, other: __m128i) -> (__m128i, __m128i) {
        // SAFETY: every x86-64 processor has SSE2.
        unsafe { (_mm_unpacklo_epi8(one, other), _mm_unpackhi_epi8(one, other)) }
    }

    // SAFETY: both are 256 bytes of which every bit pattern is valid.
    let lines: [__m128i; BLOCK] = unsafe { std::mem::transmute::<Block, [__m128i; BLOCK]>(*block) };
    let lines = interleaved(interleaved(interleaved(interleaved(lines, zip), zip), zip), zip);
    // SAFETY: as above, the other way.
    unsafe { std::mem::transmute::<[__m128i; BLOCK], Block>(lines) }
}

/// As on x86-64, with the same operation under its other name.
#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code, reason = "vectors are arrays of bytes to the compiler only when told")]
#[inline(always)]
fn turned(block: &Block) -> Block {
    use std::arch::aarch64::{uint8x16_t, vzip1q_u8, vzip2q_u8};

    #[inline(always)]
    fn zip(one: uint8x16_t, other: uint8x16_t) -> (uint8x16_t, uint8x16_t) {
        // SAFETY: every 64-bit ARM processor that Rust supports has NEON.
        unsafe { (vzip1q_u8(one, other), vzip2q_u8(one, other)) }
    }

    // SAFETY: both are 256 bytes of which every bit pattern is valid.
    let lines: [uint8x16_t; BLOCK] = unsafe { std::mem::transmute::<Block, [uint8x16_t; BLOCK]>(*block) };
    let lines = interleaved(interleaved(interleaved(interleaved(lines, zip), zip), zip), zip);
    // SAFETY: as above, the other way.
    unsafe { std::mem::transmute::<[uint8x16_t; BLOCK], Block>(lines) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_is_turned() {
        let block = std::array::from_fn(|row| {
            std::array::from_fn(|column| u8::try_from(row * 16 + column).expect("at most 255"))
        });
        assert_eq!(turned(&block), turned_plainly(&block));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_rectangle_is_turned(rows in 1_usize..40, columns in 1_usize..70, beside in 0_usize..20) {
            let stride = columns + beside;
            // The slice ends with the last byte asked for, so that reading on would show.
            let bytes: Vec<u8> = (0..(rows - 1) * stride + columns).map(|i| u8::try_from(i * 7 % 251).expect("at most 250")).collect();
            let to_stride = rows.next_multiple_of(BLOCK);
            let mut to = vec![0; columns.next_multiple_of(BLOCK) * to_stride];
            transpose(Rows { bytes: &bytes, stride }, rows, columns, &mut to, to_stride);
            for row in 0..rows {
                for column in 0..columns {
                    prop_assert_eq!(to[column * to_stride + row], bytes[row * stride + column]);
                }
            }
        }
    }
}
