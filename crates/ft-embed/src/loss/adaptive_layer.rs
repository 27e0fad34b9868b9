//! A loss on the embeddings of earlier layers as well as on those of the last one (Li et al., 2024, arXiv:2402.14776,
//! section 3).

use burn::tensor::{Tensor, activation::log_softmax, activation::softmax};

/// How much the parts count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerWeights {
    /// The loss of the last layer.
    pub last: f64,
    /// The losses of the earlier layers, of which the mean is taken.
    pub prior: f64,
    /// The divergence between earlier layers and the last.
    pub divergence: f64,
    /// The temperature of that divergence; 0 leaves it out.
    pub temperature: f64,
}

impl Default for LayerWeights {
    fn default() -> Self {
        Self {
            last: 1.0,
            prior: 1.0,
            divergence: 1.0,
            temperature: 0.3,
        }
    }
}

/// `T·KL(softmax(last / T) ‖ softmax(earlier / T))`, in which the last layer has no gradient.
///
/// # Shapes
///
/// - `earlier`, `last`: `[n, dims]`
/// - output: `[n]`
pub fn layer_divergence(earlier: Tensor<2>, last: Tensor<2>, temperature: f64) -> Tensor<1> {
    let last = last.detach() / temperature;
    let target = softmax(last.clone(), 1);
    let difference = log_softmax(last, 1) - log_softmax(earlier / temperature, 1);
    let divergence: Tensor<1> = (target * difference).sum_dim(1).squeeze_dim(1);
    divergence * temperature
}
