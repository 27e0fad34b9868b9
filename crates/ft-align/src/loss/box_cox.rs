//! The power transform of Box and Cox, `(eᵏᵘ − 1)/k`, on logarithms: what alpha divergences and AlphaPO share.

use burn::tensor::Tensor;

/// The largest exponent: e⁸⁰ and its products with ordinary numbers are finite in `f32`.
pub(crate) const MAX_EXPONENT: f64 = 80.0;

/// `eˣ`, with `x` bounded by [`MAX_EXPONENT`], where the gradient is 0 instead of infinite.
pub(crate) fn bounded_exp<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clamp_max(MAX_EXPONENT).exp()
}

/// `(eᵏᵘ − 1)/k`, and `u` for `k = 0`, its limit.
pub(crate) fn box_cox<const D: usize>(u: Tensor<D>, k: f64) -> Tensor<D> {
    if k.abs() < 1e-6 {
        return u;
    }
    (bounded_exp(u * k) - 1.0) / k
}
