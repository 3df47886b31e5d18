//! Batches of pictures with the channels of a pixel next to each other: `[N, H, W, C]` in memory.

use burn::backend::{Flex, TensorMetadata, tensor::FloatTensor};
use burn::tensor::TensorData;
use rayon::prelude::*;

use super::buffer::Buffer;
use super::vector::LANES;

type FlexTensor = FloatTensor<Flex>;

/// The extent of a batch of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) images: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Elements from a pixel to the next: the channels, and zeros up to a multiple of [`LANES`] where the kernels
    /// read whole vectors.
    pub(super) stride: usize,
}

impl Extent {
    /// Pixels of all pictures.
    pub(super) fn pixels(&self) -> usize {
        self.images * self.height * self.width
    }

    /// Elements of one picture.
    pub(super) fn picture(&self) -> usize {
        self.height * self.width * self.stride
    }

    /// Elements of all pictures.
    pub(super) fn elements(&self) -> usize {
        self.images * self.picture()
    }
}

/// Channels rounded up to whole vectors.
pub(super) fn padded(channels: usize) -> usize {
    channels.next_multiple_of(LANES)
}

/// Pictures to read: borrowed where a tensor has the order already, copied where it has not.
#[derive(Debug, Clone)]
pub(super) enum Pixels {
    /// A tensor whose memory is `[N, H, W, C]`.
    Tensor(FlexTensor),
    /// A copy in that order.
    Copied(Buffer),
}

impl Pixels {
    /// Reads a tensor `[N, C, H, W]` as pixels `stride` apart; what lies between the channels and the stride is zero.
    pub(super) fn new(tensor: FlexTensor, stride: usize) -> Self {
        if is_pixels(&tensor) && tensor.shape().dims::<4>()[1] == stride {
            return Self::Tensor(tensor);
        }
        Self::Copied(copied(&tensor, stride))
    }

    pub(super) fn values(&self) -> &[f32] {
        match self {
            Self::Tensor(tensor) => tensor.storage(),
            Self::Copied(buffer) => buffer,
        }
    }

    /// The memory itself, without a copy where nobody else holds it.
    pub(super) fn into_buffer(self) -> Buffer {
        match self {
            Self::Tensor(tensor) => {
                let order = tensor.layout().permute(&[0, 2, 3, 1]);
                // The data are taken as they lie, and only copied where they are shared.
                match tensor.with_layout(order).into_data().try_into_vec::<f32>() {
                    Ok(vector) => Buffer::from(vector),
                    Err(_) => unreachable!("the kernels are called with f32 only"),
                }
            }
            Self::Copied(buffer) => buffer,
        }
    }
}

/// Whether the memory of a tensor `[N, C, H, W]` is exactly `[N, H, W, C]`.
fn is_pixels(tensor: &FlexTensor) -> bool {
    let order = tensor.layout().permute(&[0, 2, 3, 1]);
    order.is_contiguous() && order.start_offset() == 0 && tensor.storage::<f32>().len() == order.num_elements()
}

fn copied(tensor: &FlexTensor, stride: usize) -> Buffer {
    let [images, channels, height, width] = tensor.shape().dims();
    let plane = height * width;
    let planes = tensor.to_contiguous();
    let mut pixels = Buffer::take(images * plane * stride);
    let pictures = pixels.par_chunks_mut((plane * stride).max(1));
    pictures.zip(planes.storage::<f32>().par_chunks((channels * plane).max(1))).for_each(|(pixels, planes)| {
        for (p, pixel) in pixels.chunks_exact_mut(stride).enumerate() {
            for (c, value) in pixel.iter_mut().enumerate() {
                *value = if c < channels { planes[c * plane + p] } else { 0.0 };
            }
        }
    });
    pixels
}

/// A tensor `[N, C, H, W]` whose memory is `[N, H, W, C]`, of pictures whose pixels are `extent.stride` apart.
pub(super) fn into_tensor(pixels: Buffer, extent: Extent, channels: usize) -> FlexTensor {
    let Extent { images, height, width, stride } = extent;
    let values = if stride == channels {
        pixels.into_vec()
    } else {
        pixels.chunks_exact(stride).flat_map(|pixel| &pixel[..channels]).copied().collect()
    };
    let tensor = FlexTensor::from_data(TensorData::new(values, [images, height, width, channels]));
    let order = tensor.layout().permute(&[0, 3, 1, 2]);
    tensor.with_layout(order)
}
