//! One plain loop, compiled for each instruction set and chosen at run time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::InstructionSet;

/// The highest level that may be used, as a number.
static LIMIT: AtomicU8 = AtomicU8::new(InstructionSet::Avx512 as u8);

/// See [`crate::limit_instruction_set`].
pub(crate) fn set_limit(limit: InstructionSet) {
    LIMIT.store(limit as u8, Ordering::Relaxed);
}

/// The instruction set in use: that of the processor, or the limit where that is lower.
pub(crate) fn level() -> InstructionSet {
    static DETECTED: OnceLock<InstructionSet> = OnceLock::new();
    let limit = match LIMIT.load(Ordering::Relaxed) {
        0 => InstructionSet::Baseline,
        1 => InstructionSet::Avx2,
        _ => InstructionSet::Avx512,
    };
    limit.min(*DETECTED.get_or_init(detected))
}

#[cfg(target_arch = "x86_64")]
fn detected() -> InstructionSet {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq");
    match (avx2, avx512) {
        (true, true) => InstructionSet::Avx512,
        (true, false) => InstructionSet::Avx2,
        _ => InstructionSet::Baseline,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> InstructionSet {
    InstructionSet::Baseline
}

/// Defines a function whose body is compiled for AVX-512, for AVX2 with FMA and for the baseline.
///
/// The body is ordinary safe Rust; the compiler vectorizes it with what the variant allows. The choice
/// depends on the processor and the process's limit alone, so results repeat on a machine.
macro_rules! vectorized {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<const $size:ident: $size_type:ty>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name $(<const $size: $size_type>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body $(<const $size: $size_type>)? ($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
                fn avx512 $(<const $size: $size_type>)? ($($arg: $ty),*) $(-> $ret)? {
                    body $(::<$size>)? ($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<const $size: $size_type>)? ($($arg: $ty),*) $(-> $ret)? {
                    body $(::<$size>)? ($($arg),*)
                }
                match $crate::flex::vectorized::level() {
                    $crate::InstructionSet::Avx512 => {
                        // SAFETY: the processor has every feature that the function was compiled for.
                        #[allow(unsafe_code, reason = "the call needs the processor's features, checked above")]
                        return unsafe { avx512 $(::<$size>)? ($($arg),*) };
                    }
                    $crate::InstructionSet::Avx2 => {
                        // SAFETY: the processor has every feature that the function was compiled for.
                        #[allow(unsafe_code, reason = "the call needs the processor's features, checked above")]
                        return unsafe { avx2 $(::<$size>)? ($($arg),*) };
                    }
                    $crate::InstructionSet::Baseline => {}
                }
            }
            body $(::<$size>)? ($($arg),*)
        }
    };
}
pub(super) use vectorized;
