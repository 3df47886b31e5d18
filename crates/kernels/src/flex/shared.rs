//! A slice that several tasks write at once, each its own elements.

#![allow(unsafe_code, reason = "tasks write interleaved parts of one slice, which borrows cannot express")]

use std::marker::PhantomData;

/// A mutable slice handed to several threads.
///
/// Nothing here reads or writes; the products and transforms that take it check the bounds of what they
/// touch, and their callers answer for it that no two tasks touch the same element.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: `Shared` is a pointer; whoever dereferences it promises that the elements are touched by one thread.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(super) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// A slice that is only read.
    pub(super) fn read_only(slice: &'a [f32]) -> Self {
        Self { start: slice.as_ptr().cast_mut(), len: slice.len(), slice: PhantomData }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A pointer to element `offset`, which may be the end.
    ///
    /// # Panics
    /// When `offset` lies past the end.
    pub(super) fn at(&self, offset: usize) -> *mut f32 {
        assert!(offset <= self.len, "offset {offset} exceeds {} elements", self.len);
        // SAFETY: inside the slice or at its end.
        unsafe { self.start.add(offset) }
    }

    /// The elements of a range, to be read.
    ///
    /// # Safety
    /// While the result lives, nobody writes these elements.
    ///
    /// # Panics
    /// When the range exceeds the slice.
    pub(super) unsafe fn read(&self, range: std::ops::Range<usize>) -> &'a [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} exceeds {} elements", self.len);
        // SAFETY: inside the slice, and not written by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }

    /// The elements of a range, to be written.
    ///
    /// # Safety
    /// While the result lives, no other task touches these elements, and the slice was given as a mutable one.
    ///
    /// # Panics
    /// When the range exceeds the slice.
    #[allow(clippy::mut_from_ref, reason = "exclusive use of the range is the caller's promise")]
    pub(super) unsafe fn range(&self, range: std::ops::Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} exceeds {} elements", self.len);
        // SAFETY: inside the slice, and exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
