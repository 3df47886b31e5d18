//! Memory that a thread keeps from task to task.

use std::cell::RefCell;

use super::vector::LANES;

/// A growing vector whose handed-out part begins at a cache line.
#[derive(Default)]
pub(super) struct Aligned(Vec<f32>);

impl Aligned {
    /// `len` elements with unspecified values, the first at a multiple of 64 bytes.
    pub(super) fn take(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len + LANES {
            self.0 = vec![0.0; len + LANES];
        }
        let offset = self.0.as_ptr().align_offset(LANES * size_of::<f32>());
        // The offset is "not possible" only under Miri, where alignment means nothing for speed.
        let offset = if offset < LANES { offset } else { 0 };
        &mut self.0[offset..offset + len]
    }

    /// `len` zeros, the first at a multiple of 64 bytes.
    pub(super) fn zeros(&mut self, len: usize) -> &mut [f32] {
        let values = self.take(len);
        values.fill(0.0);
        values
    }
}

/// The buffers of a convolution's task.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) frame: Aligned,
    pub(super) left: Aligned,
    pub(super) right: Aligned,
    pub(super) sums: Aligned,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends the thread's buffers to a task. Tasks do not nest.
pub(super) fn with_scratch<T>(task: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(task)
}
