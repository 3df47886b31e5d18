//! What follows a convolution whose normalization is folded into it: bias, shortcut and ReLU, while it is in the cache.

#![allow(unsafe_code, reason = "finished parts are written while other tasks write the others")]

use std::ops::Range;

use super::shared::Shared;
use super::vector::LANES;
use super::vectorized::vectorized;
use super::{Conv2d, conv2d};

/// Bias, shortcut and ReLU behind a convolution.
pub(super) struct Finish<'a> {
    /// Per channel, padded with zeros to whole vectors.
    pub(super) bias: Vec<f32>,
    /// Added to the result, of the same extent.
    pub(super) shortcut: Option<&'a [f32]>,
    pub(super) relu: bool,
}

impl Finish<'_> {
    /// Writes a convolution to `out` and finishes each part.
    pub(super) fn behind(&self, conv: &Conv2d, out: &mut [f32]) {
        conv2d::forward(&conv.geometry, conv.source(), conv.weight.storage(), out, &|out, pixels, columns| {
            // SAFETY: the part is this call's own.
            unsafe { self.run(out, pixels, columns) }
        });
    }

    /// Finishes some columns of some pixels.
    ///
    /// # Safety
    /// No other task touches these elements meanwhile.
    unsafe fn run(&self, values: Shared<'_>, pixels: Range<usize>, columns: Range<usize>) {
        let stride = self.bias.len();
        let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
        for pixel in pixels {
            let part = pixel * stride + columns.start..pixel * stride + columns.end;
            let shortcut = self.shortcut.map(|shortcut| &shortcut[part.clone()]);
            // SAFETY: passed on to the caller.
            let values = unsafe { values.range(part) };
            finish_pixel(values, &self.bias[columns.clone()], shortcut, floor);
        }
    }
}

vectorized! {
    fn finish_pixel(values: &mut [f32], bias: &[f32], shortcut: Option<&[f32]>, floor: f32) {
        let shortcut = shortcut.map(|shortcut| shortcut.as_chunks::<LANES>().0);
        let groups = values.as_chunks_mut::<LANES>().0.iter_mut().zip(bias.as_chunks::<LANES>().0);
        for (group, (values, bias)) in groups.enumerate() {
            for lane in 0..LANES {
                let mut value = values[lane] + bias[lane];
                if let Some(shortcut) = shortcut {
                    value += shortcut[group][lane];
                }
                // Unlike `max`, this keeps a NaN.
                values[lane] = if value < floor { floor } else { value };
            }
        }
    }
}
