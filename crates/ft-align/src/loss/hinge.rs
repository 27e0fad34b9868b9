//! The hinge loss of the difference of log-ratios.

use burn::tensor::{Tensor, activation::relu};

/// Hinge: `max(0, 1 − βd)` with `d = chosen − rejected`.
///
/// The loss of SLiC (Zhao et al., 2023, arXiv:2305.10425) on log-ratios, as in Liu et al., 2023 (RSO,
/// arXiv:2309.06657).
///
/// # Shapes
///
/// - `chosen`, `rejected`: log-ratios, `[pairs]`
/// - result: `[pairs]`
pub fn hinge(chosen: Tensor<1>, rejected: Tensor<1>, beta: f64) -> Tensor<1> {
    relu((rejected - chosen) * beta + 1.0)
}
