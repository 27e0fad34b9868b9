//! Rotary position embedding (Su et al., 2021, arXiv:2104.09864, equation 34).

use burn::tensor::Tensor;

/// Rotates each head by its position.
///
/// The two halves of a head are the real and imaginary parts, as Hugging Face stores them:
/// `out = (a·cos − b·sin, b·cos + a·sin)` for `x = (a, b)`.
///
/// # Shapes
///
/// - `x`: `[batch, heads, seq, head_dim]`
/// - `cos`, `sin`: `[batch or 1, 1, seq, head_dim / 2]`
///
/// The angles are constants and have no gradient.
///
/// # Panics
///
/// If the shapes do not match.
pub fn apply_rotary(x: Tensor<4>, cos: &Tensor<4>, sin: &Tensor<4>) -> Tensor<4> {
    let [batch, _, seq, width] = x.dims();
    for angles in [cos, sin].map(Tensor::dims) {
        let [rows, heads, positions, half] = angles;
        assert_eq!(width, 2 * half, "half as many angles as a head is wide");
        assert!(
            (rows == batch || rows == 1) && heads == 1 && positions == seq,
            "angles of {angles:?} do not match heads of {:?}",
            x.dims()
        );
    }
    #[cfg(feature = "cpu")]
    if crate::flex::takes(&x) && crate::flex::takes(cos) && crate::flex::takes(sin) {
        use crate::flex::rotary::Rotary;
        use burn::backend::Dispatch;
        let (cos, sin) = (cos.clone().into_dispatch(), sin.clone().into_dispatch());
        return Tensor::from_dispatch(Dispatch::rotary(x.into_dispatch(), cos, sin));
    }
    portable(x, cos, sin)
}

/// [`apply_rotary`] with Burn's operations.
pub fn portable(x: Tensor<4>, cos: &Tensor<4>, sin: &Tensor<4>) -> Tensor<4> {
    let half = x.dims()[3] / 2;
    let a = x.clone().narrow(3, 0, half);
    let b = x.narrow(3, half, half);
    let real = a.clone() * cos.clone() - b.clone() * sin.clone();
    let imaginary = b * cos.clone() + a * sin.clone();
    Tensor::cat(vec![real, imaginary], 3)
}
