//! Two embeddings of every image of a batch, checked once so that a loss cannot fail.
//!
//! Legend: N images, D dimensions.

use std::sync::Arc;

use burn::tensor::{DType, Device, FloatDType, Tensor};

use crate::engine::Roles;

/// Row norms below this count as this: a zero row stays a zero row and is never a NaN.
const NORM_FLOOR: f32 = 1e-12;

/// The embeddings of two views of the same N images: row `i` of `z1` and row `i` of `z2` are partners.
///
/// # Shapes
/// - `z1`, `z2`: `[N, D]` with `N ≥ 2`, raw projections; the objectives normalize the rows, `u = z / max(‖z‖, 1e-12)`
///
/// A row below that floor has no direction and gets no gradient. The derivative of the formula there is 1e12 times
/// that of a unit row, mostly rounding noise, and one step along it would wreck the weights.
///
/// Losses are computed in f32 whatever the float type of the tensors, and gradients come back in that type; in f16 they
/// end at ±65,504.
///
/// What is known of the images can be said too, and every objective heeds it: [`with_sources`](Self::with_sources) and
/// [`leaving_out`](Self::leaving_out) name false negatives, [`with_labels`](Self::with_labels) names positives.
#[derive(Clone, Debug)]
pub struct PairedViews {
    z1: Tensor<2>,
    z2: Tensor<2>,
    rows_are_unit: bool,
    roles: Roles,
}

/// Why two tensors are not [`PairedViews`].
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum PairedViewsError {
    /// The two views differ in the number of images or in dimension.
    #[error("both views must have the same shape, got {z1:?} and {z2:?}")]
    ShapesDiffer {
        /// Shape of the first view.
        z1: [usize; 2],
        /// Shape of the second view.
        z2: [usize; 2],
    },
    /// One image alone has no negatives.
    #[error("a contrastive loss needs at least 2 images, got {n_images}; use a larger batch")]
    TooFewImages {
        /// Number of images given.
        n_images: usize,
    },
    /// Rows without entries have no direction.
    #[error("embeddings need at least 1 dimension, got shape [{n_images}, 0]")]
    NoDimensions {
        /// Number of images given.
        n_images: usize,
    },
    /// The views live on different devices.
    #[error("both views must be on one device, got {z1} and {z2}; move one with `to_device`")]
    DevicesDiffer {
        /// Device of the first view.
        z1: String,
        /// Device of the second view.
        z2: String,
    },
    /// An embedding holds something that is not a finite number.
    #[error("the embeddings must be finite, got {value} in row {row}, column {column} of view {view}")]
    NotFinite {
        /// 1 or 2.
        view: usize,
        /// The first row with such a number.
        row: usize,
        /// Its column.
        column: usize,
        /// The number.
        value: f32,
    },
    /// Sources or labels are not one per image.
    #[error("{what} must be one per image, got {got} for {n_images} images")]
    NotOnePerImage {
        /// Which of the two.
        what: &'static str,
        /// How many were given.
        got: usize,
        /// Number of images.
        n_images: usize,
    },
}

impl PairedViews {
    /// Pairs two `[N, D]` tensors of raw projections. Waits for the device once, to look for numbers that are not finite.
    ///
    /// # Errors
    /// [`PairedViewsError`] unless both have one shape with `N ≥ 2` and `D ≥ 1`, live on one device and are finite.
    pub fn new(z1: Tensor<2>, z2: Tensor<2>) -> Result<Self, PairedViewsError> {
        let [n_images, n_dims] = z1.dims();
        if z1.dims() != z2.dims() {
            return Err(PairedViewsError::ShapesDiffer { z1: z1.dims(), z2: z2.dims() });
        }
        if n_images < 2 {
            return Err(PairedViewsError::TooFewImages { n_images });
        }
        if n_dims == 0 {
            return Err(PairedViewsError::NoDimensions { n_images });
        }
        if z1.device() != z2.device() {
            let (z1, z2) = (format!("{:?}", z1.device()), format!("{:?}", z2.device()));
            return Err(PairedViewsError::DevicesDiffer { z1, z2 });
        }
        // As f32, in which everything is computed: a larger type holds numbers that are finite there only.
        let are_finite = |z: &Tensor<2>| z.clone().without_autodiff().cast(FloatDType::F32).is_finite().all();
        if !are_finite(&z1).bool_and(are_finite(&z2)).into_scalar::<bool>() {
            return Err(first_not_finite(&z1, 1)
                .or_else(|| first_not_finite(&z2, 2))
                .unwrap_or_else(|| unreachable!("one of the views was not finite")));
        }
        Ok(Self { z1, z2, rows_are_unit: false, roles: Roles::of_images(n_images) })
    }

    /// Leaves the views of images with one id out of each other's candidates: copies of one picture, crops of one
    /// photograph, frames of one film, or pictures with one label.
    ///
    /// An anchor left without any candidate has no loss and no gradient. Ids that are given again replace the former.
    ///
    /// # Errors
    /// [`PairedViewsError::NotOnePerImage`].
    pub fn with_sources(mut self, ids: &[u64]) -> Result<Self, PairedViewsError> {
        self.check_one_per_image("sources", ids.len())?;
        self.roles = self.roles.with_sources(ids);
        Ok(self)
    }

    /// Labels the images, for [`crate::SupCon`].
    ///
    /// # Errors
    /// [`PairedViewsError::NotOnePerImage`].
    pub fn with_labels(mut self, labels: &[u64]) -> Result<Self, PairedViewsError> {
        self.check_one_per_image("labels", labels.len())?;
        self.roles = self.roles.with_labels(labels);
        Ok(self)
    }

    /// Leaves out every candidate of which `left_out(anchor, candidate)` is true; it need not be so both ways.
    ///
    /// Views are numbered as the rows of `[z1; z2]`, from 0 to `2N − 1`. An anchor and its partner are not asked about.
    /// The predicate is asked about every pair that is contrasted and of two sources, once in each pass over the batch: it
    /// should be fast. Several add up.
    #[must_use]
    pub fn leaving_out(mut self, left_out: impl Fn(usize, usize) -> bool + Send + Sync + 'static) -> Self {
        self.roles = self.roles.with_left_out(Arc::new(left_out));
        self
    }

    fn check_one_per_image(&self, what: &'static str, got: usize) -> Result<(), PairedViewsError> {
        let n_images = self.n_images();
        if got == n_images { Ok(()) } else { Err(PairedViewsError::NotOnePerImage { what, got, n_images }) }
    }

    /// Which views are candidates of which.
    pub(crate) fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Both tensors, as they were given.
    pub(crate) fn tensors(&self) -> [Tensor<2>; 2] {
        [self.z1.clone(), self.z2.clone()]
    }

    /// Pairs tensors whose rows a model has already normalized: they are used as they are.
    ///
    /// The gradient then has a radial part, which [`new`](Self::new) removes. That the rows have norm 1 is the
    /// caller's promise; it is not checked, since checking would read the tensors back from the device.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn from_unit_rows(z1: Tensor<2>, z2: Tensor<2>) -> Result<Self, PairedViewsError> {
        Ok(Self { rows_are_unit: true, ..Self::new(z1, z2)? })
    }

    /// Pairs rows given as arrays, for examples and tests.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn from_rows<const N: usize, const D: usize>(
        z1: [[f32; D]; N],
        z2: [[f32; D]; N],
        device: &Device,
    ) -> Result<Self, PairedViewsError> {
        Self::new(Tensor::from_data(z1, device), Tensor::from_data(z2, device))
    }

    /// Number of images N.
    pub fn n_images(&self) -> usize {
        self.z1.dims()[0]
    }

    /// The same views without autodiff: no operation on them records a graph.
    pub(crate) fn without_autodiff(self) -> Self {
        Self { z1: self.z1.without_autodiff(), z2: self.z2.without_autodiff(), ..self }
    }

    /// Normalizes the rows of `[z1; z2]`, in f32.
    pub(crate) fn unit_rows(self) -> UnitRows {
        let dtypes = [self.z1.dtype(), self.z2.dtype()];
        let stacked = |z: Tensor<2>| z.cast(FloatDType::F32);
        let z = Tensor::cat(vec![stacked(self.z1), stacked(self.z2)], 0); // [2N, D]
        if self.rows_are_unit {
            return UnitRows { rows: z, norms: None, dtypes };
        }
        // Dividing by the largest entry first keeps the squares of huge and of tiny rows inside f32. The norm does
        // not depend on that entry, so it is a constant for the gradient.
        let largest = z.clone().detach().max_abs_dim(1).clamp_min(NORM_FLOOR); // [2N, 1]
        let scaled = z / largest.clone();
        let squares = scaled.clone().square().sum_dim(1); // [2N, 1]
        let least = largest.clone().recip().mul_scalar(NORM_FLOOR).square(); // [2N, 1]
        let below_floor = squares.clone().detach().lower(least.clone()); // [2N, 1]
        // The floor goes below the root: at a zero row the derivative of the root would be infinite.
        let root = squares.max_pair(least).sqrt(); // [2N, 1]
        let rows = scaled / root.clone();
        let rows = rows.clone().mask_where(below_floor.clone().expand(rows.dims()), rows.detach());
        let above_floor = below_floor.bool_not().float();
        UnitRows { rows, norms: Some(Norms { largest, root, above_floor }), dtypes }
    }
}

/// The gradient in the float type of its embeddings. Those of f16, whose rows can be as short as 1e-7, have gradients
/// beyond that type: such numbers become its largest one, with their sign.
fn as_type(d_z: Tensor<2>, dtype: DType) -> Tensor<2> {
    const LARGEST_F16: f32 = 65_504.0;
    if dtype == DType::F16 { d_z.clamp(-LARGEST_F16, LARGEST_F16).cast(dtype) } else { d_z.cast(dtype) }
}

fn first_not_finite(z: &Tensor<2>, view: usize) -> Option<PairedViewsError> {
    let [_, n_dims] = z.dims();
    let data = z.clone().into_data();
    let (at, value) = data.iter::<f32>().enumerate().find(|(_, value)| !value.is_finite())?;
    Some(PairedViewsError::NotFinite { view, row: at / n_dims, column: at % n_dims, value })
}

/// The 2N normalized rows `[u1; u2]`, with what is needed to carry a gradient back to `z`.
#[derive(Clone, Debug)]
pub(crate) struct UnitRows {
    /// `[2N, D]`, f32.
    pub(crate) rows: Tensor<2>,
    norms: Option<Norms>,
    dtypes: [DType; 2],
}

/// `max(‖z‖, floor) = largest · root` per row, each `[2N, 1]`.
#[derive(Clone, Debug)]
struct Norms {
    largest: Tensor<2>,
    root: Tensor<2>,
    /// 1, or 0 where the floor stands in for the norm of the row.
    above_floor: Tensor<2>,
}

impl UnitRows {
    /// Turns `dL/du` into `dL/dz` of both views: `(g − u (u·g)) / ‖z‖`, or zero for a row below the floor.
    pub(crate) fn gradient(self, d_rows: Tensor<2>) -> [Tensor<2>; 2] {
        let n_images = self.rows.dims()[0] / 2;
        let d_z = match self.norms {
            None => d_rows,
            Some(Norms { largest, root, above_floor }) => {
                let along = (d_rows.clone() * self.rows.clone()).sum_dim(1); // [2N, 1]
                // Two divisions, because the product of the factors can leave f32 where the norm does not.
                (d_rows - self.rows * along) * (above_floor / root) / largest
            }
        };
        let [dtype1, dtype2] = self.dtypes;
        [as_type(d_z.clone().narrow(0, 0, n_images), dtype1), as_type(d_z.narrow(0, n_images, n_images), dtype2)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeros(shape: [usize; 2]) -> Tensor<2> {
        Tensor::zeros(shape, &Device::flex())
    }

    #[test]
    fn rejects_what_has_no_contrast() {
        let check = |z1, z2, want| {
            assert_eq!(PairedViews::new(zeros(z1), zeros(z2)).err(), Some(want));
        };
        check([2, 3], [2, 4], PairedViewsError::ShapesDiffer { z1: [2, 3], z2: [2, 4] });
        check([2, 3], [3, 3], PairedViewsError::ShapesDiffer { z1: [2, 3], z2: [3, 3] });
        check([1, 3], [1, 3], PairedViewsError::TooFewImages { n_images: 1 });
        check([0, 3], [0, 3], PairedViewsError::TooFewImages { n_images: 0 });
        check([2, 0], [2, 0], PairedViewsError::NoDimensions { n_images: 2 });
        assert!(PairedViews::new(zeros([2, 1]), zeros([2, 1])).is_ok());
    }

    #[test]
    fn rows_of_every_magnitude_become_unit_rows() {
        let device = Device::flex();
        for scale in [1e-30, 1e-11, 1e-6, 1.0, 1e19, 1e37_f32] {
            let z = [[3.0 * scale, 4.0 * scale], [-4.0 * scale, 3.0 * scale]];
            let views = PairedViews::from_rows(z, z, &device).expect("two images");
            let rows = views.unit_rows().rows.into_data().try_to_vec::<f32>().expect("f32");
            // Below the norm floor a row shrinks towards zero instead of being blown up to length 1.
            let length = (5.0 * scale / NORM_FLOOR).min(1.0);
            for (got, want) in rows.iter().zip([0.6, 0.8, -0.8, 0.6]) {
                assert!((got - want * length).abs() <= 2e-7 * length, "scale {scale}: got {got}, want {want}");
            }
        }
    }
}
