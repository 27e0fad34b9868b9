//! The logarithm of `1 − eˣ`.

use std::f32::consts::LN_2;

use burn::tensor::Tensor;

/// `ln(1 − eˣ)` for `x < 0`, without loss of digits near 0 and far from it.
///
/// For `x < −ln 2` it is `ln_1p(−eˣ)`, otherwise `ln(−expm1(x))`, with `expm1(x) = 2 e^{x/2} sinh(x/2)` (Mächler,
/// "Accurately computing log(1 − exp(−|a|))", 2012, equation 7). At `x = 0` the value is −∞ and the gradient not a
/// number. Each branch is computed with the arguments of the other replaced, since a gradient of 0 times infinity would
/// be no number.
///
/// # Shapes
///
/// - `x` and result: any shape
pub fn log1mexp<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let far = x.clone().lower_elem(-LN_2);
    let small = x.clone().mask_fill(far.clone(), -LN_2);
    let half = small / 2.0;
    let near = (half.clone().exp() * half.sinh() * -2.0).log();
    let large = x.mask_fill(far.clone().bool_not(), -1.0);
    near.mask_where(far, (-large.exp()).log1p())
}
