//! Proportions with intervals.

use serde::Serialize;

use crate::significance::normal_quantile;

/// A share of a total, with Wilson's 95% interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Proportion {
    /// The share, from 0 to 1; `None` if the total is 0.
    pub share: Option<f64>,
    /// Lower and upper end of the interval.
    pub interval: Option<[f64; 2]>,
    /// The count; a tie adds one half.
    pub count: f64,
    /// The total.
    pub total: usize,
}

/// The share `count / total` with its score interval (Wilson, 1927, doi:10.1080/01621459.1927.10502953), which is also valid
/// for small totals and for shares near 0 and 1.
///
/// ```
/// let found = ft_eval::judges::proportion(9.0, 10);
/// let [low, high] = found.interval.unwrap();
/// assert!((low - 0.5958).abs() < 1e-4 && (high - 0.9821).abs() < 1e-4);
/// ```
pub fn proportion(count: f64, total: usize) -> Proportion {
    if total == 0 {
        return Proportion {
            share: None,
            interval: None,
            count,
            total,
        };
    }
    let n = total as f64;
    let z = normal_quantile(0.05);
    let (share, square) = (count / n, z * z);
    let middle = share + square / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt();
    let scale = 1.0 + square / n;
    Proportion {
        share: Some(share),
        interval: Some([
            ((middle - half) / scale).max(0.0),
            ((middle + half) / scale).min(1.0),
        ]),
        count,
        total,
    }
}
