//! What the tests of objectives share: tensors from rows, one call that asks an objective everything, and tolerances.

// Each test program uses its part.
#![allow(dead_code, reason = "every test program compiles all of this")]

pub(crate) mod golden;

use burn::tensor::{Device, Tensor, TensorData};
use twoview_loss::{Contrast, Objective, PairedViews};

/// Embeddings row by row.
pub(crate) type Rows = Vec<Vec<f32>>;

/// Everything the crate says about one pair of views.
pub(crate) struct Got {
    /// By `forward`.
    pub(crate) loss: f64,
    /// Gradient by autodiff through `forward`: all rows of `z1`, then of `z2`.
    pub(crate) by_autodiff: Vec<f64>,
    pub(crate) contrast: Contrast,
    /// Gradient by `contrast`, in the same order.
    pub(crate) by_formula: Vec<f64>,
}

pub(crate) fn tensor(rows: &Rows, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(rows.concat(), [rows.len(), rows[0].len()]), device)
}

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// Asks an objective about raw rows; `know` adds what is known of the images.
pub(crate) fn ask(
    objective: &dyn Objective,
    z1: &Rows,
    z2: &Rows,
    know: &dyn Fn(PairedViews) -> PairedViews,
    rows_are_unit: bool,
) -> Got {
    let device = Device::flex().autodiff();
    let (z1, z2) = (tensor(z1, &device).require_grad(), tensor(z2, &device).require_grad());
    let pair = if rows_are_unit { PairedViews::from_unit_rows } else { PairedViews::new };
    let views = know(pair(z1.clone(), z2.clone()).expect("paired"));

    let loss = objective.forward(views.clone());
    let grads = loss.backward();
    let by_autodiff = [z1, z2].iter().flat_map(|z| values(z.grad(&grads).expect("tracked"))).collect();
    let contrast = objective.contrast(views);
    let by_formula = [values(contrast.d_z1.clone()), values(contrast.d_z2.clone())].concat();
    Got { loss: values(loss)[0], by_autodiff, contrast, by_formula }
}

/// Asks about views of which nothing is known.
pub(crate) fn ask_plainly(objective: &dyn Objective, z1: &Rows, z2: &Rows) -> Got {
    ask(objective, z1, z2, &|views| views, false)
}

#[track_caller]
pub(crate) fn check_near(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance, "{what} at {at}: got {got}, want {want} ± {tolerance:e}");
    }
}

pub(crate) fn eye(n: usize) -> Rows {
    (0..n).map(|i| (0..n).map(|k| f32::from(i == k)).collect()).collect()
}

pub(crate) fn constant(n: usize) -> Rows {
    vec![vec![0.75, -0.5, 0.25]; n]
}

pub(crate) fn scaled(rows: &Rows, factor: f32) -> Rows {
    rows.iter().map(|row| row.iter().map(|x| x * factor).collect()).collect()
}

pub(crate) fn norm(row: &[f32]) -> f64 {
    row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}
