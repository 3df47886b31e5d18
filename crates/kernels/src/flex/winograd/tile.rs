//! The transforms of one tile.
//!
//! `Gᵀ` and `A`, the transposes of `G` and `Aᵀ`, carry the gradients of what those make.

#![allow(unsafe_code, reason = "transforms use vector intrinsics on raw pointers")]

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use crate::flex::vector::{LANES, Vector, with_vectors};
use crate::flex::vectorized::vectorized;

/// Outputs per tile and axis.
pub(super) const OUT: usize = 4;
/// Inputs per tile and axis.
pub(super) const IN: usize = 6;
/// Places of a transformed tile.
pub(super) const PLACES: usize = IN * IN;

/// `G v`: the values of `v₀ + v₁x + v₂x²` at the points, divided by the products of their distances.
#[inline(always)]
fn filter_row(v: [f32; 3]) -> [f32; IN] {
    const A: f32 = -1.0 / 1.5; // Of ±1/√2.
    const B: f32 = 1.0 / 6.0; // Of ±√2.
    let (even_a, odd_a) = (A * (v[0] + 0.5 * v[2]), A * FRAC_1_SQRT_2 * v[1]);
    let (even_b, odd_b) = (B * (v[0] + 2.0 * v[2]), B * SQRT_2 * v[1]);
    [v[0], even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, v[2]]
}

/// `Gᵀ v`, the transpose of [`filter_row`].
#[inline(always)]
fn filter_gradient_row(v: [f32; IN]) -> [f32; 3] {
    const A: f32 = -1.0 / 1.5;
    const B: f32 = 1.0 / 6.0;
    let (even_a, odd_a) = (A * (v[1] + v[2]), A * FRAC_1_SQRT_2 * (v[1] - v[2]));
    let (even_b, odd_b) = (B * (v[3] + v[4]), B * SQRT_2 * (v[3] - v[4]));
    [v[0] + even_a + even_b, odd_a + odd_b, 0.5 * even_a + 2.0 * even_b + v[5]]
}

vectorized! {
    /// `G g Gᵀ` in each lane.
    pub(super) fn filter_tile(taps: &[[f32; LANES]; 9], places: &mut [[f32; LANES]; PLACES]) {
        for lane in 0..LANES {
            let mut rows = [[0.0; 3]; IN]; // G g
            for v in 0..3 {
                let column = filter_row([taps[v][lane], taps[3 + v][lane], taps[6 + v][lane]]);
                for i in 0..IN {
                    rows[i][v] = column[i];
                }
            }
            for (i, row) in rows.into_iter().enumerate() {
                for (j, value) in filter_row(row).into_iter().enumerate() {
                    places[i * IN + j][lane] = value;
                }
            }
        }
    }
}

vectorized! {
    /// `Gᵀ U G` in each lane.
    pub(super) fn filter_gradient_tile(places: &[[f32; LANES]; PLACES], taps: &mut [[f32; LANES]; 9]) {
        for lane in 0..LANES {
            let mut rows = [[0.0; IN]; 3]; // Gᵀ U
            for j in 0..IN {
                let column = filter_gradient_row(std::array::from_fn(|i| places[i * IN + j][lane]));
                for u in 0..3 {
                    rows[u][j] = column[u];
                }
            }
            for (u, row) in rows.into_iter().enumerate() {
                for (v, value) in filter_gradient_row(row).into_iter().enumerate() {
                    taps[u * 3 + v][lane] = value;
                }
            }
        }
    }
}

with_vectors! {
    /// `Bᵀ d B` of one tile.
    ///
    /// # Safety
    /// `from` must be valid for six rows and columns of pixels `distance` apart, `to` for 36 places `stride` apart.
    pub(super) unsafe fn input_tile(from: *const f32, distance: [usize; 2], channels: usize, to: *mut f32, stride: usize)
        = input_tile_body
}

with_vectors! {
    /// `Aᵀ M A` of one tile.
    ///
    /// # Safety
    /// `from` must be valid for 36 places `stride` apart, `to` for `size` pixels `distance` apart.
    pub(super) unsafe fn output_tile(
        from: *const f32,
        stride: usize,
        width: usize,
        to: *mut f32,
        distance: [usize; 2],
        size: [usize; 2],
        accumulate: bool,
    ) = output_tile_body
}

with_vectors! {
    /// `A dY Aᵀ` of one tile, zero beyond `size`.
    ///
    /// # Safety
    /// `from` must be valid for `size` pixels `distance` apart, `to` for 36 places `stride` apart.
    pub(super) unsafe fn gradient_tile(
        from: *const f32,
        distance: [usize; 2],
        size: [usize; 2],
        width: usize,
        to: *mut f32,
        stride: usize,
    ) = gradient_tile_body
}

/// `Bᵀ v`.
///
/// # Safety
/// The processor must have what `V` needs.
#[inline(always)]
unsafe fn input_row<V: Vector>(d: [V; IN]) -> [V; IN] {
    // SAFETY: passed on to the caller.
    unsafe {
        let (a, b) = (V::splat(FRAC_1_SQRT_2), V::splat(SQRT_2));
        let (minus_a, minus_b) = (V::splat(-FRAC_1_SQRT_2), V::splat(-SQRT_2));
        let (minus_half, minus_two) = (V::splat(-0.5), V::splat(-2.0));
        let minus_both = V::splat(-2.5);
        let even_a = minus_two.mul_add(d[2], d[4]);
        let odd_a = minus_two.mul_add(d[1], d[3]);
        let even_b = minus_half.mul_add(d[2], d[4]);
        let odd_b = minus_half.mul_add(d[1], d[3]);
        [
            minus_both.mul_add(d[2], d[0].add(d[4])),
            a.mul_add(odd_a, even_a),
            minus_a.mul_add(odd_a, even_a),
            b.mul_add(odd_b, even_b),
            minus_b.mul_add(odd_b, even_b),
            minus_both.mul_add(d[3], d[1].add(d[5])),
        ]
    }
}

/// `Aᵀ v`.
///
/// # Safety
/// The processor must have what `V` needs.
#[inline(always)]
unsafe fn output_row<V: Vector>(m: [V; IN]) -> [V; OUT] {
    // SAFETY: passed on to the caller.
    unsafe {
        let (a, b) = (V::splat(FRAC_1_SQRT_2), V::splat(SQRT_2));
        let (half, two) = (V::splat(0.5), V::splat(2.0));
        let (even_a, odd_a) = (m[1].add(m[2]), a.mul(m[1].sub(m[2])));
        let (even_b, odd_b) = (m[3].add(m[4]), b.mul(m[3].sub(m[4])));
        [
            m[0].add(even_a.add(even_b)),
            odd_a.add(odd_b),
            half.mul_add(even_a, two.mul(even_b)),
            half.mul_add(odd_a, two.mul_add(odd_b, m[5])),
        ]
    }
}

/// `A v`.
///
/// # Safety
/// The processor must have what `V` needs.
#[inline(always)]
unsafe fn gradient_row<V: Vector>(y: [V; OUT]) -> [V; IN] {
    // SAFETY: passed on to the caller.
    unsafe {
        let (a, b) = (V::splat(FRAC_1_SQRT_2), V::splat(SQRT_2));
        let (minus_a, minus_b) = (V::splat(-FRAC_1_SQRT_2), V::splat(-SQRT_2));
        let (half, two) = (V::splat(0.5), V::splat(2.0));
        let (even_a, odd_a) = (half.mul_add(y[2], y[0]), half.mul_add(y[3], y[1]));
        let (even_b, odd_b) = (two.mul_add(y[2], y[0]), two.mul_add(y[3], y[1]));
        [
            y[0],
            a.mul_add(odd_a, even_a),
            minus_a.mul_add(odd_a, even_a),
            b.mul_add(odd_b, even_b),
            minus_b.mul_add(odd_b, even_b),
            y[3],
        ]
    }
}

/// Row `i` of a matrix given by its columns. No closures here: they would not be compiled for the vectors' features.
#[inline(always)]
fn row_of<V: Copy, const R: usize, const C: usize>(columns: &[[V; R]; C], i: usize) -> [V; C] {
    let mut row = [columns[0][0]; C];
    for (value, column) in row.iter_mut().zip(columns) {
        *value = column[i];
    }
    row
}

/// Six vectors `distance` apart.
///
/// # Safety
/// `from` must be valid for them, and the processor must have what `V` needs.
#[inline(always)]
unsafe fn load_six<V: Vector>(from: *const f32, distance: usize) -> [V; IN] {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut vectors = [V::splat(0.0); IN];
        for (i, vector) in vectors.iter_mut().enumerate() {
            *vector = V::load(from.add(i * distance));
        }
        vectors
    }
}

#[inline(always)]
unsafe fn input_tile_body<V: Vector>(
    from: *const f32,
    [row, pixel]: [usize; 2],
    channels: usize,
    to: *mut f32,
    stride: usize,
) {
    for channel in (0..channels).step_by(V::WIDTH) {
        // SAFETY: passed on to the caller.
        unsafe {
            let (from, to) = (from.add(channel), to.add(channel));
            let mut columns = [[V::splat(0.0); IN]; IN]; // Bᵀ d, by columns.
            for (j, column) in columns.iter_mut().enumerate() {
                *column = input_row(load_six(from.add(j * pixel), row));
            }
            for i in 0..IN {
                let places = input_row(row_of(&columns, i));
                for (j, place) in places.into_iter().enumerate() {
                    place.store(to.add((i * IN + j) * stride));
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn output_tile_body<V: Vector>(
    from: *const f32,
    stride: usize,
    width: usize,
    to: *mut f32,
    [row, pixel]: [usize; 2],
    [rows, columns]: [usize; 2],
    accumulate: bool,
) {
    for channel in (0..width).step_by(V::WIDTH) {
        // SAFETY: passed on to the caller.
        unsafe {
            let (from, to) = (from.add(channel), to.add(channel));
            let mut halves = [[V::splat(0.0); OUT]; IN]; // Aᵀ M, by columns.
            for (j, half) in halves.iter_mut().enumerate() {
                *half = output_row(load_six(from.add(j * stride), IN * stride));
            }
            for i in 0..rows {
                let outputs = output_row(row_of(&halves, i));
                for (j, output) in outputs.into_iter().enumerate().take(columns) {
                    let to = to.add(i * row + j * pixel);
                    let output = if accumulate { V::load(to).add(output) } else { output };
                    output.store(to);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn gradient_tile_body<V: Vector>(
    from: *const f32,
    [row, pixel]: [usize; 2],
    [rows, columns]: [usize; 2],
    width: usize,
    to: *mut f32,
    stride: usize,
) {
    for channel in (0..width).step_by(V::WIDTH) {
        // SAFETY: passed on to the caller.
        unsafe {
            let (from, to) = (from.add(channel), to.add(channel));
            let mut halves = [[V::splat(0.0); IN]; OUT]; // A dY, by columns.
            for (j, half) in halves.iter_mut().enumerate().take(columns) {
                let mut column = [V::splat(0.0); OUT];
                for (i, value) in column.iter_mut().enumerate().take(rows) {
                    *value = V::load(from.add(i * row + j * pixel));
                }
                *half = gradient_row(column);
            }
            for i in 0..IN {
                let places = gradient_row(row_of(&halves, i));
                for (j, place) in places.into_iter().enumerate() {
                    place.store(to.add((i * IN + j) * stride));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Σ aᵢ bᵢ`.
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// One axis of F(4, 3): filtering six inputs by three taps, with the transforms of one lane.
    #[test]
    fn one_axis_gives_the_four_outputs_of_a_filter() {
        let d = [1.0, -2.0, 0.5, 3.0, -1.5, 2.0];
        let g = [0.25, -1.0, 2.0];
        // SAFETY: arrays of f32 need no feature.
        let (input, output) = unsafe { (input_row(d.map(|value| [value; 4])), output_row::<[f32; 4]>) };
        let filter = filter_row(g);
        let products = std::array::from_fn(|i| input[i].map(|value| value * filter[i]));
        // SAFETY: as above.
        let outputs = unsafe { output(products) };
        for (i, output) in outputs.into_iter().enumerate() {
            let want = dot(&d[i..i + 3], &g);
            assert!((output[0] - want).abs() < 1e-5, "output {i}: {} instead of {want}", output[0]);
        }
    }

    /// `⟨A v, w⟩ = ⟨v, Aᵀ w⟩`, and the same for `G`: what the gradients rest on.
    #[test]
    fn gradients_use_the_transposed_transforms() {
        let (v4, v3) = ([1.0, -0.5, 2.0, 3.0], [0.5, -1.0, 2.0]);
        let w = [0.25, -1.0, 2.0, 0.5, 1.5, -3.0];
        // SAFETY: arrays of f32 need no feature.
        let (a_v, at_w) = unsafe { (gradient_row(v4.map(|v| [v; 4])), output_row(w.map(|w| [w; 4]))) };
        let (left, right) = (dot(&a_v.map(|v| v[0]), &w), dot(&v4, &at_w.map(|v| v[0])));
        assert!((left - right).abs() < 1e-5, "{left} {right}");
        let (left, right) = (dot(&filter_row(v3), &w), dot(&v3, &filter_gradient_row(w)));
        assert!((left - right).abs() < 1e-5, "{left} {right}");
    }

    /// The largest error of F(4, 3) in two dimensions, summed over `CHANNELS` channels in f32, as a share of the largest
    /// output; with the points `0, ±a, ±b, ∞`, and for the plain sum.
    fn largest_errors(a: f64, b: f64) -> [f64; 2] {
        const CHANNELS: u64 = 64;
        const TILES: u64 = 64;
        // Sums of twelve uniform numbers are close to normal.
        let normal = |i: u64| -> f64 {
            let uniform = |k: u64| {
                let mut z = (12 * i + k + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                (z >> 11) as f64 / (1u64 << 53) as f64
            };
            (0..12).map(uniform).sum::<f64>() - 6.0
        };
        let (a2, b2) = (a * a, b * b);
        let to_f32 = |value: f64| crate::flex::batch_norm::round(value);
        let input = [
            [a2 * b2, 0.0, -a2 - b2, 0.0, 1.0, 0.0],
            [0.0, -a * b2, -b2, a, 1.0, 0.0],
            [0.0, a * b2, -b2, -a, 1.0, 0.0],
            [0.0, -a2 * b, -a2, b, 1.0, 0.0],
            [0.0, a2 * b, -a2, -b, 1.0, 0.0],
            [0.0, a2 * b2, 0.0, -a2 - b2, 0.0, 1.0],
        ];
        let (of_a, of_b) = (2.0 * a2 * (a2 - b2), 2.0 * b2 * (b2 - a2));
        let filter = [
            [1.0 / (a2 * b2), 0.0, 0.0],
            [1.0 / of_a, a / of_a, a2 / of_a],
            [1.0 / of_a, -a / of_a, a2 / of_a],
            [1.0 / of_b, b / of_b, b2 / of_b],
            [1.0 / of_b, -b / of_b, b2 / of_b],
            [0.0, 0.0, 1.0],
        ];
        let output: [[f64; IN]; OUT] = std::array::from_fn(|i| {
            let power = |point: f64| point.powi(i32::try_from(i).expect("small"));
            let last = if i + 1 == OUT { 1.0 } else { 0.0 };
            [if i == 0 { 1.0 } else { 0.0 }, power(a), power(-a), power(b), power(-b), last]
        });
        /// `M V Mᵀ` in f32.
        fn both_sides<const R: usize, const C: usize>(m: &[[f64; C]; R], v: &[[f32; C]; C]) -> [[f32; R]; R] {
            let m = m.map(|row| row.map(crate::flex::batch_norm::round));
            let half: [[f32; C]; R] =
                std::array::from_fn(|i| std::array::from_fn(|j| (0..C).map(|k| m[i][k] * v[k][j]).sum()));
            std::array::from_fn(|i| std::array::from_fn(|j| (0..C).map(|k| half[i][k] * m[j][k]).sum()))
        }
        let (mut largest, mut errors) = (0.0f64, [0.0f64; 2]);
        for tile in 0..TILES {
            let mut want = [[0.0f64; OUT]; OUT];
            let (mut plain, mut products) = ([[0.0f32; OUT]; OUT], [[0.0f32; IN]; IN]);
            for channel in 0..CHANNELS {
                let at = (tile * CHANNELS + channel) * 36;
                let d: [[f32; IN]; IN] =
                    std::array::from_fn(|i| std::array::from_fn(|j| to_f32(normal(at + (i * IN + j) as u64))));
                let g: [[f32; 3]; 3] = std::array::from_fn(|i| {
                    std::array::from_fn(|j| to_f32(normal((1 << 32) + channel * 9 + (i * 3 + j) as u64)))
                });
                for (i, j, u, v) in (0..OUT * OUT * 9).map(|n| (n / 36, n / 9 % 4, n / 3 % 3, n % 3)) {
                    want[i][j] += f64::from(d[i + u][j + v]) * f64::from(g[u][v]);
                    plain[i][j] += d[i + u][j + v] * g[u][v];
                }
                let (d, g) = (both_sides(&input, &d), both_sides(&filter, &g));
                for (i, j) in (0..PLACES).map(|n| (n / IN, n % IN)) {
                    products[i][j] += d[i][j] * g[i][j];
                }
            }
            let tiled = both_sides(&output, &products);
            for (i, j) in (0..OUT * OUT).map(|n| (n / OUT, n % OUT)) {
                largest = largest.max(want[i][j].abs());
                errors[0] = errors[0].max((f64::from(tiled[i][j]) - want[i][j]).abs());
                errors[1] = errors[1].max((f64::from(plain[i][j]) - want[i][j]).abs());
            }
        }
        errors.map(|error| error / largest)
    }

    /// Prints what the module claims; see it with `cargo test --workspace the_points_lose -- --nocapture`.
    #[test]
    #[allow(clippy::print_stdout, reason = "the figures are quoted in the documentation")]
    fn the_points_lose_less_than_the_usual_ones() {
        let [ours, plain] = largest_errors(0.5f64.sqrt(), 2.0f64.sqrt());
        let [usual, _] = largest_errors(1.0, 2.0);
        println!(
            "largest error: {ours:.1e} with our points, {usual:.1e} with the usual ones, {plain:.1e} of the plain sum"
        );
        assert!(2.0 * ours < usual, "{ours} {usual}");
        assert!(ours < 4.0 * plain, "{ours} {plain}");
    }
}
