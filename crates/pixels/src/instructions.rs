//! Which vector instructions a kernel uses, and the one place where that is decided.

/// The instruction set that kernels run on: a property of the processor, chosen once and passed along.
///
/// A value exists only for what this processor has. The result of a kernel does not depend on it: every variant is the
/// same plain loop, compiled for other instructions, and none of its operations is allowed to round differently
/// (a multiplication fused with an addition is written as such, everywhere).
///
/// On ARM the baseline already holds the vector instructions (NEON).
///
/// # Example
/// ```
/// use twoview_pixels::Instructions;
///
/// assert!(Instructions::available().contains(&Instructions::best()));
/// assert!(Instructions::available().contains(&Instructions::BASELINE));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instructions(pub(crate) Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Instructions {
    /// What every processor of the architecture has.
    pub const BASELINE: Instructions = Instructions(Level::Baseline);

    /// The widest this processor has. The question is asked once per process, after that it costs a load or two.
    pub fn best() -> Instructions {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw");
            if avx2 && avx512 {
                return Instructions(Level::Avx512);
            }
            if avx2 {
                return Instructions(Level::Avx2);
            }
        }
        Instructions::BASELINE
    }

    /// What they are called: `avx2`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Baseline => "baseline",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
        }
    }

    /// Everything this processor has, the baseline first: what a test goes through.
    pub fn available() -> Vec<Instructions> {
        let best = Instructions::best().0;
        let all = [
            Level::Baseline,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512,
        ];
        all.into_iter().filter(|&level| level <= best).map(Instructions).collect()
    }
}

/// Defines a function that takes [`Instructions`] first and whose body is compiled for each of them.
///
/// The body is ordinary safe Rust, which the compiler turns into the vector instructions that the variant allows.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name(instructions: $crate::Instructions, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }
            match instructions.0 {
                $crate::instructions::Level::Baseline => body($($arg),*),
                #[cfg(target_arch = "x86_64")]
                $crate::instructions::Level::Avx2 => {
                    // SAFETY: this level is only made where the processor has AVX2 and FMA.
                    #[allow(unsafe_code, reason = "the call needs the processor's features")]
                    unsafe { avx2($($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                $crate::instructions::Level::Avx512 => {
                    // SAFETY: this level is only made where the processor has every feature named above.
                    #[allow(unsafe_code, reason = "the call needs the processor's features")]
                    unsafe { avx512($($arg),*) }
                }
            }
        }
    };
}
pub(crate) use vectorized;
