//! What a training forward changes, and what it must leave alone.

mod support;

use burn::module::Module;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, TensorData};
use support::{filled, images, small_encoder, values};
use twoview_encoder::{FrozenEncoder, HeadConfig, NamedTensors, ProjectionHead, ResNet, load_named, named_tensors};

fn running(tensors: NamedTensors) -> NamedTensors {
    tensors.into_iter().filter(|(name, _)| name.contains("running_")).collect()
}

fn tensor(module: &ResNet, name: &str) -> TensorData {
    let mut tensors = named_tensors(module).into_iter();
    tensors.find(|(candidate, _)| candidate == name).expect("known name").1
}

#[test]
fn equal_seeds_make_equal_networks_on_plain_and_autodiff_devices() {
    let plain = named_tensors(&small_encoder(3, &Device::flex()));
    assert_eq!(plain, named_tensors(&small_encoder(3, &Device::flex().autodiff())));
    assert_ne!(plain, named_tensors(&small_encoder(4, &Device::flex())));
}

#[test]
fn a_forward_before_another_network_is_built_does_not_change_its_weights() {
    let device = Device::flex().autodiff();
    let first = small_encoder(3, &device);
    first.forward(images(2, 8, 0, &device));
    let weight = |encoder: &ResNet| tensor(encoder, "layer4.1.conv2.weight");
    assert_eq!(weight(&first), weight(&small_encoder(3, &device)));
}

#[test]
fn each_forward_moves_the_running_statistics_once_and_at_once() {
    let device = Device::flex().autodiff();
    let encoder = small_encoder(0, &device);
    let mean = |encoder: &ResNet| tensor(encoder, "bn1.running_mean").try_to_vec::<f32>().expect("f32");

    encoder.forward(images(2, 8, 0, &device));
    let first = mean(&encoder);
    encoder.forward(images(2, 8, 0, &device));
    // From 0 towards m: 0.1 m, then 0.19 m.
    for (first, second) in first.iter().zip(mean(&encoder)) {
        assert!(first.abs() > 1e-6);
        assert!((second / first - 1.9).abs() < 1e-4, "{first} then {second}");
    }
}

#[test]
fn a_frozen_encoder_and_a_clone_do_not_follow_later_training() {
    let device = Device::flex().autodiff();
    let encoder = small_encoder(0, &device);
    encoder.forward(images(2, 8, 0, &device));
    let (frozen, cloned, state) = (FrozenEncoder::new(&encoder), encoder.clone(), named_tensors(&encoder));
    let probe = images(2, 8, 1, &frozen.device());
    let features = frozen.forward(probe.clone()).into_data();

    encoder.forward(images(2, 8, 2, &device));
    assert_ne!(named_tensors(&encoder), state);
    assert_eq!(frozen.named_tensors(), state);
    assert_eq!(named_tensors(&cloned), state);
    assert_eq!(frozen.forward(probe).into_data(), features);

    cloned.forward(images(2, 8, 3, &device));
    assert_ne!(named_tensors(&cloned), named_tensors(&encoder));
    assert_eq!(frozen.named_tensors(), state);
}

#[test]
fn a_frozen_encoder_ignores_autodiff_inputs() {
    let device = Device::flex().autodiff();
    let frozen = FrozenEncoder::new(&small_encoder(0, &device));
    let state = frozen.named_tensors();
    let features = frozen.forward(images(2, 8, 0, &device).require_grad());
    assert!(!features.is_autodiff());
    assert_eq!(frozen.named_tensors(), state);
}

#[test]
fn a_freshly_frozen_encoder_sees_the_statistics_of_the_last_forward() {
    let device = Device::flex().autodiff();
    let encoder = small_encoder(0, &device);
    encoder.forward(images(4, 8, 0, &device));
    assert_eq!(FrozenEncoder::new(&encoder).named_tensors(), named_tensors(&encoder));
    assert_eq!(named_tensors(&encoder.valid().train()), named_tensors(&encoder));
}

#[test]
fn loading_replaces_statistics_that_a_forward_just_moved() {
    let device = Device::flex().autodiff();
    let state = named_tensors(&filled(small_encoder(0, &device), 7));
    let used = small_encoder(1, &device);
    used.forward(images(2, 8, 0, &device));
    let loaded = load_named(used, state.clone()).expect("fits");
    assert_eq!(named_tensors(&loaded), state);

    // The next update starts from the loaded values and not from a pending one.
    let fresh = load_named(small_encoder(2, &device), state).expect("fits");
    for encoder in [&loaded, &fresh] {
        encoder.forward(images(2, 8, 1, &device));
    }
    assert_eq!(named_tensors(&loaded), named_tensors(&fresh));
}

#[test]
fn a_training_step_moves_every_parameter_and_leaves_the_statistics_of_its_forward() {
    let device = Device::flex().autodiff();
    let encoder = small_encoder(0, &device);
    let head = HeadConfig { n_layers: 2, hidden_dim: 16, output_dim: 8, batch_norm: true }
        .init(encoder.feature_dim(), 0, &device)
        .expect("valid");
    let before = (named_tensors(&encoder), named_tensors(&head));

    let z = head.forward(encoder.forward(images(4, 16, 0, &device)));
    let after_forward = (named_tensors(&encoder), named_tensors(&head));
    let target = images(4, 2, 1, &device).reshape([4, 12]).slice([0..4, 0..8]);
    let mut gradients = (z * target).sum().backward();
    let encoder_gradients = GradientsParams::from_module(&mut gradients, &encoder);
    let head_gradients = GradientsParams::from_module(&mut gradients, &head);
    let mut optimizer = SgdConfig::new().init();
    let encoder = optimizer.step(0.1, encoder, encoder_gradients);
    let mut optimizer = SgdConfig::new().init();
    let head = optimizer.step(0.1, head, head_gradients);

    let after_step = (named_tensors(&encoder), named_tensors(&head));
    for (before, forward, step) in
        [(before.0, after_forward.0, after_step.0), (before.1, after_forward.1, after_step.1)]
    {
        for (((name, old), (_, forward)), (_, new)) in before.iter().zip(&forward).zip(&step) {
            if name.contains("running_") {
                assert_ne!(old, forward, "{name}");
                assert_eq!(forward, new, "{name}");
            } else {
                assert_eq!(old, forward, "{name}");
                assert_ne!(old, new, "{name}");
            }
        }
    }
}

#[test]
fn a_burn_record_carries_the_statistics_of_the_last_forward_into_a_used_module() {
    let device = Device::flex().autodiff();
    let (source, target) = (small_encoder(0, &device), small_encoder(1, &device));
    source.forward(images(2, 8, 0, &device));
    target.forward(images(2, 8, 1, &device));
    let state = named_tensors(&source);
    let target = target.load_record(source.into_record());
    assert_eq!(named_tensors(&target), state);
}

#[test]
fn encoders_and_heads_can_be_shared_by_threads() {
    fn check<T: Send + Sync>() {}
    check::<ResNet>();
    check::<ProjectionHead>();
    check::<FrozenEncoder>();
}

#[test]
fn freezing_stops_gradients_and_statistics() {
    let device = Device::flex().autodiff();
    let encoder = small_encoder(0, &device).freeze();
    let state = running(named_tensors(&encoder));
    let features = encoder.forward(images(2, 8, 0, &device));
    assert_eq!(running(named_tensors(&encoder)), state);
    let frozen = FrozenEncoder::new(&encoder);
    let expected = frozen.forward(images(2, 8, 0, &frozen.device()));
    assert_eq!(values(features.inner()), values(expected));
}
