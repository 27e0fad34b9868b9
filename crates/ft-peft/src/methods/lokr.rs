//! LoKr: Kronecker products (LyCORIS, Yeh et al., 2023, arXiv:2309.14859, section 3.3): `ΔW = s·W₁ ⊗ W₂`, with `s = α/r`,
//! where `W₂`, and `W₁` on request, may be a product of rank `r`.
//!
//! `(W₁ ⊗ W₂)x` is `W₂XW₁ᵀ` for the input written as a matrix `X`: two small products, and `ΔW` is never formed.

use burn::tensor::Tensor;
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor, At, Merged};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::adapter_config::json_settings;
use crate::lycoris::{LycorisDropout, Ranks};
use crate::method::{Draw, Method, NewAdapter, QUERIES_AND_VALUES, Site, method};
use crate::{Common, Pattern, Result};

/// How the factors are initialized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitLokrWeights {
    /// `W₁` zero, `W₂` random: PEFT's default.
    #[default]
    Default,
    /// `W₁` random, `W₂` zero, as in LyCORIS.
    Lycoris,
    /// Both random, so that the adapter does not begin as no change.
    Random,
}

impl Serialize for InitLokrWeights {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Default => serializer.serialize_bool(true),
            Self::Lycoris => serializer.serialize_str("lycoris"),
            Self::Random => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for InitLokrWeights {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(true) => Ok(Self::Default),
            Value::Bool(false) => Ok(Self::Random),
            Value::String(name) if name == "lycoris" => Ok(Self::Lycoris),
            other => Err(serde::de::Error::custom(format!(
                "must be true, false or \"lycoris\", not {other}"
            ))),
        }
    }
}

/// Settings of a LoKr adapter (Yeh et al., 2023, arXiv:2309.14859).
///
/// The defaults are PEFT's: without `target_modules` it is put on queries and values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LokrConfig {
    /// Rank of the second factor, which is whole if the rank is at least half its longer side.
    pub r: usize,
    /// The change is scaled by `alpha / r`.
    pub alpha: f64,
    /// The probability that a row of the change is zero while training.
    pub rank_dropout: f64,
    /// Whether the other rows are divided by their share.
    pub rank_dropout_scale: bool,
    /// The probability that the whole change of a layer is zero while training.
    pub module_dropout: f64,
    /// Whether the first factor can be a product of rank `r`, too.
    pub decompose_both: bool,
    /// The size of the first factor, or -1 for sizes near the square root.
    pub decompose_factor: i64,
    /// How the factors are initialized.
    pub init_weights: InitLokrWeights,
    /// Ranks of layers that differ.
    #[serde(with = "crate::pattern")]
    pub rank_pattern: Pattern<usize>,
    /// Alphas of layers that differ.
    #[serde(with = "crate::pattern")]
    pub alpha_pattern: Pattern<f64>,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for LokrConfig {
    fn default() -> Self {
        Self {
            r: 8,
            alpha: 8.0,
            rank_dropout: 0.0,
            rank_dropout_scale: false,
            module_dropout: 0.0,
            decompose_both: false,
            decompose_factor: -1,
            init_weights: InitLokrWeights::default(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            common: Common::default(),
        }
    }
}

json_settings!(LokrConfig);

impl LokrConfig {
    fn ranks(&self) -> Ranks<'_> {
        Ranks {
            r: self.r,
            alpha: self.alpha,
            rank_pattern: &self.rank_pattern,
            alpha_pattern: &self.alpha_pattern,
            dropout: LycorisDropout {
                rank: self.rank_dropout,
                rescaled: self.rank_dropout_scale,
                module: self.module_dropout,
            },
        }
    }
}

impl Method for LokrConfig {
    method!("LOKR");

    fn scaled(&self, factor: f64) -> Option<Box<dyn Method>> {
        let mut scaled = self.clone();
        scaled.alpha *= factor;
        scaled.alpha_pattern.iter_mut().for_each(|(_, alpha)| *alpha *= factor);
        Some(Box::new(scaled))
    }

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = self.ranks().mistakes();
        if self.decompose_factor != -1 && self.decompose_factor < 1 {
            mistakes.push(format!(
                "decompose_factor must be -1 or at least 1, not {}",
                self.decompose_factor
            ));
        }
        mistakes
    }

    fn patterns(&self) -> Vec<(&'static str, &str)> {
        self.ranks().patterns()
    }

    fn fixed(&self) -> Value {
        json!({"use_effective_conv2d": false})
    }

    fn default_targets(&self) -> &'static [&'static [&'static str]] {
        &QUERIES_AND_VALUES
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let linear = site.linear()?;
        let ranks = self.ranks();
        let r = ranks.rank_of(site.path);
        let factor = usize::try_from(self.decompose_factor).ok();
        let (in_m, in_n) = factorization(linear.in_features(), factor);
        let (out_l, out_k) = factorization(linear.out_features(), factor);
        let low_rank = |[rows, cols]: [usize; 2]| r.saturating_mul(2) < rows.max(cols);
        let mut tensors = Vec::new();
        let mut put = |name: &'static str, shape: [usize; 2], zero: bool| {
            let tensor = match zero {
                true => draw.zeros(shape),
                false => draw.uniform(shape, 1.0 / (shape[1] as f64).sqrt()),
            };
            tensors.push(AdapterTensor::new(name, tensor));
        };
        let first_zero = self.init_weights == InitLokrWeights::Default;
        let second_zero = self.init_weights == InitLokrWeights::Lycoris;
        if self.decompose_both && low_rank([out_l, in_m]) {
            put(W1_A, [out_l, r], first_zero);
            put(W1_B, [r, in_m], false);
        } else {
            put(W1, [out_l, in_m], first_zero);
        }
        if low_rank([out_k, in_n]) {
            put(W2_A, [out_k, r], false);
            put(W2_B, [r, in_n], second_zero);
        } else {
            put(W2, [out_k, in_n], second_zero);
        }
        let kind = Lokr {
            scaling: ranks.scaling_of(site.path),
            dropout: ranks.dropout,
        };
        Ok(NewAdapter {
            dropout: ranks.dropout.total(),
            ..NewAdapter::new(kind, tensors)
        })
    }
}

/// `dimension` as a product of two numbers, the smaller first (unless it is `factor`): `factor` and its complement where it
/// divides, otherwise the two that are nearest to each other, the smaller at most `factor`.
fn factorization(dimension: usize, factor: Option<usize>) -> (usize, usize) {
    if let Some(factor) = factor.filter(|factor| dimension.is_multiple_of(*factor)) {
        return (factor, dimension / factor);
    }
    let most = factor.unwrap_or(dimension);
    let small = (1..=dimension.isqrt()).rev().find(|m| *m <= most && dimension.is_multiple_of(*m));
    let small = small.unwrap_or(1);
    (small, dimension / small)
}

/// `[out_l, in_m]`, or a product of `[out_l, r]` and `[r, in_m]`.
const W1: &str = "lokr_w1";
const W1_A: &str = "lokr_w1_a";
const W1_B: &str = "lokr_w1_b";
/// `[out_k, in_n]`, or a product of `[out_k, r]` and `[r, in_n]`.
const W2: &str = "lokr_w2";
const W2_A: &str = "lokr_w2_a";
const W2_B: &str = "lokr_w2_b";

/// `s·(W₁ ⊗ W₂)·x`, added to the product.
#[derive(Clone, Copy, Debug)]
struct Lokr {
    /// `s`.
    scaling: f64,
    dropout: LycorisDropout,
}

impl Lokr {
    /// `s·W₁` and `W₂`.
    fn factors(&self, adapter: &Adapter) -> (Tensor<2>, Tensor<2>) {
        let factor = |whole, a, b| match adapter.get(whole) {
            Some(whole) => whole.val2(),
            None => adapter.val2(a).matmul(adapter.val2(b)),
        };
        (factor(W1, W1_A, W1_B) * self.scaling, factor(W2, W2_A, W2_B))
    }
}

/// `(W₁ ⊗ W₂)·x` for each row, the cheaper of the two products first.
fn kronecker(x: Tensor<2>, w1: Tensor<2>, w2: Tensor<2>) -> Tensor<2> {
    let rows = x.dims()[0];
    let ([l, m], [k, n]) = (w1.dims(), w2.dims());
    // Each number of the last dimension of `x`, `[rows, p, q]`, and its place among the others, exchanged.
    let exchanged = |x: Tensor<2>, p: usize, q: usize| {
        x.reshape([rows, p, q]).swap_dims(1, 2).reshape([rows * q, p])
    };
    let second_first = m * n * k + k * m * l;
    let first_first = n * m * l + l * n * k;
    match second_first <= first_first {
        true => {
            let x = ft_kernels::linear(x.reshape([rows * m, n]), w2, None);
            let y = ft_kernels::linear(exchanged(x, m, k), w1, None);
            exchanged(y, k, l).reshape([rows, l * k])
        }
        false => {
            let x = ft_kernels::linear(exchanged(x, m, n), w1, None);
            let y = ft_kernels::linear(exchanged(x, n, l), w2, None);
            y.reshape([rows, l * k])
        }
    }
}

impl AdapterKind for Lokr {
    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        let (w1, w2) = self.factors(at.adapter);
        y + self.dropout.apply(at, x, kronecker(x.clone(), w1, w2))
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        let (w1, w2) = self.factors(at.adapter);
        let ([l, m], [k, n]) = (w1.dims(), w2.dims());
        let delta = w1.reshape([l, 1, m, 1]) * w2.reshape([1, k, 1, n]);
        Some(Merged {
            weight: merged.weight + delta.reshape([l * k, m * n]),
            ..merged
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of PEFT 0.21.2.
    #[test]
    fn sizes_are_those_of_peft() {
        let near = [
            (576, (24, 24)),
            (1536, (32, 48)),
            (192, (12, 16)),
            (127, (1, 127)),
            (11008, (86, 128)),
            (1, (1, 1)),
        ];
        for (dimension, expected) in near {
            assert_eq!(factorization(dimension, None), expected);
        }
        let bounded = [(128, 4, (4, 32)), (576, 64, (64, 9)), (576, 10, (9, 64)), (127, 8, (1, 127))];
        for (dimension, factor, expected) in bounded {
            assert_eq!(factorization(dimension, Some(factor)), expected);
        }
    }
}
