//! A linear layer with a low-rank adapter in one operation: `x·Wᵀ + s·(x·Aᵀ)·Bᵀ` (Hu et al., 2021,
//! arXiv:2106.09685, equation 3).
//!
//! The adapter acts on activations: no dense `W + s·BA`, and no gradient of a `W` that is frozen.

use burn::tensor::Tensor;

/// The factors of an adapter, and their scale.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `[r, in]`
    pub a: Tensor<2>,
    /// `[out, r]`
    pub b: Tensor<2>,
    /// `alpha / r`, or `alpha / √r` with rsLoRA.
    pub scale: f64,
}

/// `x·Wᵀ`, plus what the adapter adds.
///
/// # Shapes
///
/// - `x`: `[rows, in]`, `weight`: `[out, in]`, a transposed view will do
/// - output: `[rows, out]`
pub fn linear(x: Tensor<2>, weight: Tensor<2>, adapter: Option<LowRank>) -> Tensor<2> {
    #[cfg(feature = "cpu")]
    if crate::flex::takes(&x)
        && crate::flex::takes(&weight)
        && (adapter.as_ref()).is_none_or(|l| crate::flex::takes(&l.a) && crate::flex::takes(&l.b))
    {
        use crate::flex::linear::Linear;
        use burn::backend::Dispatch;
        let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
        let y = match adapter {
            None => Dispatch::linear(x, weight),
            Some(LowRank { a, b, scale }) => {
                let (a, b) = (a.into_dispatch(), b.into_dispatch());
                Dispatch::linear_lora(x, weight, a, b, scale as f32)
            }
        };
        return Tensor::from_dispatch(y);
    }
    portable(x, weight, adapter)
}

/// [`linear`] of Burn's operations.
pub fn portable(x: Tensor<2>, weight: Tensor<2>, adapter: Option<LowRank>) -> Tensor<2> {
    let y = x.clone().matmul(weight.transpose());
    match adapter {
        None => y,
        Some(LowRank { a, b, scale }) => y + x.matmul(a.transpose()).matmul(b.transpose()) * scale,
    }
}
