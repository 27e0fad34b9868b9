//! A factor for each feature.

use burn::tensor::Tensor;

/// `x ⊙ f`, each feature times its factor, as in IA3 (Liu et al., 2022, arXiv:2205.05638, equation 2) and DoRA. The graph
/// keeps `x` only if the factors have a gradient.
///
/// # Shapes
///
/// - `x`: `[..., features]`, `factors`: `[features]`
///
/// # Panics
///
/// If there are no features, or there is another number of factors.
pub fn scale_features<const D: usize>(x: Tensor<D>, factors: Tensor<1>) -> Tensor<D> {
    let features = x.dims()[D - 1];
    assert!(features > 0, "factors of no features");
    assert_eq!(factors.dims(), [features], "each feature has a factor");
    #[cfg(feature = "cpu")]
    if crate::flex::takes(&x) && crate::flex::takes(&factors) {
        use crate::flex::scale_features::ScaleFeatures;
        use burn::backend::Dispatch;
        let y = Dispatch::scale_features(x.into_dispatch(), factors.into_dispatch());
        return Tensor::from_dispatch(y);
    }
    portable(x, factors)
}

/// [`scale_features`] with Burn's operations.
pub fn portable<const D: usize>(x: Tensor<D>, factors: Tensor<1>) -> Tensor<D> {
    x * factors.unsqueeze()
}
