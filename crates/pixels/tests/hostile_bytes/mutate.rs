//! Damage to files, the same on every run: what a fuzzer does, without one.

/// SplitMix64: a stream of numbers from a seed.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not zero.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        usize::try_from(self.next() % n).expect("below a usize")
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// Lengths and counts that programs get wrong.
const NUMBERS: [u32; 8] = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff];

/// One to four damages to a copy of the file. Half of them hit the first 128 bytes, where the headers are.
pub(crate) fn damaged(file: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..=numbers.below(4) {
        if bytes.is_empty() {
            bytes.push(numbers.byte());
        }
        let range = if numbers.below(2) == 0 { bytes.len() } else { bytes.len().min(128) };
        let at = numbers.below(range);
        match numbers.below(7) {
            0 => bytes[at] ^= 1 << numbers.below(8),
            1 => bytes[at] = numbers.byte(),
            2 | 3 => {
                let number = NUMBERS[numbers.below(NUMBERS.len())];
                let number = if numbers.below(2) == 0 { number.to_le_bytes() } else { number.to_be_bytes() };
                let width = [1, 2, 4][numbers.below(3)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[4 - width..]);
            }
            4 => bytes.truncate(at),
            5 => {
                let end = (at + 1 + numbers.below(64)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let end = (at + 1 + numbers.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
    bytes
}
