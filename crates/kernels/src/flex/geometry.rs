//! The sizes of one convolution, checked once.

use super::pixels::{Extent, padded};

/// The sizes of a convolution `[N, C, H, W] → [N, O, OH, OW]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(super) images: usize,
    pub(super) in_channels: usize,
    pub(super) in_size: [usize; 2],
    pub(super) out_channels: usize,
    pub(super) out_size: [usize; 2],
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) padding: [usize; 2],
}

impl Geometry {
    /// Checks and collects the sizes; `None` if there is nothing to compute or the operands do not fit.
    pub(crate) fn new(x: [usize; 4], weight: [usize; 4], stride: [usize; 2], padding: [usize; 2]) -> Option<Self> {
        let [images, in_channels, height, width] = x;
        let [out_channels, weight_channels, kernel_height, kernel_width] = weight;
        let (in_size, kernel) = ([height, width], [kernel_height, kernel_width]);
        let empty = x.into_iter().chain(weight).chain(stride).any(|size| size == 0);
        if empty || weight_channels != in_channels {
            return None;
        }
        let mut out_size = [0; 2];
        for axis in 0..2 {
            let framed = padding[axis].checked_mul(2)?.checked_add(in_size[axis])?;
            let room = framed.checked_sub(kernel[axis])?;
            out_size[axis] = room / stride[axis] + 1;
        }
        Some(Self { images, in_channels, in_size, out_channels, out_size, kernel, stride, padding })
    }

    /// The output's shape, `[N, O, OH, OW]`.
    pub(crate) fn out_shape(&self) -> [usize; 4] {
        [self.images, self.out_channels, self.out_size[0], self.out_size[1]]
    }

    /// Elements between two pixels of the input.
    ///
    /// Few channels, as of a picture, are left as they are: only the left operand of a product reads them, and
    /// padding would multiply the work.
    pub(super) fn in_stride(&self) -> usize {
        if self.in_channels < 8 { self.in_channels } else { padded(self.in_channels) }
    }

    /// The input as pixels.
    pub(super) fn input(&self) -> Extent {
        let [height, width] = self.in_size;
        Extent { images: self.images, height, width, stride: self.in_stride() }
    }

    /// The gradient of the input as pixels, whose stride is whole vectors.
    pub(super) fn input_gradient(&self) -> Extent {
        Extent { stride: padded(self.in_channels), ..self.input() }
    }

    /// The output, and its gradient, as pixels.
    pub(super) fn output(&self) -> Extent {
        let [height, width] = self.out_size;
        Extent { images: self.images, height, width, stride: padded(self.out_channels) }
    }

    /// Elements of the weight.
    pub(super) fn weights(&self) -> usize {
        self.out_channels * self.in_channels * self.kernel[0] * self.kernel[1]
    }
}

#[cfg(test)]
mod tests {
    use super::Geometry;

    #[test]
    fn sizes_follow_the_formula_and_misfits_are_refused() {
        let new = |x, weight, stride, padding| Geometry::new(x, weight, stride, padding).map(|g| g.out_size);
        assert_eq!(new([2, 3, 32, 32], [8, 3, 3, 3], [1, 1], [1, 1]), Some([32, 32]));
        assert_eq!(new([2, 3, 33, 7], [8, 3, 7, 1], [2, 3], [3, 0]), Some([17, 3]));
        assert_eq!(new([2, 3, 2, 2], [8, 3, 3, 3], [1, 1], [0, 0]), None);
        assert_eq!(new([2, 3, 8, 8], [8, 4, 3, 3], [1, 1], [0, 0]), None);
        assert_eq!(new([0, 3, 8, 8], [8, 3, 3, 3], [1, 1], [0, 0]), None);
    }
}
