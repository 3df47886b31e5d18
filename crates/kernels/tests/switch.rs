//! The process-wide switch, alone in its process.

use burn::tensor::{Device, Tensor, TensorData};
use twoview_kernels::{ConvNorm, Shortcut, batch_norm_train, conv2d, enabled, residual_block, set_enabled};

/// Forward values of the operations in a row, and the weight's gradient.
fn step() -> (Vec<f32>, Vec<f32>) {
    let device = Device::flex().autodiff();
    let wave = |count: usize| (0..count).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>();
    let x = Tensor::<4>::from_data(TensorData::new(wave(4 * 3 * 64), [4, 3, 8, 8]), &device);
    let weight = Tensor::<4>::from_data(TensorData::new(wave(81), [3, 3, 3, 3]), &device).require_grad();
    let y = conv2d(x.clone(), weight.clone(), [1, 1], [1, 1]);
    let norm = batch_norm_train(y, Tensor::ones([3], &device), Tensor::zeros([3], &device), 1e-5, true);
    let layer = ConvNorm {
        weight: weight.clone(),
        gamma: Tensor::ones([3], &device),
        beta: Tensor::zeros([3], &device),
        stride: [1, 1],
        padding: [1, 1],
        eps: 1e-5,
    };
    let y = residual_block(norm.output + x, vec![layer], Shortcut::Identity, false).output;
    let gradients = (y.clone() * y.clone()).sum().backward();
    let values = |data: TensorData| data.try_to_vec::<f32>().expect("f32");
    (values(y.into_data()), values(weight.grad(&gradients).expect("a leaf").into_data()))
}

#[test]
fn switched_off_the_results_are_burns_and_agree() {
    assert!(enabled());
    let fast = step();
    set_enabled(false);
    assert!(!enabled());
    let stock = step();
    set_enabled(true);
    assert_eq!(step(), fast);
    // Rounding alone: values are near 1, gradients near 100, f32 carries seven digits.
    for (fast, stock) in fast.0.iter().zip(&stock.0).chain(fast.1.iter().zip(&stock.1)) {
        assert!((fast - stock).abs() <= 1e-5 * stock.abs().max(10.0), "fast {fast}, stock {stock}");
    }
    assert_ne!(fast, stock, "equal to the last bit: the switch did nothing");
}
