//! One plain loop, compiled for each instruction set and chosen at run time.

/// Defines a function whose body is compiled for AVX-512, for AVX2 with FMA and for the baseline.
///
/// The body is ordinary safe Rust; the compiler vectorizes it with what the variant allows. The choice
/// depends on the processor alone, so results repeat on a machine.
macro_rules! vectorized {
    (
        $(#[$meta:meta])*
        fn $name:ident $(<const $size:ident: usize>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        fn $name $(<const $size: usize>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body $(<const $size: usize>)? ($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,fma")]
                fn avx512 $(<const $size: usize>)? ($($arg: $ty),*) $(-> $ret)? {
                    body $(::<$size>)? ($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<const $size: usize>)? ($($arg: $ty),*) $(-> $ret)? {
                    body $(::<$size>)? ($($arg),*)
                }
                if $crate::flex::vectorized::has_avx512() {
                    // SAFETY: the processor has every feature that the function was compiled for.
                    #[allow(unsafe_code, reason = "the call needs the processor's features, checked above")]
                    return unsafe { avx512 $(::<$size>)? ($($arg),*) };
                }
                if $crate::flex::vectorized::has_avx2() {
                    // SAFETY: the processor has every feature that the function was compiled for.
                    #[allow(unsafe_code, reason = "the call needs the processor's features, checked above")]
                    return unsafe { avx2 $(::<$size>)? ($($arg),*) };
                }
            }
            body $(::<$size>)? ($($arg),*)
        }
    };
}
pub(super) use vectorized;

/// Whether the AVX-512 variants may run here.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && has_avx2()
}

/// Whether the AVX2 variants may run here.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}
