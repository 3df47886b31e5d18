//! Values and gradients of the fast paths against Burn's own operations in f64 and against plain loops.
//!
//! Inputs are uniform in [−1, 1]. A result is compared to the largest magnitude of its tensor, at least 1:
//! f32 has a unit roundoff of 6e-8, the sums here have at most a few thousand terms in vectors of at least four
//! partial sums, so their error is a few times 1e-6 of that magnitude. Hence 1e-5; batch normalization
//! divides by a standard deviation that may be small for few elements, hence 1e-4 there. The cases are fixed: where a
//! value lies within its rounding of zero, a ReLU may pass in f32 and not in f64, and no tolerance covers that.

use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Device, Tensor, TensorData, activation, module};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use twoview_kernels::{
    ConvBias, ConvNorm, Shortcut, batch_norm_train, conv2d, global_average_pool, max_pool2d, residual_block,
};

const EPS: f64 = 1e-5;

/// Numbers that depend on the seed and the position alone.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32) / (1u32 << 23) as f32 - 1.0
        })
        .collect()
}

fn leaf<const D: usize>(values: &[f32], shape: [usize; D], dtype: DType) -> Tensor<D> {
    let device = Device::flex().autodiff();
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (&device, dtype)).require_grad()
}

fn to_f64<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().try_to_vec_as::<f64>().expect("a float tensor")
}

/// The output, then the gradient of each leaf when the output's gradient is noise.
fn run<const K: usize>(
    dtype: DType,
    leaves: [(&[f32], Vec<usize>); K],
    operation: impl Fn(&[Tensor<1>; K]) -> Tensor<4>,
) -> Vec<Vec<f64>> {
    let leaves = leaves.map(|(values, shape)| {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        leaf(values, [values.len()], dtype)
    });
    let y = operation(&leaves);
    let direction = noise(99, y.shape().num_elements());
    let direction = Tensor::<4>::from_data(TensorData::new(direction, y.dims()), (&y.device().inner(), dtype));
    let direction = Tensor::from_inner(direction);
    let mut results = vec![to_f64(y.clone())];
    let gradients = (y * direction).sum().backward();
    results.extend(leaves.iter().map(|leaf| to_f64(leaf.grad(&gradients).expect("every leaf has a gradient"))));
    results
}

#[track_caller]
fn check(got: &[Vec<f64>], want: &[Vec<f64>], tolerance: f64, case: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), want.len());
    for (which, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.len(), want.len(), "result {which} of {case:?}");
        let scale = want.iter().fold(1.0f64, |scale, value| scale.max(value.abs()));
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let error = (got - want).abs();
            assert!(error <= tolerance * scale, "result {which} at {i}: got {got}, want {want}; {case:?}");
        }
    }
}

#[derive(Debug, Clone)]
struct ConvCase {
    x: [usize; 4],
    out_channels: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
}

impl ConvCase {
    fn weight(&self) -> [usize; 4] {
        [self.out_channels, self.x[1], self.kernel[0], self.kernel[1]]
    }

    fn run(
        &self,
        dtype: DType,
        operation: impl Fn(Tensor<4>, Tensor<4>, [usize; 2], [usize; 2]) -> Tensor<4>,
    ) -> Vec<Vec<f64>> {
        let (x, weight) = (self.x, self.weight());
        let values = [noise(1, x.iter().product()), noise(2, weight.iter().product())];
        run(dtype, [(&values[0], x.to_vec()), (&values[1], weight.to_vec())], |[a, b]| {
            operation(a.clone().reshape(x), b.clone().reshape(weight), self.stride, self.padding)
        })
    }

    /// The folded convolution without a graph, and its portable form on an autodiff device.
    #[track_caller]
    fn check_bias(&self, relu: bool, with_shortcut: bool) {
        let values = |seed: u64, shape: [usize; 4]| noise(seed, shape.iter().product());
        let forward = |device: &Device, dtype: DType, fast: bool| {
            let tensor =
                |seed, shape| Tensor::<4>::from_data(TensorData::new(values(seed, shape), shape), (device, dtype));
            let (x, weight) = (tensor(1, self.x), tensor(2, self.weight()));
            let (stride, padding) = (self.stride, self.padding);
            let bias = Tensor::<1>::from_data(
                TensorData::new(noise(3, self.out_channels), [self.out_channels]),
                (device, dtype),
            );
            let stock = module::conv2d(
                x.clone(),
                weight.clone(),
                Some(bias.clone()),
                ConvOptions::new(stride, padding, [1, 1], 1),
            );
            let shortcut = with_shortcut.then(|| tensor(4, stock.dims()));
            if fast {
                return ConvBias { weight, bias, stride, padding }.forward(x, shortcut, relu);
            }
            let y = shortcut.map_or(stock.clone(), |shortcut| stock + shortcut);
            if relu { activation::relu(y) } else { y }
        };
        let want = [to_f64(forward(&Device::flex(), DType::F64, false))];
        check(&[to_f64(forward(&Device::flex(), DType::F32, true))], &want, 1e-5, self);
        check(&[to_f64(forward(&Device::flex().autodiff(), DType::F32, true))], &want, 1e-5, self);
    }

    #[track_caller]
    fn check_against_burn(&self) {
        let stock = |x, w, stride, padding| module::conv2d(x, w, None, ConvOptions::new(stride, padding, [1, 1], 1));
        check(&self.run(DType::F32, conv2d), &self.run(DType::F64, stock), 1e-5, self);
    }
}

/// A block: channels of its input and of each layer, kernels, and the stride of the second layer or of the only one.
#[derive(Debug, Clone)]
struct BlockCase {
    x: [usize; 4],
    layers: Vec<([usize; 2], usize)>,
    stride: usize,
    shortcut: bool,
}

impl BlockCase {
    /// `(weight shape, stride, padding)` of every layer, the projection's last.
    fn layers(&self) -> Vec<([usize; 4], usize, usize)> {
        let strided = usize::from(self.layers.len() == 3);
        let mut layers: Vec<_> = self
            .layers
            .iter()
            .enumerate()
            .map(|(i, &([inputs, outputs], kernel))| {
                ([outputs, inputs, kernel, kernel], if i == strided { self.stride } else { 1 }, kernel / 2)
            })
            .collect();
        if self.is_projected() {
            layers.push(([self.out_channels(), self.x[1], 1, 1], self.stride, 0));
        }
        layers
    }

    fn out_channels(&self) -> usize {
        self.layers[self.layers.len() - 1].0[1]
    }

    fn is_projected(&self) -> bool {
        self.shortcut && (self.stride > 1 || self.out_channels() != self.x[1])
    }

    /// If `apart`, every channel of a normalization is positive throughout or negative throughout.
    fn run(&self, dtype: DType, fast: bool, recompute: bool, apart: bool) -> Vec<Vec<f64>> {
        let layers = self.layers();
        let mut leaves = vec![leaf(&noise(1, self.x.iter().product()), [self.x.iter().product()], dtype)];
        for (i, (weight, ..)) in layers.iter().enumerate() {
            let seed = 10 * i as u64;
            let count = weight.iter().product();
            // As large as a network's own initial values, so that no layer drowns the next.
            let weights: Vec<f32> =
                noise(2 + seed, count).into_iter().map(|w| w / (count as f32 / weight[0] as f32).sqrt()).collect();
            leaves.push(leaf(&weights, [count], dtype));
            let gammas: Vec<f32> = noise(3 + seed, weight[0]).into_iter().map(|g| 0.6 + 0.3 * g).collect();
            let offset = |b: f32| if apart { b + 7.0 * b.signum() } else { b };
            let betas: Vec<f32> = noise(4 + seed, weight[0]).into_iter().map(offset).collect();
            leaves.push(leaf(&gammas, [weight[0]], dtype));
            leaves.push(leaf(&betas, [weight[0]], dtype));
        }
        let x = leaves[0].clone().reshape(self.x);
        let mut conv_norms: Vec<_> = layers
            .iter()
            .zip(leaves[1..].chunks_exact(3))
            .map(|(&(shape, stride, padding), leaves)| ConvNorm {
                weight: leaves[0].clone().reshape(shape),
                gamma: leaves[1].clone(),
                beta: leaves[2].clone(),
                stride: [stride; 2],
                padding: [padding; 2],
                eps: EPS,
            })
            .collect();
        let projection = if self.is_projected() { conv_norms.pop() } else { None };
        let (y, statistics) = if fast {
            let shortcut = match (projection, self.shortcut) {
                (Some(projection), _) => Shortcut::Projection(projection),
                (None, true) => Shortcut::Identity,
                (None, false) => Shortcut::None,
            };
            let block = residual_block(x, conv_norms, shortcut, recompute);
            let statistics: Vec<_> = block.statistics.into_iter().flatten().collect();
            (block.output, statistics)
        } else {
            stock_block(x, conv_norms, projection, self.shortcut)
        };
        let mut results = vec![to_f64(y.clone())];
        results.extend(statistics.into_iter().map(to_f64));
        let direction = noise(99, y.shape().num_elements());
        let direction = Tensor::<4>::from_data(TensorData::new(direction, y.dims()), (&y.device().inner(), dtype));
        let gradients = (y * Tensor::from_inner(direction)).sum().backward();
        results.extend(leaves.iter().map(|leaf| to_f64(leaf.grad(&gradients).expect("every leaf has a gradient"))));
        results
    }

    /// With channels apart no ReLU can pass in f32 what it stops in f64, and the rounding of a few normalizations
    /// is all that remains: 1e-3 of a tensor's norm. Otherwise one such element shifts its window of the gradient, and all
    /// sums a little.
    #[track_caller]
    fn check_against_burn(&self, recompute: bool) {
        for (apart, tolerance) in [(true, 1e-3), (false, 4e-2)] {
            let (got, want) = (self.run(DType::F32, true, recompute, apart), self.run(DType::F64, false, false, apart));
            assert_eq!(got.len(), want.len());
            for (which, (got, want)) in got.iter().zip(&want).enumerate() {
                assert_eq!(got.len(), want.len(), "result {which} of {self:?}");
                let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
                let distance = norm(&mut got.iter().zip(want).map(|(got, want)| got - want));
                let scale = norm(&mut want.iter().copied()).max(1.0);
                assert!(distance <= tolerance * scale, "result {which}: distance {distance}, norm {scale}; {self:?}");
            }
        }
    }
}

/// The block of Burn's own operations: output and statistics.
fn stock_block(
    x: Tensor<4>,
    branch: Vec<ConvNorm>,
    projection: Option<ConvNorm>,
    has_shortcut: bool,
) -> (Tensor<4>, Vec<Tensor<1>>) {
    let mut statistics = Vec::new();
    let mut layer = |x: Tensor<4>, l: ConvNorm| {
        let y = module::conv2d(x, l.weight, None, ConvOptions::new(l.stride, l.padding, [1, 1], 1));
        let norm = module::batch_norm_train(y, l.gamma, l.beta, l.eps);
        statistics.extend([norm.mean, norm.variance]);
        norm.output
    };
    let last = branch.len() - 1;
    let mut y = x.clone();
    for (i, conv_norm) in branch.into_iter().enumerate() {
        y = layer(y, conv_norm);
        if i < last {
            y = activation::relu(y);
        }
    }
    let y = match projection {
        Some(projection) => y + layer(x, projection),
        None if has_shortcut => y + x,
        None => y,
    };
    (activation::relu(y), statistics)
}

fn block_case() -> impl Strategy<Value = BlockCase> {
    let width = || prop_oneof![1usize..5, Just(16usize), Just(24), Just(48), 60usize..80];
    let odd = || prop_oneof![Just(1usize), Just(3)];
    let layers = prop_oneof![
        (width(), odd()).prop_map(|(a, k)| vec![(a, k)]),
        (width(), width()).prop_map(|(a, b)| vec![(a, 3), (b, 3)]),
        (width(), width()).prop_map(|(a, b)| vec![(a, 1), (a, 3), (b, 1)]),
    ];
    (1usize..4, width(), 4usize..14, 4usize..14, layers, 1usize..3, any::<bool>()).prop_map(
        |(n, c, h, w, layers, stride, shortcut)| {
            let mut inputs = c;
            let layers = layers.into_iter().map(|(outputs, kernel)| {
                let layer = ([inputs, outputs], kernel);
                inputs = outputs;
                layer
            });
            // Enough values per channel that no variance is all rounding.
            BlockCase { x: [n + 1, c, h, w], layers: layers.collect(), stride, shortcut }
        },
    )
}

fn conv_case() -> impl Strategy<Value = ConvCase> {
    let side = 1usize..20;
    (
        (1usize..6, prop_oneof![1usize..7, 15usize..35], side.clone(), side),
        prop_oneof![1usize..20, 60usize..140],
        // Half of the cases are such that Winograd's tiles apply.
        prop_oneof![
            ((1usize..5, 1usize..5), (1usize..4, 1usize..4), (0usize..4, 0usize..4)),
            (Just((3, 3)), Just((1, 1)), (0usize..3, 0usize..3)),
        ],
    )
        .prop_map(|((n, c, h, w), out_channels, ((kh, kw), (sh, sw), (ph, pw)))| ConvCase {
            // Grow the picture where the kernel would not fit.
            x: [n, c, h.max(kh.saturating_sub(2 * ph)), w.max(kw.saturating_sub(2 * pw))],
            out_channels,
            kernel: [kh, kw],
            stride: [sh, sw],
            padding: [ph, pw],
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn conv2d_agrees_with_burn(case in conv_case()) {
        case.check_against_burn();
    }

    #[test]
    fn batch_norm_agrees_with_burn(
        (n, c, h, w) in (1usize..6, 1usize..6, 1usize..20, 1usize..20),
        relu: bool,
        offset in prop_oneof![Just(0.0f32), Just(30_000.0)],
    ) {
        // Two elements per channel at least: the normalized value of a single one is all rounding.
        let shape = [n + usize::from(h * w == 1), c, h, w];
        let x: Vec<f32> = noise(1, shape.iter().product()).into_iter().map(|x| x + offset).collect();
        let (gamma, beta) = (noise(2, c), noise(3, c));
        let case = |dtype, fast: bool| {
            run(dtype, [(&x, shape.to_vec()), (&gamma, vec![c]), (&beta, vec![c])], |[x, gamma, beta]| {
                let x = x.clone().reshape(shape);
                let (gamma, beta) = (gamma.clone(), beta.clone());
                if fast {
                    return batch_norm_train(x, gamma, beta, EPS, relu).output;
                }
                let y = module::batch_norm_train(x, gamma, beta, EPS).output;
                if relu { activation::relu(y) } else { y }
            })
        };
        // At two elements the variance may be near zero and amplifies the rounding of x by 1/√eps.
        let tolerance = if n * h * w < 16 { 1e-2 } else { 1e-4 };
        check(&case(DType::F32, true), &case(DType::F64, false), tolerance, &(shape, relu, offset));
    }

    #[test]
    fn a_residual_block_agrees_with_burn(case in block_case()) {
        case.check_against_burn(false);
        case.check_against_burn(true);
    }

    #[test]
    fn max_pool_agrees_with_burn(
        (n, c, h, w) in (1usize..4, 1usize..40, 3usize..20, 3usize..20),
        (kernel, stride, padding) in (1usize..4, 1usize..4).prop_flat_map(|(k, s)| (Just(k), Just(s), 0..=k / 2)),
    ) {
        let shape = [n, c, h, w];
        let x = noise(1, shape.iter().product());
        let case = |fast: bool| {
            run(DType::F32, [(&x, shape.to_vec())], |[x]| {
                let x = x.clone().reshape(shape);
                if fast {
                    return max_pool2d(x, kernel, stride, padding);
                }
                let options = MaxPoolOptions::new([kernel; 2]).with_stride([stride; 2]).with_padding([padding; 2]);
                module::max_pool2d(x, options)
            })
        };
        // Forward picks values, backward adds at most nine of them.
        check(&case(true), &case(false), 1e-6, &(shape, kernel, stride, padding));
    }

    #[test]
    fn global_average_pool_agrees_with_burn((n, c, h, w) in (1usize..4, 1usize..40, 1usize..12, 1usize..12)) {
        let shape = [n, c, h, w];
        let x = noise(1, shape.iter().product());
        let case = |dtype, fast: bool| {
            run(dtype, [(&x, shape.to_vec())], |[x]| {
                let x = x.clone().reshape(shape);
                let y = if fast { global_average_pool(x) } else { x.reshape([n, c, h * w]).mean_dim(2).reshape([n, c]) };
                y.reshape([n, c, 1, 1])
            })
        };
        check(&case(DType::F32, true), &case(DType::F64, false), 1e-6, &shape);
    }

    #[test]
    fn conv_bias_agrees_with_burn(case in conv_case(), relu: bool, with_shortcut: bool) {
        case.check_bias(relu, with_shortcut);
    }
}

#[test]
fn conv2d_agrees_with_burn_on_the_layers_of_a_resnet() {
    for (x, out_channels, kernel, stride, padding) in [
        ([3, 3, 32, 32], 16, 3, 1, 1),
        ([3, 16, 32, 32], 16, 3, 1, 1),
        ([3, 16, 32, 32], 32, 3, 2, 1),
        ([3, 16, 32, 32], 32, 1, 2, 0),
        ([40, 32, 4, 4], 64, 3, 1, 1),
        ([40, 64, 2, 2], 64, 3, 1, 1),
        ([2, 3, 64, 64], 16, 7, 2, 3),
        ([2, 64, 7, 7], 256, 1, 1, 0),
        ([2, 130, 9, 13], 200, 3, 1, 1), // Several blocks of channels, tiles that are cut.
        ([1, 256, 8, 8], 256, 3, 1, 1),
        ([1, 16, 70, 66], 16, 3, 1, 1), // One picture is cut into rows.
        ([1, 16, 70, 66], 32, 3, 2, 1),
        ([1, 1, 1, 1], 1, 1, 1, 0),
        ([1, 1, 5, 5], 2, 3, 2, 4), // More padding than the kernel covers.
    ] {
        ConvCase { x, out_channels, kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] }
            .check_against_burn();
    }
}

#[test]
fn other_element_types_are_left_to_burn() {
    let case = ConvCase { x: [2, 3, 6, 5], out_channels: 4, kernel: [3, 3], stride: [2, 1], padding: [1, 0] };
    let stock = |x, w, stride, padding| module::conv2d(x, w, None, ConvOptions::new(stride, padding, [1, 1], 1));
    assert_eq!(case.run(DType::F64, conv2d), case.run(DType::F64, stock));

    let device = Device::flex();
    let x = Tensor::<4>::ones([2, 1, 1, 2], (&device, DType::F64));
    let ones = Tensor::<1>::ones([1], (&device, DType::F64));
    assert_eq!(to_f64(batch_norm_train(x, ones.clone(), ones, EPS, true).output), [1.0; 4]);
}

/// The formula of the documentation, with its three gradients written as one loop over all products.
#[test]
fn conv2d_agrees_with_plain_loops() {
    for (x, out_channels, kernel, stride, padding) in [
        ([2, 3, 7, 6], 4, [3, 3], [1, 1], [1, 1]),
        ([1, 1, 9, 5], 1, [2, 4], [3, 2], [0, 3]),
        ([5, 2, 4, 4], 17, [1, 1], [2, 2], [0, 0]),
    ] {
        let case = ConvCase { x, out_channels, kernel, stride, padding };
        let [n, c, h, w] = x;
        let (oh, ow) =
            ((h + 2 * padding[0] - kernel[0]) / stride[0] + 1, (w + 2 * padding[1] - kernel[1]) / stride[1] + 1);
        let widen = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
        let input = widen(noise(1, n * c * h * w));
        let weight = widen(noise(2, out_channels * c * kernel[0] * kernel[1]));
        let direction = widen(noise(99, n * out_channels * oh * ow));
        let mut y = vec![0.0; direction.len()];
        let mut dx = vec![0.0; input.len()];
        let mut dw = vec![0.0; weight.len()];
        for (at_y, (y, direction)) in y.iter_mut().zip(&direction).enumerate() {
            let (j, i, o, image) =
                (at_y % ow, at_y / ow % oh, at_y / ow / oh % out_channels, at_y / ow / oh / out_channels);
            for channel in 0..c {
                for u in 0..kernel[0] {
                    for v in 0..kernel[1] {
                        let (row, column) = (i * stride[0] + u, j * stride[1] + v);
                        if row < padding[0] || column < padding[1] {
                            continue;
                        }
                        let (row, column) = (row - padding[0], column - padding[1]);
                        if row >= h || column >= w {
                            continue;
                        }
                        let at_x = ((image * c + channel) * h + row) * w + column;
                        let at_w = ((o * c + channel) * kernel[0] + u) * kernel[1] + v;
                        *y += input[at_x] * weight[at_w];
                        dx[at_x] += direction * weight[at_w];
                        dw[at_w] += direction * input[at_x];
                    }
                }
            }
        }
        check(&case.run(DType::F32, conv2d), &[y, dx, dw], 1e-5, &case);
    }
}

#[test]
fn batch_statistics_are_biased_detached_and_survive_a_large_offset() {
    // 4096 + {−1, 1}: exact in f32, mean 4096, variance 1. E[x²] − E[x]² in f32 would be off by 1.
    let shape = [4, 3, 5, 4];
    let signs = |i: usize| if i.is_multiple_of(2) { 4097.0 } else { 4095.0 };
    let x: Vec<f32> = (0..240).map(signs).collect();
    let x = leaf(&x, [240], DType::F32).reshape(shape);
    let gamma = leaf(&[1.0; 3], [3], DType::F32);
    let beta = leaf(&[0.0; 3], [3], DType::F32);
    let norm = batch_norm_train(x, gamma, beta, 0.0, false);
    assert_eq!(to_f64(norm.mean.clone()), [4096.0; 3]);
    assert_eq!(to_f64(norm.var.clone()), [1.0; 3]);
    assert!(to_f64(norm.output).into_iter().all(|y| y.abs() == 1.0));
    assert!(!norm.mean.is_require_grad() && !norm.var.is_require_grad());
    assert!(norm.mean.device().is_autodiff());
}

#[test]
fn results_repeat_bit_for_bit_on_any_number_of_threads() {
    let case = ConvCase { x: [37, 5, 9, 9], out_channels: 12, kernel: [3, 3], stride: [1, 1], padding: [1, 1] };
    let step = || {
        let mut results = case.run(DType::F32, conv2d);
        let block =
            BlockCase { x: [37, 20, 9, 9], layers: vec![([20, 32], 3), ([32, 32], 3)], stride: 2, shortcut: true };
        results.extend(block.run(DType::F32, true, false, false));
        let shape = case.x;
        let x = noise(1, shape.iter().product());
        results.extend(run(
            DType::F32,
            [(&x, shape.to_vec()), (&noise(2, 5), vec![5]), (&noise(3, 5), vec![5])],
            |[x, gamma, beta]| {
                batch_norm_train(x.clone().reshape(shape), gamma.clone(), beta.clone(), EPS, true).output
            },
        ));
        results
    };
    let first = step();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
        // Burn runs the backward pass on the calling thread, hence inside this pool.
        assert_eq!(pool.install(step), first, "{threads} threads");
    }
}

#[test]
fn inference_needs_no_autodiff_device_and_views_are_read_as_such() {
    let device = Device::flex();
    let x = Tensor::<1>::from_data(TensorData::new(noise(1, 2 * 3 * 6 * 5), [180]), &device);
    // A transposed, narrowed picture: neither contiguous nor at offset zero.
    let x = x.reshape([2, 3, 6, 5]).swap_dims(2, 3).narrow(2, 1, 3);
    let weight = Tensor::<1>::from_data(TensorData::new(noise(2, 4 * 3 * 9), [108]), &device).reshape([4, 3, 3, 3]);
    let stock = module::conv2d(x.clone(), weight.clone(), None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1));
    let fast = conv2d(x.clone(), weight, [1, 1], [1, 1]);
    check(&[to_f64(fast)], &[to_f64(stock)], 1e-5, &"views");
}

#[test]
fn a_constant_input_gets_no_gradient_and_a_constant_weight_neither() {
    let device = Device::flex().autodiff();
    let constant = || Tensor::<4>::ones([2, 1, 4, 4], &device);
    let weight = Tensor::<4>::ones([1, 1, 3, 3], &device).require_grad();
    let gradients = conv2d(constant(), weight.clone(), [1, 1], [0, 0]).sum().backward();
    assert_eq!(to_f64(weight.grad(&gradients).expect("a leaf")), [8.0; 9]); // 2 images × 4 positions.

    let x = constant().require_grad();
    let gradients = conv2d(x.clone(), weight.detach(), [4, 4], [0, 0]).sum().backward();
    let want = [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0], [0.0; 4]].concat().repeat(2);
    assert_eq!(to_f64(x.grad(&gradients).expect("a leaf")), want);
}

#[test]
fn nan_is_not_hidden_by_the_relu() {
    let device = Device::flex();
    let x = Tensor::<4>::full([1, 1, 2, 2], f32::NAN, &device);
    assert!(to_f64(max_pool2d(x.clone(), 2, 1, 0)).into_iter().all(f64::is_nan));
    let norm = batch_norm_train(x, Tensor::ones([1], &device), Tensor::zeros([1], &device), EPS, true);
    assert!(to_f64(norm.output).into_iter().all(f64::is_nan));
}

#[test]
fn recomputing_gives_the_same_bits() {
    for (layers, stride) in
        [(vec![([16, 16], 3), ([16, 16], 3)], 1), (vec![([16, 32], 1), ([32, 32], 3), ([32, 64], 1)], 2)]
    {
        let case = BlockCase { x: [3, 16, 12, 12], layers, stride, shortcut: true };
        assert_eq!(case.run(DType::F32, true, true, false), case.run(DType::F32, true, false, false));
    }
}

#[test]
fn a_window_of_minus_infinity_keeps_its_gradient() {
    let x = leaf(&[f32::NEG_INFINITY], [1], DType::F32);
    let gradients = max_pool2d(x.clone().reshape([1, 1, 1, 1]), 3, 1, 1).sum().backward();
    assert_eq!(to_f64(x.grad(&gradients).expect("a leaf")), [1.0]);
}

#[test]
fn a_relu_passes_the_gradient_of_a_nan() {
    // An offset of NaN leaves the statistics alone, and its gradient is the sum of what passes the ReLU.
    let x = leaf(&[1.0, -1.0, 3.0], [3], DType::F32);
    let (gamma, beta) = (leaf(&[1.0], [1], DType::F32), leaf(&[f32::NAN], [1], DType::F32));
    let norm = batch_norm_train(x.reshape([3, 1, 1, 1]), gamma, beta.clone(), EPS, true);
    let gradients = norm.output.sum().backward();
    assert_eq!(to_f64(beta.grad(&gradients).expect("a leaf")), [3.0]);
}

#[test]
fn a_block_takes_one_picture_and_constants_get_no_gradient() {
    let device = Device::flex().autodiff();
    let plain = |seed: u64, shape: [usize; 4]| {
        let count = shape.iter().product();
        Tensor::<4>::from_data(TensorData::new(noise(seed, count), shape), &device)
    };
    let gamma = Tensor::<1>::ones([16], &device).require_grad();
    let layer = |weight: Tensor<4>, gamma: Tensor<1>| ConvNorm {
        weight,
        gamma,
        beta: Tensor::zeros([16], &device),
        stride: [1, 1],
        padding: [1, 1],
        eps: EPS,
    };
    let branch =
        || vec![layer(plain(2, [16, 16, 3, 3]), gamma.clone()), layer(plain(3, [16, 16, 3, 3]), gamma.clone())];
    let x = plain(1, [1, 16, 6, 7]);
    let block = residual_block(x.clone(), branch(), Shortcut::Identity, false);
    let (stock, _) = stock_block(x.clone(), branch(), None, true);
    check(&[to_f64(block.output.clone())], &[to_f64(stock.clone())], 1e-4, &"one picture");
    // Only gamma, which both layers share, wants a gradient: it is the sum of both.
    let direction = plain(4, [1, 16, 6, 7]);
    let gradient = |y: Tensor<4>| to_f64(gamma.grad(&(y * direction.clone()).sum().backward()).expect("a leaf"));
    check(&[gradient(block.output)], &[gradient(stock)], 1e-3, &"a shared scale");
}
