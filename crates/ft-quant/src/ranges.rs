//! Ranges of numbers for a grid: all of them, or a part whose rounding loses less.
//!
//! A wide range has a large step for all numbers; a narrow one clips a few. Static ranges of activations are chosen once, from
//! samples; dynamic ones are [`min_max`] of each row when it is there.

use crate::{Grid, Levels};

/// The least and the greatest number. Numbers that are not finite are ignored; without numbers both are 0.
pub fn min_max(x: &[f32]) -> (f32, f32) {
    let finite = x.iter().copied().filter(|x| x.is_finite());
    let (min, max) = finite.fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), x| {
        (min.min(x), max.max(x))
    });
    if min <= max { (min, max) } else { (0.0, 0.0) }
}

/// The range without the share `1 − p` of the numbers, half of it at each end.
///
/// # Panics
///
/// If `p` is not above 0 and at most 1.
///
/// ```
/// let x: Vec<f32> = (0..=1000).map(|i| i as f32).collect();
/// assert_eq!(ft_quant::ranges::percentile(&x, 0.99), (5.0, 995.0));
/// ```
pub fn percentile(x: &[f32], p: f64) -> (f32, f32) {
    assert!(
        p > 0.0 && p <= 1.0,
        "a share of {p}, not above 0 and at most 1"
    );
    let mut sorted: Vec<f32> = x.iter().copied().filter(|x| x.is_finite()).collect();
    sorted.sort_by(f32::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return (0.0, 0.0);
    };
    let cut = ((1.0 - p) / 2.0 * last as f64).round() as usize;
    (sorted[cut], sorted[last - cut])
}

/// The range, [`min_max`] times 1, 0.99, ... 0.2, whose grid has the least mean squared error.
///
/// ```
/// use ft_quant::{Levels, ranges};
///
/// let mut x: Vec<f32> = (0..1000).map(|i| (i as f32 / 500.0) - 1.0).collect();
/// x.push(3.0);
/// // With 2 bits it pays to clip the one outlier.
/// let (_, max) = ranges::mean_squared_error(&x, Levels::signed(2), true);
/// assert!(max < 2.5);
/// ```
pub fn mean_squared_error(x: &[f32], levels: Levels, symmetric: bool) -> (f32, f32) {
    let (min, max) = min_max(x);
    let mut best = (f64::INFINITY, (min, max));
    for percent in (20..=100).rev() {
        let part = percent as f32 / 100.0;
        let range = (min * part, max * part);
        let grid = match symmetric {
            true => Grid::symmetric(range.1.max(-range.0), levels),
            false => Grid::affine(range.0, range.1, levels),
        };
        let error = grid.mean_squared_error(x);
        if error < best.0 {
            best = (error, range);
        }
    }
    best.1
}

/// Bins of the histogram of magnitudes.
const BINS: usize = 2048;

/// The bound of magnitudes for which the distribution of the rounded numbers is nearest to that of the numbers, by their
/// Kullback-Leibler divergence (Migacz, 2017, "8-bit inference with TensorRT"). `levels` is the number of integers of one
/// sign, 128 for 8 bits.
///
/// ```
/// // Most numbers are below 1. The bound cuts the few of 20.
/// let x: Vec<f32> = (0..100_000).map(|i| if i % 20_000 == 7 { 20.0 } else { (i % 997) as f32 / 997.0 }).collect();
/// let bound = ft_quant::ranges::entropy(&x, 128);
/// assert!(bound > 0.99 && bound < 2.0, "{bound}");
/// ```
pub fn entropy(x: &[f32], levels: usize) -> f32 {
    let (min, max) = min_max(x);
    let most = max.max(-min);
    if most == 0.0 || levels == 0 || levels >= BINS {
        return most;
    }
    let mut counts = vec![0.0f64; BINS];
    for x in x.iter().filter(|x| x.is_finite()) {
        let bin = (x.abs() / most * BINS as f32) as usize;
        counts[bin.min(BINS - 1)] += 1.0;
    }
    let total: f64 = counts.iter().sum();
    let mut best = (f64::INFINITY, BINS);
    let mut inside: f64 = counts[..levels].iter().sum();
    for bins in levels..=BINS {
        let divergence = divergence(&counts[..bins], total - inside, levels);
        if divergence < best.0 {
            best = (divergence, bins);
        }
        inside += counts.get(bins).copied().unwrap_or(0.0);
    }
    most * best.1 as f32 / BINS as f32
}

/// From the clipped distribution, whose last bin has what is outside, to that of `levels` equal parts. Each part is spread
/// over its bins that are not empty.
fn divergence(counts: &[f64], outside: f64, levels: usize) -> f64 {
    let last = counts.len() - 1;
    let total: f64 = counts.iter().sum::<f64>() + outside;
    let inside = (total - outside).max(f64::MIN_POSITIVE);
    let mut divergence = 0.0;
    for level in 0..levels {
        let start = level * counts.len() / levels;
        let end = (level + 1) * counts.len() / levels;
        let part = &counts[start..end];
        let sum: f64 = part.iter().sum();
        let filled = part.iter().filter(|count| **count > 0.0).count();
        for (i, count) in part.iter().enumerate() {
            let more = if start + i == last { outside } else { 0.0 };
            let p = (count + more) / total;
            if p > 0.0 {
                // A bin that only the outside fills has no share of the rounded numbers.
                let q = if *count > 0.0 {
                    sum / filled as f64 / inside
                } else {
                    1e-9
                };
                divergence += p * (p / q).ln();
            }
        }
    }
    divergence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_has_no_range() {
        assert_eq!(min_max(&[f32::NAN, 2.0, f32::INFINITY, -1.0]), (-1.0, 2.0));
        assert_eq!(
            (min_max(&[]), percentile(&[], 0.9)),
            ((0.0, 0.0), (0.0, 0.0))
        );
    }

    #[test]
    fn the_least_error_is_not_above_that_of_the_whole_range() {
        let x: Vec<f32> = (1..500)
            .map(|i| (i as f32).sin().powi(5) * (i % 17) as f32)
            .collect();
        for bits in 2..=8 {
            let levels = Levels::unsigned(bits);
            let (min, max) = min_max(&x);
            let whole = Grid::affine(min, max, levels).mean_squared_error(&x);
            let (min, max) = mean_squared_error(&x, levels, false);
            assert!(Grid::affine(min, max, levels).mean_squared_error(&x) <= whole);
        }
    }
}
