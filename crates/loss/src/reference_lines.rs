//! The lines a contrastive loss is read against: chance, and the floors of perfect representations.

/// Loss of an encoder that cannot tell any two views apart, in nats.
///
/// ```text
/// ln(2N − 1)
/// ```
/// A collapsed encoder scores exactly this at every temperature. It is also the largest mutual information that
/// the bound `ln(2N − 1) − loss` can report for a batch of `n_images`.
///
/// ```
/// assert!((twoview_loss::chance_line(256) - 6.236).abs() < 1e-3);
/// ```
pub fn chance_line(n_images: usize) -> f64 {
    (2.0 * n_images as f64 - 1.0).ln()
}

/// NT-Xent of a representation whose partners coincide and whose other views are orthogonal, in nats.
///
/// ```text
/// ln(1 + (2N − 2)·exp(−1/τ))
/// ```
/// This is the line a good run approaches, and at usual temperatures it is far from zero: 4.94 for 512 images at
/// τ = 0.5. It is not a strict bound. Negatives can point away from each other, as far as `−1/(N − 1)` on average,
/// which matters for small batches only: [`simplex_floor`].
///
/// ```
/// assert!((twoview_loss::floor(512, 0.5) - 4.937).abs() < 1e-3);
/// ```
pub fn floor(n_images: usize, temperature: f64) -> f64 {
    let n_negatives = 2.0 * n_images as f64 - 2.0;
    (n_negatives * (-1.0 / temperature).exp()).ln_1p()
}

/// The least NT-Xent of any representation, in nats: partners coincide and the N images point away from each other as the
/// corners of a simplex do, which takes `N − 1` dimensions or more.
///
/// ```text
/// ln(1 + (2N − 2)·exp((−1/(N − 1) − 1)/τ))
/// ```
///
/// ```
/// assert!(twoview_loss::simplex_floor(8, 0.5) < twoview_loss::floor(8, 0.5));
/// ```
pub fn simplex_floor(n_images: usize, temperature: f64) -> f64 {
    let n_others = n_images as f64 - 1.0;
    (2.0 * n_others * ((-1.0 / n_others - 1.0) / temperature).exp()).ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_stays_accurate_where_one_plus_it_rounds_to_one() {
        let want = 510.0 * (-50.0_f64).exp();
        assert!((floor(256, 0.02) / want - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_floor_meets_the_chance_line_at_infinite_temperature() {
        assert!((floor(64, 1e12) - chance_line(64)).abs() < 1e-9);
    }
}
