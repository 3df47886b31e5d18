//! The same operations on every instruction set, alone in their process because the choice is the process's.

use burn::tensor::{Device, Tensor, TensorData};
use twoview_kernels::{
    ConvBias, ConvNorm, InstructionSet, SgdRule, Shortcut, global_average_pool, instruction_set, limit_instruction_set,
    max_pool2d, residual_block, sgd_step, sum_of_squares,
};

fn wave<const D: usize>(shape: [usize; D], phase: f32, device: &Device) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7 + phase).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn layer(inputs: usize, outputs: usize, kernel: usize, stride: usize, device: &Device) -> ConvNorm {
    // A scale that keeps activations near 1, and offsets that keep every channel away from the ReLU's corner.
    let offsets = (0..outputs).map(|i| if i % 3 == 0 { -9.0 } else { 9.0 }).collect::<Vec<f32>>();
    ConvNorm {
        weight: (wave([outputs, inputs, kernel, kernel], 0.3, device) / (inputs as f32).sqrt()).require_grad(),
        gamma: Tensor::ones([outputs], device).require_grad(),
        beta: Tensor::<1>::from_floats(offsets.as_slice(), device).require_grad(),
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        eps: 1e-5,
    }
}

/// Outputs and gradients of everything that has more than one variant.
fn step() -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let values = |data: TensorData| data.try_to_vec::<f32>().expect("f32");
    let x = wave([3, 20, 13, 11], 0.0, &device).require_grad();
    let branch = vec![layer(20, 70, 3, 2, &device), layer(70, 33, 3, 1, &device)];
    let projection = layer(20, 33, 1, 2, &device);
    let block = residual_block(x.clone(), branch.clone(), Shortcut::Projection(projection.clone()), false);
    let pooled = max_pool2d(block.output.clone(), 3, 2, 1);
    let y = global_average_pool(pooled);
    let gradients = (y.clone() * wave([3, 33], 1.0, &device)).sum().backward();
    let mut results = vec![values(block.output.into_data()), values(y.into_data())];
    results.push(values(x.grad(&gradients).expect("a leaf").into_data()));
    for conv_norm in branch.iter().chain([&projection]) {
        results.push(values(conv_norm.weight.grad(&gradients).expect("a leaf").into_data()));
        results.push(values(conv_norm.gamma.grad(&gradients).expect("a leaf").into_data()));
    }

    let device = Device::flex();
    let (weight, bias) = (wave([40, 20, 3, 3], 0.1, &device), wave([40], 0.2, &device));
    let folded = ConvBias { weight, bias, stride: [1, 1], padding: [1, 1] };
    results.push(values(folded.forward(x.inner(), None, true).into_data()));
    let rule = SgdRule { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.01 };
    let operands = [0.0, 1.0, 2.0].map(|phase| wave([1000], phase, &device));
    let [weight, gradient, velocity] = operands;
    let (weight, velocity) = sgd_step(weight, gradient.clone(), Some(velocity), rule);
    results.push(values(weight.into_data()));
    results.push(values(velocity.expect("momentum").into_data()));
    results.push(values(sum_of_squares(gradient).into_data()));
    results
}

#[test]
fn every_instruction_set_agrees() {
    let widest = instruction_set();
    let want = step();
    for limit in [InstructionSet::Baseline, InstructionSet::Avx2, InstructionSet::Avx512] {
        limit_instruction_set(limit);
        assert_eq!(instruction_set(), limit.min(widest));
        let got = step();
        assert_eq!(step(), got, "the same bits on {limit:?} every time");
        for (which, (got, want)) in got.iter().zip(&want).enumerate() {
            // Sums of a few hundred terms near 1 in another order: a few ulp of the tensor's largest value.
            let scale = want.iter().fold(1.0f32, |scale, value| scale.max(value.abs()));
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() <= 2e-5 * scale, "{limit:?}, result {which}: {got} instead of {want}");
            }
        }
    }
}
