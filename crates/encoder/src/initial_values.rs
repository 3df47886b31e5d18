//! Initial weights drawn on the host from `(seed, tensor name)`.
//!
//! Burn's own initializers draw from the generator of the device when a parameter is first used, so the weights
//! depend on the backend and on the order of operations. Here value `i` of a tensor is a function of the seed,
//! the tensor's name and `i`, in integer arithmetic and `libm`, hence equal on every platform.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};

/// The increment of SplitMix64, 2⁶⁴ divided by the golden ratio.
const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The source of a module's initial parameters, already on its device.
pub(crate) struct InitialValues<'a> {
    seed: u64,
    device: &'a Device,
}

impl<'a> InitialValues<'a> {
    pub(crate) fn new(seed: u64, device: &'a Device) -> Self {
        Self { seed, device }
    }

    /// The device that the parameters are made on.
    pub(crate) fn device(&self) -> &Device {
        self.device
    }

    /// A convolution weight `[out, in, k, k]` with torchvision's initialization: normal with mean 0 and variance
    /// `2 / (out · k · k)` (He et al. 2015, "fan out", gain of a ReLU).
    pub(crate) fn conv_weight(&self, name: &str, shape: [usize; 4]) -> Param<Tensor<4>> {
        let [out_channels, _, kernel_height, kernel_width] = shape;
        let std = (2.0 / (out_channels * kernel_height * kernel_width) as f64).sqrt();
        let draws = Draws::new(self.seed, name);
        let n_values = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..n_values.div_ceil(2) as u64)
            .flat_map(|pair| draws.normal_pair(pair).map(|normal| to_f32(std * normal)))
            .take(n_values)
            .collect();
        Param::from_data(TensorData::new(values, shape), self.device)
    }

    /// Values uniform in `[-bound, bound)`. A linear layer of PyTorch starts with `bound = 1/√fan_in` for its
    /// weight (Kaiming-uniform with `a = √5`) and for its bias.
    pub(crate) fn uniform<const D: usize>(&self, name: &str, shape: [usize; D], bound: f64) -> Param<Tensor<D>> {
        let draws = Draws::new(self.seed, name);
        let values: Vec<f32> =
            (0..shape.iter().product::<usize>() as u64).map(|i| to_f32(bound * (2.0 * draws.unit(i) - 1.0))).collect();
        Param::from_data(TensorData::new(values, shape), self.device)
    }

    /// A vector with every entry equal to `value`.
    pub(crate) fn constant(&self, len: usize, value: f32) -> Param<Tensor<1>> {
        Param::from_data(TensorData::new(vec![value; len], [len]), self.device)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "parameters are kept in single precision")]
fn to_f32(value: f64) -> f32 {
    value as f32
}

/// The random numbers of one tensor, addressable by index.
struct Draws {
    key: u64,
}

impl Draws {
    fn new(seed: u64, name: &str) -> Self {
        Self { key: mix(mix(seed.wrapping_add(GOLDEN_GAMMA)) ^ fnv1a(name)) }
    }

    fn bits(&self, index: u64) -> u64 {
        mix(self.key.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA)))
    }

    /// Uniform in `[0, 1)` with 53 random bits.
    fn unit(&self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 * f64::powi(2.0, -53)
    }

    /// Two independent standard normal numbers (Box and Muller 1958).
    fn normal_pair(&self, pair: u64) -> [f64; 2] {
        // 1 - u lies in (0, 1], where the logarithm is finite.
        let radius = (-2.0 * libm::log(1.0 - self.unit(2 * pair))).sqrt();
        let (sin, cos) = libm::sincos(core::f64::consts::TAU * self.unit(2 * pair + 1));
        [radius * cos, radius * sin]
    }
}

/// The output function of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The 64-bit FNV-1a hash of the UTF-8 bytes.
fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv_values(seed: u64, name: &str) -> Vec<f32> {
        let device = Device::flex();
        let weight = InitialValues::new(seed, &device).conv_weight(name, [50, 20, 5, 5]);
        weight.val().into_data().try_to_vec().expect("f32")
    }

    fn moment(values: &[f32], power: i32) -> f64 {
        values.iter().map(|&v| f64::from(v).powi(power)).sum::<f64>() / values.len() as f64
    }

    #[test]
    fn published_test_vectors_of_the_hashes() {
        assert_eq!(fnv1a(""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(fnv1a("a"), 0xAF63_DC4C_8601_EC8C);
        // The first outputs of SplitMix64 seeded with 1234567 (Rosetta Code).
        let stream = Draws { key: 1_234_567 };
        assert_eq!(stream.bits(0), 6_457_827_717_110_365_317);
        assert_eq!(stream.bits(1), 3_203_168_211_198_807_973);
    }

    #[test]
    fn the_values_of_a_seed_never_change() {
        // By a Python program with its own `math.log`, `cos` and `sin`.
        let want = [0.001_249_243_5_f32, -0.041_692_43, -0.075_436_1, 0.027_451_906];
        for (got, want) in conv_values(7, "conv1.weight").iter().zip(want) {
            assert!((got - want).abs() <= f32::EPSILON * want.abs(), "got {got}, want {want}");
        }
    }

    #[test]
    fn conv_weights_have_the_moments_of_the_normal_distribution() {
        let values = conv_values(7, "conv1.weight");
        let variance = 2.0 / (50.0 * 25.0);
        let n = values.len() as f64;
        // Five standard errors of each sample moment.
        assert!(moment(&values, 1).abs() < 5.0 * (variance / n).sqrt());
        assert!((moment(&values, 2) / variance - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
        assert!((moment(&values, 4) / variance.powi(2) - 3.0).abs() < 5.0 * (96.0 / n).sqrt());
    }

    #[test]
    fn seed_and_name_both_change_every_value() {
        let base = conv_values(0, "conv1.weight");
        assert_eq!(base, conv_values(0, "conv1.weight"));
        for other in [conv_values(1, "conv1.weight"), conv_values(0, "conv2.weight")] {
            let n_equal = base.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(n_equal < 5, "{n_equal} equal values");
            let correlation: f64 = base.iter().zip(&other).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
                / base.len() as f64
                / moment(&base, 2);
            assert!(correlation.abs() < 5.0 / (base.len() as f64).sqrt(), "{correlation}");
        }
    }

    #[test]
    fn uniform_values_fill_their_interval() {
        let device = Device::flex();
        let param = InitialValues::new(3, &device).uniform("layers.0.weight", [100, 100], 0.25);
        let values: Vec<f32> = param.val().into_data().try_to_vec().expect("f32");
        assert!(values.iter().all(|v| (-0.25..=0.25).contains(v)));
        assert!(moment(&values, 1).abs() < 5.0 * 0.25 / (3.0_f64 * 1e4).sqrt());
        assert!((moment(&values, 2) * 48.0 - 1.0).abs() < 0.05);
    }
}
