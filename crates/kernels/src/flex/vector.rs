//! A vector register, whatever the processor calls it.

#![allow(unsafe_code, reason = "vector intrinsics work on raw pointers and need features of the processor")]

/// Elements that every loop over channels advances by; a multiple of every vector's width.
pub(super) const LANES: usize = 16;

/// A vector register of f32.
///
/// # Safety
/// The methods may only be called where the processor has the features behind the type, and with
/// pointers to `WIDTH` elements. [`LANES`] is a multiple of `WIDTH`.
pub(super) unsafe trait Vector: Copy {
    /// Elements of a vector.
    const WIDTH: usize;
    /// Sums that fit into the registers beside the operands of a product.
    const SUMS: usize;
    /// Vectors of a row that a product takes at once; they divide [`LANES`] or are a multiple of it.
    const ROW: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, term: Self) -> Self;
    unsafe fn sub(self, term: Self) -> Self;
    unsafe fn mul(self, factor: Self) -> Self;
    /// `self · factor + term`.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
}

/// The scalar reference, which the compiler maps to what the target has: SSE2, or NEON on aarch64.
// SAFETY: no feature beyond the target's baseline is used.
unsafe impl Vector for [f32; 4] {
    const WIDTH: usize = 4;
    // Of 32 registers on aarch64 and 16 elsewhere.
    const SUMS: usize = if cfg!(target_arch = "aarch64") { 16 } else { 8 };
    const ROW: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller passes a pointer to four elements; alignment is not assumed.
        unsafe { from.cast::<Self>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller passes a pointer to four elements; alignment is not assumed.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }
    #[inline(always)]
    unsafe fn add(self, term: Self) -> Self {
        std::array::from_fn(|i| self[i] + term[i])
    }
    #[inline(always)]
    unsafe fn sub(self, term: Self) -> Self {
        std::array::from_fn(|i| self[i] - term[i])
    }
    #[inline(always)]
    unsafe fn mul(self, factor: Self) -> Self {
        std::array::from_fn(|i| self[i] * factor[i])
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        std::array::from_fn(|i| {
            // A fused operation is a function call on targets that lack the instruction.
            if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                self[i].mul_add(factor[i], term[i])
            } else {
                self[i] * factor[i] + term[i]
            }
        })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    macro_rules! vector {
        ($type:ty, $width:literal, $sums:literal, $row:literal,
         $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident, $mul_add:ident) => {
            // SAFETY: the intrinsics are unaligned; features and pointers are the caller's duty.
            unsafe impl Vector for $type {
                const WIDTH: usize = $width;
                const SUMS: usize = $sums;
                const ROW: usize = $row;

                #[inline(always)]
                unsafe fn splat(value: f32) -> Self {
                    // SAFETY: see the implementation.
                    unsafe { $splat(value) }
                }
                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: see the implementation.
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: see the implementation.
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn add(self, term: Self) -> Self {
                    // SAFETY: see the implementation.
                    unsafe { $add(self, term) }
                }
                #[inline(always)]
                unsafe fn sub(self, term: Self) -> Self {
                    // SAFETY: see the implementation.
                    unsafe { $sub(self, term) }
                }
                #[inline(always)]
                unsafe fn mul(self, factor: Self) -> Self {
                    // SAFETY: see the implementation.
                    unsafe { $mul(self, factor) }
                }
                #[inline(always)]
                unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
                    // SAFETY: see the implementation.
                    unsafe { $mul_add(self, factor, term) }
                }
            }
        };
    }
    // AVX-512 has 32 registers and AVX 16; the sums leave room for a row of vectors and a broadcast.
    vector!(
        __m512,
        16,
        24,
        4,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps
    );
    vector!(
        __m256,
        8,
        12,
        2,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps
    );
}

/// Defines an unsafe function that runs `$body::<V>` with the widest vector `V` that the processor has.
///
/// The body must be `#[inline(always)]`, so that it is compiled with the features of each variant. The choice
/// depends on the processor and the process's limit alone, so results repeat on a machine.
macro_rules! with_vectors {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "they are handed on to the body as they are")]
        $vis unsafe fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::{__m256, __m512};
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "they are handed on to the body as they are")]
                unsafe fn avx512($($arg: $ty),*) {
                    // SAFETY: passed on to the caller.
                    unsafe { $body::<__m512>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "they are handed on to the body as they are")]
                unsafe fn avx2($($arg: $ty),*) {
                    // SAFETY: passed on to the caller.
                    unsafe { $body::<__m256>($($arg),*) }
                }
                match $crate::flex::vectorized::level() {
                    // SAFETY: the processor has the features of the level; the rest is the caller's duty.
                    $crate::InstructionSet::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: the processor has the features of the level; the rest is the caller's duty.
                    $crate::InstructionSet::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::InstructionSet::Baseline => {}
                }
            }
            // SAFETY: the baseline needs no feature; the rest is the caller's duty.
            unsafe { $body::<[f32; 4]>($($arg),*) }
        }
    };
}
pub(super) use with_vectors;
