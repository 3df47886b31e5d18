//! Random numbers by address: Philox4x32-10, a counter-based generator, and the few distributions views need.

/// Multipliers of the two halves of a Philox round.
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// Increments of the key per round: the golden ratio and `√3 − 1` in 32-bit fixed point.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The stream of random numbers at one address `(seed, epoch, sample, view, op)`.
///
/// Streams at different addresses are independent, and making one costs nothing: there is no state to carry from
/// sample to sample, so any view of any sample can be drawn at any time, on any thread.
///
/// # Conventions
/// The generator is Philox4x32-10. Its 64-bit key is the seed. Its counter is
///
/// | word | bits | content |
/// |---|---|---|
/// | 0 | 32 | block: the n-th four outputs of this stream |
/// | 1 | 32 | sample, low half |
/// | 2 | 32 | epoch |
/// | 3 | 16 + 8 + 8 | sample, bits 32 to 47; view, bits 0 to 7; op |
///
/// The remaining bits of the sample (48 to 63) and of the view (8 to 31) are exclusive-ored into disjoint bits of the
/// key, so that no two addresses of the same seed share a block, whatever their values.
/// A stream has `2^34` outputs and then repeats.
///
/// `op` separates decisions about the same view, so that one more decision does not shift the others. The values
/// below `0x80` belong to the transforms of this crate; callers are free to use `0x80` and above.
///
/// Nothing here uses floating point beyond exact operations and `libm`: every platform draws the same numbers.
///
/// # Source
/// Salmon, Moraes, Dror, Shaw, *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011.
///
/// # Example
/// ```
/// use twoview_augment::Stream;
///
/// let mut dice = Stream::new(42, 0, 7, 0, 0x80);
/// let throw = 1 + dice.below(6);
/// assert!((1..=6).contains(&throw));
/// assert_eq!(throw, 1 + Stream::new(42, 0, 7, 0, 0x80).below(6)); // The same address, the same numbers.
/// ```
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    /// How many words of `block` are spent.
    spent: usize,
}

impl Stream {
    /// The stream at an address, from its first number.
    #[allow(clippy::cast_possible_truncation, reason = "wide numbers are cut into their 32-bit words")]
    pub fn new(seed: u64, epoch: u32, sample: u64, view: u32, op: u8) -> Stream {
        let high_sample = (sample >> 48) << 48; // Key bits 48 to 63.
        let high_view = u64::from(view >> 8); // Key bits 0 to 23.
        let key = seed ^ high_sample ^ high_view;
        let lane = ((sample >> 32) as u32 & 0xFFFF) << 16 | (view & 0xFF) << 8 | u32::from(op);
        Stream {
            key: [key as u32, (key >> 32) as u32],
            counter: [0, sample as u32, epoch, lane],
            block: [0; 4],
            spent: 4,
        }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.spent == self.block.len() {
            self.block = philox4x32_10(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.spent = 0;
        }
        self.spent += 1;
        self.block[self.spent - 1]
    }

    /// The next 64 random bits, the low half drawn first.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        u64::from(self.next_u32()) << 32 | low
    }

    /// Uniform in `[0, 1)`, a multiple of `2^-24`.
    #[allow(clippy::cast_precision_loss, reason = "24 bits are exact in f32")]
    pub fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `[0, 1)`, a multiple of `2^-53`.
    #[allow(clippy::cast_precision_loss, reason = "53 bits are exact in f64")]
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Uniform between `low` and `high`: `low + u·(high − low)` in f32, as `torch.Tensor.uniform_` computes it.
    ///
    /// Rounding can reach `high` itself, but nothing beyond either end.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        (low + self.uniform_f32() * (high - low)).max(low).min(high)
    }

    /// Uniform among the integers `0 .. n`, without bias; 0 if `n` is 0.
    ///
    /// Lemire, *Fast Random Integer Generation in an Interval*, 2019: multiply, and redraw the few low products
    /// that would favour some results. Usually one draw.
    #[allow(clippy::cast_possible_truncation, reason = "the two halves of a 64-bit product")]
    pub fn below(&mut self, n: u32) -> u32 {
        let mut product = u64::from(self.next_u32()) * u64::from(n);
        if (product as u32) < n {
            let unfair = n.wrapping_neg() % n;
            while (product as u32) < unfair {
                product = u64::from(self.next_u32()) * u64::from(n);
            }
        }
        (product >> 32) as u32
    }

    /// `true` with probability `p`: exactly never at 0 and always at 1.
    pub fn bool(&mut self, p: f32) -> bool {
        self.uniform_f32() < p
    }

    /// A standard normal number by Box and Muller's method; each call spends two uniform numbers.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * libm::log(1.0 - self.uniform_f64())).sqrt(); // 1 − u is never 0.
        radius * libm::cos(std::f64::consts::TAU * self.uniform_f64())
    }
}

/// The block function: ten rounds of a keyed bijection of the counter.
#[allow(clippy::cast_possible_truncation, reason = "the two halves of a 64-bit product")]
fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let even = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let odd = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (odd >> 32) as u32 ^ counter[1] ^ key[0],
            odd as u32,
            (even >> 32) as u32 ^ counter[3] ^ key[1],
            even as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn agrees_with_the_authors_known_answers() {
        for (counter, key, want) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            // The digits of pi.
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox4x32_10(counter, key), want);
        }
    }

    #[test]
    fn a_stream_is_its_blocks_in_order() {
        let mut stream = Stream::new(0, 0, 0, 0, 0);
        let words: Vec<u32> = (0..8).map(|_| stream.next_u32()).collect();
        assert_eq!(words[..4], philox4x32_10([0; 4], [0; 2]));
        assert_eq!(words[4..], philox4x32_10([1, 0, 0, 0], [0; 2]));
    }

    #[test]
    fn every_part_of_an_address_counts() {
        let mut addresses = HashSet::new();
        let mut insert = |epoch, sample, view, op| {
            let Stream { key, counter, .. } = Stream::new(7, epoch, sample, view, op);
            assert_eq!(counter[0], 0, "the block is not part of the address");
            assert!(addresses.insert((key, counter)), "{epoch}, {sample}, {view}, {op}");
        };
        insert(0, 0, 0, 0);
        for bit in 0..64 {
            insert(0, 1 << bit, 0, 0);
        }
        for bit in 0..32 {
            insert(1 << bit, 0, 0, 0);
            insert(0, 0, 1 << bit, 0);
        }
        for bit in 0..8 {
            insert(0, 0, 0, 1 << bit);
        }
        insert(u32::MAX, u64::MAX, u32::MAX, u8::MAX);
        assert_ne!(Stream::new(7, 0, 0, 0, 0).next_u32(), Stream::new(8, 0, 0, 0, 0).next_u32());
    }

    #[test]
    fn bounded_integers_are_fair() {
        let mut stream = Stream::new(1, 0, 0, 0, 0x80);
        for n in [1, 2, 3, 7, 10] {
            let mut counts = vec![0_i32; n as usize];
            for _ in 0..70_000 {
                counts[stream.below(n) as usize] += 1;
            }
            let want = 70_000 / n.cast_signed();
            // Six standard deviations of a binomial count.
            let slack = 6.0 * f64::from(want).sqrt();
            assert!(counts.iter().all(|count| f64::from((count - want).abs()) <= slack), "{n}: {counts:?}");
        }
        assert_eq!(stream.below(0), 0);
        // Where a plain multiplication would be most unfair: two results of three would be twice as likely.
        let n = 3 << 30;
        let low = (0..30_000).filter(|_| stream.below(n) < 1 << 30).count();
        assert!((9_500..=10_500).contains(&low), "{low} of 30,000 in the lowest third");
    }

    #[test]
    fn uniform_and_normal_numbers_have_their_moments() {
        let mut stream = Stream::new(2, 0, 0, 0, 0x80);
        let n = 100_000;
        let moments = |numbers: Vec<f64>| {
            let mean = numbers.iter().sum::<f64>() / f64::from(n);
            (mean, numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n))
        };
        let (mean, variance) = moments((0..n).map(|_| f64::from(stream.uniform(-1.0, 3.0))).collect());
        assert!((mean - 1.0).abs() < 0.02 && (variance - 16.0 / 12.0).abs() < 0.03, "{mean}, {variance}");
        let (mean, variance) = moments((0..n).map(|_| stream.normal()).collect());
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean}, {variance}");
        let numbers = (0..n).map(|_| f64::from(stream.uniform_f32())).collect::<Vec<_>>();
        assert!(numbers.iter().all(|x| (0.0..1.0).contains(x)));
    }

    #[test]
    fn certain_and_impossible_events() {
        let mut stream = Stream::new(3, 0, 0, 0, 0x80);
        assert!((0..10_000).all(|_| stream.bool(1.0)));
        assert!((0..10_000).all(|_| !stream.bool(0.0)));
        assert_eq!(stream.uniform(0.25, 0.25), 0.25);
    }
}
