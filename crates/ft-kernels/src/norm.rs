//! Normalisation over the last dimension.

use burn::tensor::{Tensor, module};

/// Root mean square norm: `x / √(mean(x²) + ε) · w` (Zhang and Sennrich, 2019, arXiv:1910.07467,
/// equation 4).
///
/// # Shapes
///
/// - `x`: `[..., features]`, `weight`: `[features]`
///
/// # Panics
///
/// If there are no features, or `weight` has another number of them.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    assert_features(&x, &weight);
    #[cfg(feature = "cpu")]
    if crate::flex::takes(&x) && crate::flex::takes(&weight) {
        use crate::flex::rms_norm::RmsNorm;
        use burn::backend::Dispatch;
        let y = Dispatch::rms_norm(x.into_dispatch(), weight.into_dispatch(), epsilon as f32);
        return Tensor::from_dispatch(y);
    }
    portable_rms_norm(x, weight, epsilon)
}

/// [`rms_norm`] with Burn's operations.
pub fn portable_rms_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let scale = (x.clone().square().mean_dim(D - 1) + epsilon)
        .sqrt()
        .recip();
    x * scale * weight.unsqueeze()
}

/// Layer norm: `(x − mean) / √(var + ε) · w + b` (Ba et al., 2016, arXiv:1607.06450, equation 4).
///
/// # Shapes
///
/// - `x`: `[..., features]`, `weight` and `bias`: `[features]`
///
/// # Panics
///
/// If there are no features, or `weight` or `bias` has another number of them.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    assert_features(&x, &weight);
    assert_features(&x, &bias);
    #[cfg(feature = "cpu")]
    if crate::flex::takes(&x) && crate::flex::takes(&weight) && crate::flex::takes(&bias) {
        use crate::flex::layer_norm::FusedLayerNorm;
        use burn::backend::Dispatch;
        let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
        let y = Dispatch::fused_layer_norm(x.into_dispatch(), weight, bias, epsilon as f32);
        return Tensor::from_dispatch(y);
    }
    portable_layer_norm(x, weight, bias, epsilon)
}

/// [`layer_norm`] with Burn's operations.
pub fn portable_layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    module::layer_norm(x, weight, Some(bias), epsilon)
}

fn assert_features<const D: usize>(x: &Tensor<D>, parameter: &Tensor<1>) {
    let features = x.dims()[D - 1];
    assert!(features > 0, "a norm over no features");
    assert_eq!(
        parameter.dims(),
        [features],
        "a norm's parameters have a number for every feature"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tolerance};

    #[test]
    fn rms_norm_of_three_and_four() {
        // mean of squares (9 + 16) / 2 = 12.5, √12.5 = 3.5355339
        let x = Tensor::<1>::from_data([3.0, 4.0], &Device::default());
        let weight = Tensor::<1>::from_data([1.0, 2.0], &Device::default());
        let expected = Tensor::<1>::from_data([0.848_528_1, 2.262_741_7], &Device::default());
        rms_norm(x, weight, 0.0)
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-6));
    }

    #[test]
    fn layer_norm_of_one_and_three() {
        // mean 2, variance ((1 − 2)² + (3 − 2)²) / 2 = 1, so −1 and 1 before weight and bias
        let device = Device::default();
        let [x, weight, bias] =
            [[1.0, 3.0], [5.0, 7.0], [0.5, 0.25]].map(|x| Tensor::<1>::from_data(x, &device));
        let expected = Tensor::<1>::from_data([-4.5, 7.25], &device);
        layer_norm(x, weight, bias, 0.0)
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-6));
    }
}
