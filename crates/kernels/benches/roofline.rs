//! What the machine can do: fused multiply-adds from registers, and bytes from memory. Medians of wall-clock times.
//!
//! ```sh
//! cargo bench -p twoview-kernels --profile dev --bench roofline
//! ```

#![allow(clippy::print_stdout, reason = "the figures are the purpose")]
#![allow(unsafe_code, reason = "the peak is reached with intrinsics only")]

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

const REPETITIONS: usize = 9;

/// Elements of a stream, far more than the caches hold.
const STREAM: usize = 1 << 25;

/// Iterations of the arithmetic loop.
const ITERATIONS: usize = 20_000_000;

fn median_seconds(mut run: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..REPETITIONS)
        .map(|_| {
            let begun = Instant::now();
            run();
            begun.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[REPETITIONS / 2]
}

/// Twelve independent chains of fused multiply-adds, enough to hide their latency.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn chains_avx512() -> f32 {
    use std::arch::x86_64::*;
    let (factor, term) = (_mm512_set1_ps(0.999), _mm512_set1_ps(0.001));
    let mut sums = [_mm512_set1_ps(1.0); 12];
    // Unknown to the compiler, which would otherwise see that nothing is computed.
    let (factor, term) = (black_box(factor), black_box(term));
    for _ in 0..ITERATIONS {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, factor, term);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(black_box(sum))).sum()
}

/// As [`chains_avx512`], of half the width.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn chains_avx2() -> f32 {
    use std::arch::x86_64::*;
    let (factor, term) = (_mm256_set1_ps(0.999), _mm256_set1_ps(0.001));
    let mut sums = [_mm256_set1_ps(1.0); 12];
    // Unknown to the compiler, which would otherwise see that nothing is computed.
    let (factor, term) = (black_box(factor), black_box(term));
    for _ in 0..ITERATIONS {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, factor, term);
        }
    }
    sums.into_iter().map(|sum| _mm256_cvtss_f32(black_box(sum))).sum()
}

#[cfg(target_arch = "x86_64")]
fn arithmetic(threads: usize) {
    let report = |name: &str, width: usize, chains: unsafe fn() -> f32| {
        let seconds = median_seconds(|| {
            (0..threads).into_par_iter().for_each(|_| {
                // SAFETY: the caller detected the features.
                black_box(unsafe { chains() });
            });
        });
        // An iteration waits for the one before: a tenth of a nanosecond is out of reach of any processor.
        assert!(seconds > ITERATIONS as f64 * 1e-10, "the loop was optimized away");
        let operations = (threads * ITERATIONS * 12 * width * 2) as f64;
        println!("{name}, {threads} thread(s): {:.0} GFLOP/s", operations / seconds / 1e9);
    };
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        report("AVX2 fused multiply-adds", 8, chains_avx2);
    }
    if is_x86_feature_detected!("avx512f") {
        report("AVX-512 fused multiply-adds", 16, chains_avx512);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn arithmetic(_threads: usize) {}

fn memory(threads: usize) {
    let mut target = vec![0.0f32; STREAM];
    let source = vec![1.0f32; STREAM];
    let bytes = |per_element: usize| (STREAM * per_element) as f64;
    let chunk = STREAM.div_ceil(threads);
    let copy = median_seconds(|| {
        target.par_chunks_mut(chunk).zip(source.par_chunks(chunk)).for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&target);
    });
    let sum = median_seconds(|| {
        let sum: f32 = source
            .par_chunks(chunk)
            .map(|part| {
                let mut lanes = [0.0f32; 64];
                for block in part.as_chunks::<64>().0 {
                    for lane in 0..64 {
                        lanes[lane] += block[lane];
                    }
                }
                lanes.iter().sum::<f32>()
            })
            .sum();
        black_box(sum);
    });
    println!("copy, {threads} thread(s): {:.1} GB/s read and written", bytes(8) / copy / 1e9);
    println!("read, {threads} thread(s): {:.1} GB/s", bytes(4) / sum / 1e9);
}

fn main() {
    for threads in [1, rayon::current_num_threads()] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
        pool.install(|| {
            arithmetic(threads);
            memory(threads);
        });
    }
}
