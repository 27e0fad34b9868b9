//! LoHa: FedPara's Hadamard product (Hyeon-Woo et al., 2021, arXiv:2108.06098, proposition 2; LyCORIS, Yeh et al., 2023,
//! arXiv:2309.14859): `ΔW = s·(A₁B₁) ⊙ (A₂B₂)`, with `s = α/r`.
//!
//! The Hadamard product of two products of rank `r` is a product of rank `r²`, whose factors are the row-wise and
//! column-wise Kronecker products (Khatri-Rao) of `A₁` and `A₂`, `B₁` and `B₂`. So for small ranks it acts on activations,
//! and `ΔW` is never formed. For large ranks it is, and is made again in the backward pass.

use burn::tensor::Tensor;
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor, At, LowRank, Merged};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::adapter_config::json_settings;
use crate::lycoris::{LycorisDropout, Ranks};
use crate::method::{Draw, Method, NewAdapter, QUERIES_AND_VALUES, Site, method};
use crate::remade::remade;
use crate::{Common, Pattern, Result};

/// Settings of a LoHa adapter (Hyeon-Woo et al., 2021, arXiv:2108.06098).
///
/// The defaults are PEFT's: without `target_modules` it is put on queries and values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LohaConfig {
    /// Rank of both products; that of the change is up to its square.
    pub r: usize,
    /// The change is scaled by `alpha / r`.
    pub alpha: f64,
    /// The probability that a row of the change is zero while training.
    pub rank_dropout: f64,
    /// The probability that the whole change of a layer is zero while training.
    pub module_dropout: f64,
    /// Whether the adapter begins as no change; if not, all factors are random.
    pub init_weights: bool,
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

impl Default for LohaConfig {
    fn default() -> Self {
        Self {
            r: 8,
            alpha: 8.0,
            rank_dropout: 0.0,
            module_dropout: 0.0,
            init_weights: true,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            common: Common::default(),
        }
    }
}

json_settings!(LohaConfig);

impl LohaConfig {
    fn ranks(&self) -> Ranks<'_> {
        Ranks {
            r: self.r,
            alpha: self.alpha,
            rank_pattern: &self.rank_pattern,
            alpha_pattern: &self.alpha_pattern,
            dropout: LycorisDropout {
                rank: self.rank_dropout,
                rescaled: true,
                module: self.module_dropout,
            },
        }
    }
}

impl Method for LohaConfig {
    method!("LOHA");

    fn scaled(&self, factor: f64) -> Option<Box<dyn Method>> {
        let mut scaled = self.clone();
        scaled.alpha *= factor;
        scaled.alpha_pattern.iter_mut().for_each(|(_, alpha)| *alpha *= factor);
        Some(Box::new(scaled))
    }

    fn mistakes(&self) -> Vec<String> {
        self.ranks().mistakes()
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
        let (inputs, outputs) = (linear.in_features(), linear.out_features());
        let ranks = self.ranks();
        let r = ranks.rank_of(site.path);
        let left = 1.0 / (r as f64).sqrt();
        let right = 1.0 / (inputs as f64).sqrt();
        let tensors = vec![
            AdapterTensor::new(A1, draw.uniform([outputs, r], left)),
            AdapterTensor::new(B1, draw.uniform([r, inputs], right)),
            AdapterTensor::new(A2, draw.uniform([outputs, r], left)),
            AdapterTensor::new(
                B2,
                match self.init_weights {
                    true => draw.zeros([r, inputs]),
                    false => draw.uniform([r, inputs], right),
                },
            ),
        ];
        let kind = Loha {
            scaling: ranks.scaling_of(site.path),
            on_activations: r.saturating_mul(r).saturating_mul(inputs + outputs)
                <= inputs * outputs,
            dropout: ranks.dropout,
        };
        Ok(NewAdapter {
            dropout: ranks.dropout.total(),
            ..NewAdapter::new(kind, tensors)
        })
    }
}

/// `[out_features, r]`.
const A1: &str = "hada_w1_a";
/// `[r, in_features]`.
const B1: &str = "hada_w1_b";
/// `[out_features, r]`.
const A2: &str = "hada_w2_a";
/// `[r, in_features]`.
const B2: &str = "hada_w2_b";

/// `s·((A₁B₁) ⊙ (A₂B₂))·x`, added to the product.
#[derive(Clone, Copy, Debug)]
struct Loha {
    /// `s`.
    scaling: f64,
    /// Whether the products of rank `r²` cost less than that with `ΔW`.
    on_activations: bool,
    dropout: LycorisDropout,
}

impl Loha {
    /// `ΔW` as a product of rank `r²`.
    fn factors(&self, adapter: &Adapter) -> LowRank {
        let [outputs, r] = adapter.val2(A1).dims();
        let inputs = adapter.val2(B1).dims()[1];
        let b = adapter.val2(A1).unsqueeze_dim::<3>(2) * adapter.val2(A2).unsqueeze_dim(1);
        let a = adapter.val2(B1).unsqueeze_dim::<3>(1) * adapter.val2(B2).unsqueeze_dim(0);
        LowRank {
            a: a.reshape([r * r, inputs]),
            b: b.reshape([outputs, r * r]),
            scale: self.scaling,
            dropout: None,
        }
    }

    /// `ΔW`.
    fn delta(&self, adapter: &Adapter) -> Tensor<2> {
        let product = |a, b| adapter.val2(a).matmul(adapter.val2(b));
        product(A1, B1) * product(A2, B2) * self.scaling
    }
}

impl AdapterKind for Loha {
    fn low_rank(&self, at: &At<'_>, x: &Tensor<2>) -> Option<LowRank> {
        (self.on_activations && !at.adapter.drops_out(x)).then(|| self.factors(at.adapter))
    }

    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        if at.fused {
            return y;
        }
        let product = match self.on_activations {
            true => {
                let LowRank { a, b, scale, .. } = self.factors(at.adapter);
                let low = ft_kernels::linear(x.clone(), a, None);
                ft_kernels::linear(low, b, None) * scale
            }
            false => {
                let kind = *self;
                let delta = remade(at.adapter, &x.device(), move |adapter| kind.delta(adapter));
                ft_kernels::linear(x.clone(), delta, None)
            }
        };
        y + self.dropout.apply(at, x, product)
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        Some(Merged {
            weight: merged.weight + self.delta(at.adapter),
            ..merged
        })
    }
}
