//! Names, shapes and parameter counts against torchvision's state dicts.

mod support;

use burn::tensor::Device;
use support::{golden_folder, read_json};
use twoview_encoder::{Arch, EncoderConfig, Stem, n_parameters, named_tensors};

#[test]
fn names_and_shapes_are_torchvisions_in_its_order() {
    let device = Device::flex();
    let golden = read_json(&golden_folder().join("state_dict_shapes.json"));
    for (key, want) in golden.as_object().expect("lists by network") {
        let (arch, stem) = match key.strip_suffix("_cifar") {
            Some(arch) => (arch, "cifar"),
            None => (key.as_str(), "imagenet"),
        };
        let config = serde_json::json!({ "arch": arch, "stem": stem, "width": 64 });
        let config: EncoderConfig = serde_json::from_value(config).expect("known network");

        let want: Vec<(String, Vec<usize>)> = serde_json::from_value(want.clone()).expect("names and shapes");
        let is_ours = |name: &str| !name.starts_with("fc.") && !name.ends_with("num_batches_tracked");
        let want: Vec<_> = want.into_iter().filter(|(name, _)| is_ours(name)).collect();
        let got: Vec<_> = named_tensors(&config.init(0, &device).expect("valid"))
            .into_iter()
            .map(|(name, data)| (name, data.shape().as_slice().to_vec()))
            .collect();
        assert_eq!(got, want, "{key}");
    }
}

#[test]
fn parameter_counts_are_torchvisions_without_the_classifier() {
    let cases = [
        (Arch::Resnet18, Stem::Imagenet, 11_176_512),
        (Arch::Resnet18, Stem::Cifar, 11_168_832),
        (Arch::Resnet34, Stem::Imagenet, 21_284_672),
        (Arch::Resnet50, Stem::Imagenet, 23_508_032),
    ];
    for (arch, stem, want) in cases {
        let encoder = EncoderConfig { arch, stem, width: 64 }.init(0, &Device::flex()).expect("valid");
        assert_eq!(n_parameters(&encoder), want, "{arch:?} {stem:?}");
    }
}
