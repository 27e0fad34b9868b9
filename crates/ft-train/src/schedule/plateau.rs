//! A factor that falls when the evaluation loss stops to improve: PyTorch's `ReduceLROnPlateau` in mode `min`, with its relative
//! threshold of 10⁻⁴ and no cooldown.

/// By how much a loss must be smaller to count as an improvement.
const THRESHOLD: f64 = 1e-4;

/// `factor` to the power of how often `losses`, in order, did not improve for more than `patience` evaluations.
///
/// ```
/// use ft_train::plateau_factor;
///
/// // The best loss is the second; the three after it exceed a patience of 2.
/// assert_eq!(plateau_factor([3.0, 2.0, 2.1, 2.0, 2.2], 0.5, 2), 0.5);
/// assert_eq!(plateau_factor([3.0, 2.0, 2.1, 1.9, 2.2], 0.5, 2), 1.0);
/// ```
pub fn plateau_factor(losses: impl IntoIterator<Item = f64>, factor: f64, patience: usize) -> f64 {
    let (mut best, mut bad, mut product) = (f64::INFINITY, 0, 1.0);
    for loss in losses {
        if loss < best * (1.0 - THRESHOLD) {
            (best, bad) = (loss, 0);
        } else {
            bad += 1;
        }
        if bad > patience {
            product *= factor;
            bad = 0;
        }
    }
    product
}
