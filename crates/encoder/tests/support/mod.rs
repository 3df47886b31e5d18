//! Golden data and the reproducible weights that they were computed with.

#![allow(dead_code, reason = "each test binary uses a part of this module")]

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use twoview_encoder::{Arch, EncoderConfig, ResNet, Stem, load_named, named_tensors};

/// The folder of the golden encoder files.
pub(crate) fn golden_folder() -> PathBuf {
    std::env::var_os("TWOVIEW_GOLDEN")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from("../../tests/golden"))
        .join("encoder")
}

pub(crate) fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// CRC-32 of zlib, which keys the fill of a tensor by its name.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// The numbers `u` in `[-1, 1)` that fill the tensor `name`.
pub(crate) fn unit_values(name: &str, salt: u64, len: usize) -> Vec<f64> {
    let start = (u64::from(crc32(name.as_bytes())) << 32) | salt;
    (1..=len as u64)
        .map(|i| {
            let mut z = start.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            (z >> 40) as f64 * f64::powi(2.0, -23) - 1.0
        })
        .collect()
}

/// The values of the state-dict entry `name`, rounded to single precision.
#[allow(clippy::cast_possible_truncation, reason = "the golden weights are rounded to f32")]
pub(crate) fn fill(name: &str, shape: &[usize], salt: u64) -> TensorData {
    let units = unit_values(name, salt, shape.iter().product());
    let fan_in: usize = shape.iter().skip(1).product();
    let scale = (6.0 / fan_in as f64).sqrt();
    let value = |u: f64| match (name.rsplit('.').next(), shape.len()) {
        (Some("running_var"), _) => 1.0 + 0.5 * u.abs(),
        (Some("running_mean" | "bias"), _) => 0.1 * u,
        (Some("weight"), 1) => 1.0 + 0.1 * u,
        (Some("weight"), _) => scale * u,
        _ => u,
    };
    let values: Vec<f32> = units.into_iter().map(|u| value(u) as f32).collect();
    TensorData::new(values, shape.to_vec())
}

/// Every tensor of the module replaced by its golden fill.
pub(crate) fn filled<M: Module>(module: M, salt: u64) -> M {
    let tensors: Vec<_> = named_tensors(&module)
        .into_iter()
        .map(|(name, data)| {
            let filled = fill(&name, data.shape().as_slice(), salt);
            (name, filled)
        })
        .collect();
    load_named(module, tensors).expect("names and shapes are the module's own")
}

/// A small encoder for tests that are not about numbers.
pub(crate) fn small_encoder(seed: u64, device: &Device) -> ResNet {
    EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 4 }.init(seed, device).expect("valid")
}

pub(crate) fn images(n_images: usize, size_px: usize, salt: u64, device: &Device) -> Tensor<4> {
    let data = fill("input", &[n_images, 3, size_px, size_px], salt);
    Tensor::from_data(data, device)
}

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32")
}
