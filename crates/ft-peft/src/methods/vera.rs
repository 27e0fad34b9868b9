//! VeRA: Vector-based Random Matrix Adaptation (Kopiczko et al., 2023, arXiv:2310.11454), equation 2:
//! `h = W₀x + Λ_b B Λ_d A x`, with random `A` and `B` that all layers share and never train.
//!
//! `Λ_b B Λ_d` is one factor, `[out, r]`, so this is a low-rank product whose `A` is frozen: neither the layer's input nor
//! the products with `B` are kept for the backward pass.

use burn::tensor::Tensor;
use ft_core::layers::{
    AdapterKind, AdapterTensor, At, Dropout, LowRank, Merged, dropout_seed,
};
use serde::{Deserialize, Serialize};

use crate::adapter_config::json_settings;
use crate::method::{Draw, Features, Method, NewAdapter, QUERIES_AND_VALUES, Site, method};
use crate::torch_random::TorchRandom;
use crate::{Common, Error, Result};

/// Settings of a VeRA adapter (Kopiczko et al., 2023, arXiv:2310.11454).
///
/// The defaults are PEFT's: without `target_modules` it is put on queries and values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VeraConfig {
    /// Rank of the random matrices.
    pub r: usize,
    /// Seed of the random matrices, which are those of PyTorch.
    pub projection_prng_key: u64,
    /// Whether the file has the random matrices. Without them it is much smaller.
    pub save_projection: bool,
    /// Dropout on the adapter's input while training.
    pub vera_dropout: f64,
    /// What the vector between the matrices begins with.
    pub d_initial: f64,
    /// Whether the adapter begins as no change; if not, the vectors are random.
    pub init_weights: bool,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for VeraConfig {
    fn default() -> Self {
        Self {
            r: 256,
            projection_prng_key: 0,
            save_projection: true,
            vera_dropout: 0.0,
            d_initial: 0.1,
            init_weights: true,
            common: Common::default(),
        }
    }
}

json_settings!(VeraConfig);

impl Method for VeraConfig {
    method!("VERA");

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.r == 0 {
            mistakes.push("r must be at least 1".to_string());
        }
        if !(0.0..1.0).contains(&self.vera_dropout) {
            mistakes.push(format!(
                "vera_dropout must be at least 0 and below 1, not {}",
                self.vera_dropout
            ));
        }
        if !self.d_initial.is_finite() {
            mistakes.push(format!("d_initial must be finite, not {}", self.d_initial));
        }
        mistakes
    }

    fn keys(&self) -> &'static [&'static str] {
        &["target_modules", "layers_to_transform", "layers_pattern", "modules_to_save"]
    }

    fn tells_layout(&self) -> bool {
        true
    }

    fn bias_only(&self) -> Option<&'static str> {
        Some("vera_only")
    }

    fn default_targets(&self) -> &'static [&'static [&'static str]] {
        &QUERIES_AND_VALUES
    }

    fn shared(&self, layers: &[Features], draw: &mut Draw<'_>) -> Result<Vec<AdapterTensor>> {
        if let Some(most) = draw.stored.filter(|most| self.r > *most) {
            return Err(Error::Settings(format!(
                "r = {} does not fit the tensors of the file, of which the largest has {most} numbers",
                self.r
            )));
        }
        let widest = |width: fn(&Features) -> usize| layers.iter().map(width).max().unwrap_or(0);
        let (inputs, outputs) = (widest(|f| f.inputs), widest(|f| f.outputs));
        let mut random = TorchRandom::new(self.projection_prng_key);
        let mut matrix = |name, shape: [usize; 2]| {
            // Kaiming's bound for ReLU
            let bound = 3f64.sqrt() * (2f64.sqrt() / (shape[1] as f64).sqrt());
            let numbers = random.uniform(shape[0] * shape[1], bound);
            let tensor = AdapterTensor::new(name, draw.tensor(numbers, shape)).shared();
            match self.save_projection {
                true => tensor,
                false => tensor.unsaved(),
            }
        };
        Ok(vec![matrix(A, [self.r, inputs]), matrix(B, [outputs, self.r])])
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let linear = site.linear()?;
        let (b, d) = match self.init_weights {
            _ if site.loaded => (draw.zeros([linear.out_features()]), draw.zeros([self.r])),
            true => (
                draw.zeros([linear.out_features()]),
                draw.ones([self.r]) * self.d_initial,
            ),
            false => (draw.ones([linear.out_features()]), draw.normal([self.r], 1.0)),
        };
        let tensors = vec![
            AdapterTensor::new(LAMBDA_B, b),
            AdapterTensor::new(LAMBDA_D, d),
            site.shared(A),
            site.shared(B),
        ];
        Ok(NewAdapter {
            dropout: self.vera_dropout,
            ..NewAdapter::new(Vera, tensors)
        })
    }
}

/// `[r, most in_features]`.
const A: &str = "vera_A";
/// `[most out_features, r]`.
const B: &str = "vera_B";
/// `[out_features]`.
const LAMBDA_B: &str = "vera_lambda_b";
/// `[r]`.
const LAMBDA_D: &str = "vera_lambda_d";

/// `Λ_b B Λ_d A x`, added to the product.
#[derive(Clone, Copy, Debug)]
struct Vera;

/// `A` and `Λ_b B Λ_d`, cut to the layer's size.
fn factors(at: &At<'_>) -> LowRank {
    let adapter = at.adapter;
    let a = adapter.val2(A).narrow(1, 0, at.layer.in_features());
    let b = adapter.val2(B).narrow(0, 0, at.layer.out_features());
    let outer = adapter.val1(LAMBDA_B).unsqueeze_dim::<2>(1) * adapter.val1(LAMBDA_D).unsqueeze_dim(0);
    LowRank {
        a,
        b: b * outer,
        scale: 1.0,
        dropout: None,
    }
}

impl AdapterKind for Vera {
    fn low_rank(&self, at: &At<'_>, x: &Tensor<2>) -> Option<LowRank> {
        let dropout = at.adapter.drops_out(x).then(|| Dropout {
            probability: at.adapter.dropout.prob,
            seed: dropout_seed(&x.device()),
        });
        Some(LowRank {
            dropout,
            ..factors(at)
        })
    }

    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        if at.fused {
            return y;
        }
        let LowRank { a, b, .. } = factors(at);
        let low = ft_kernels::linear(at.adapter.dropout.forward(x.clone()), a, None);
        y + ft_kernels::linear(low, b, None)
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        let LowRank { a, b, .. } = factors(at);
        Some(Merged {
            weight: merged.weight + b.matmul(a),
            ..merged
        })
    }
}
