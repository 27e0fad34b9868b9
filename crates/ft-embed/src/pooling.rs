//! From the hidden states of a text's tokens to one vector: the poolings of sentence-transformers.
//!
//! With the tokens `h₁ … hₙ` of a text: `cls` is `h₁`; `mean` is `Σ hᵢ / n`; `mean_sqrt_len_tokens` is `Σ hᵢ / √n`; `max` is the
//! maximum of each feature; `weightedmean` is `Σ i·hᵢ / Σ i` (Muennighoff, 2022, arXiv:2202.08904, equation 2);
//! `lasttoken` is `hₙ`. Several poolings are put side by side.

use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::TextBatch;

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolingMode {
    /// The first token.
    #[serde(rename = "cls")]
    Cls,
    /// The maximum of each feature.
    #[serde(rename = "max")]
    Max,
    /// The mean.
    #[serde(rename = "mean")]
    Mean,
    /// The sum over the root of the number of tokens.
    #[serde(rename = "mean_sqrt_len_tokens")]
    MeanSqrtLen,
    /// The mean with the weights 1, 2, 3, ...
    #[serde(rename = "weightedmean")]
    WeightedMean,
    /// The last token.
    #[serde(rename = "lasttoken")]
    LastToken,
}

impl PoolingMode {
    /// All of them, in the order in which sentence-transformers puts several side by side.
    pub const ALL: [Self; 6] = [
        Self::Cls,
        Self::Max,
        Self::Mean,
        Self::MeanSqrtLen,
        Self::WeightedMean,
        Self::LastToken,
    ];

    /// The key of the old files of sentence-transformers, which have one for each mode.
    pub(crate) fn legacy_key(self) -> &'static str {
        match self {
            Self::Cls => "pooling_mode_cls_token",
            Self::Max => "pooling_mode_max_tokens",
            Self::Mean => "pooling_mode_mean_tokens",
            Self::MeanSqrtLen => "pooling_mode_mean_sqrt_len_tokens",
            Self::WeightedMean => "pooling_mode_weightedmean_tokens",
            Self::LastToken => "pooling_mode_lasttoken",
        }
    }

    /// The vectors of the texts.
    ///
    /// Tokens of prompts that do not count are left out; the weights of [`WeightedMean`](Self::WeightedMean) are those of the
    /// places in the whole text.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[rows · seq, width]`, the states of all tokens of the batch
    /// - output: `[texts, width]`
    pub fn pool(self, hidden: Tensor<2>, batch: &TextBatch) -> Tensor<2> {
        let texts = 0..batch.len();
        match self {
            Self::Cls => rows(hidden, texts.map(|text| batch.pooled(text).start).collect()),
            Self::LastToken => rows(
                hidden,
                texts.map(|text| batch.pooled(text).end - 1).collect(),
            ),
            Self::Max => {
                let longest = texts.clone().map(|text| batch.pooled(text).len()).max();
                let longest = longest.unwrap_or(0);
                // Short texts repeat their last token, which changes no maximum.
                let places = texts.flat_map(|text| {
                    let place = batch.pooled(text);
                    (0..longest).map(move |i| (place.start + i).min(place.end - 1))
                });
                let width = hidden.dims()[1];
                let states = rows(hidden, places.collect());
                let states = states.reshape([batch.len(), longest, width]);
                states.max_dim(1).squeeze_dim(1)
            }
            Self::Mean | Self::MeanSqrtLen | Self::WeightedMean => {
                let [tokens, width] = hidden.dims();
                let mut weights = vec![0.0f32; batch.len() * tokens];
                let mut factors = Vec::with_capacity(batch.len());
                for (text, weights) in weights.chunks_exact_mut(tokens.max(1)).enumerate() {
                    let place = batch.pooled(text);
                    let first = batch.places()[text].start;
                    let mut sum = 0.0f32;
                    for token in place {
                        weights[token] = match self {
                            Self::WeightedMean => (token - first + 1) as f32,
                            _ => 1.0,
                        };
                        sum += weights[token];
                    }
                    factors.push(match self {
                        Self::MeanSqrtLen => 1.0 / sum.sqrt(),
                        _ => 1.0 / sum,
                    });
                }
                let device = hidden.device();
                let weights = TensorData::new(weights, [batch.len(), tokens]);
                let factors = TensorData::new(factors, [batch.len(), 1]);
                let sums = Tensor::<2>::from_data(weights, &device).matmul(hidden);
                let factors = Tensor::<2>::from_data(factors, &device);
                sums * factors.expand([batch.len(), width])
            }
        }
    }
}

fn rows(hidden: Tensor<2>, places: Vec<usize>) -> Tensor<2> {
    let places: Vec<i64> = places.into_iter().map(|place| place as i64).collect();
    let count = places.len();
    let data = TensorData::new(places, [count]);
    let places = Tensor::<1, Int>::from_data(data, &hidden.device());
    hidden.select(0, places)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::TextTokens;

    fn texts<const N: usize>(lengths: [usize; N], skipped: usize) -> [TextTokens; N] {
        lengths.map(|length| TextTokens {
            ids: vec![1; length],
            skipped,
            ..TextTokens::default()
        })
    }

    /// Two texts of three tokens and one; one feature counts up, one down.
    #[test]
    fn every_pooling_by_hand() {
        let [a, b] = &texts([3, 1], 0);
        let device = Device::default();
        let hidden = [[1.0f32, -1.0], [2.0, -2.0], [3.0, -3.0], [8.0, -8.0]];
        let packed = TextBatch::packed(&[a, b]);
        for (mode, expected) in [
            (PoolingMode::Cls, [1.0f32, -1.0]),
            (PoolingMode::LastToken, [3.0, -3.0]),
            (PoolingMode::Max, [3.0, -1.0]),
            (PoolingMode::Mean, [2.0, -2.0]),
            // 6/√3
            (PoolingMode::MeanSqrtLen, [3.464_101_6, -3.464_101_6]),
            // (1 + 4 + 9)/6
            (PoolingMode::WeightedMean, [14.0 / 6.0, -14.0 / 6.0]),
        ] {
            let hidden = Tensor::<2>::from_data(hidden, &device);
            let pooled = mode.pool(hidden, &packed).into_data();
            let pooled = pooled.as_slice::<f32>().expect("f32");
            // A single token is what it is in all of them.
            let expected = [expected[0], expected[1], 8.0, -8.0];
            for (got, expected) in pooled.iter().zip(expected) {
                assert!((got - expected).abs() < 1e-6, "{mode:?}: {pooled:?}");
            }
        }
    }

    #[test]
    fn a_prompt_can_be_left_out() {
        let [a, b] = &texts([3, 2], 1);
        let batch = TextBatch::padded(&[a, b], 0);
        let hidden = [[1.0f32], [2.0], [3.0], [8.0], [9.0], [100.0]];
        let hidden = Tensor::<2>::from_data(hidden, &Device::default());
        for (mode, expected) in [
            (PoolingMode::Mean, [2.5f32, 9.0]),
            (PoolingMode::Cls, [2.0, 9.0]),
            // (2·2 + 3·3)/5 and 2·9/2
            (PoolingMode::WeightedMean, [2.6, 9.0]),
        ] {
            let pooled = mode.pool(hidden.clone(), &batch).into_data();
            let pooled = pooled.as_slice::<f32>().expect("f32");
            for (got, expected) in pooled.iter().zip(expected) {
                assert!((got - expected).abs() < 1e-6, "{mode:?}: {pooled:?}");
            }
        }
    }
}
