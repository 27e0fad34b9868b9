//! LoRA: Low-Rank Adaptation of Large Language Models (Hu et al., 2021, arXiv:2106.09685), equation 3:
//! `h = W₀x + s·B(Ax)`, with `s = α/r`, or `α/√r` for rank-stabilised LoRA (Kalajdzievski, 2023, arXiv:2312.03732).
//!
//! It acts on activations: neither the sum `W₀ + sBA` nor its gradient, both the size of `W₀`, exists while training.

mod initialisation;
mod low_rank;
mod settings;

use ft_core::layers::AdapterTensor;
use serde_json::{Value, json};

pub use initialisation::InitLoraWeights;
pub use settings::LoraConfig;
pub(crate) use settings::exception;

use crate::Result;
use crate::method::{Draw, Method, New, Site, method};
use low_rank::{A, B, Lora};

impl Method for LoraConfig {
    method!("LORA");

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let ranks = self.rank_pattern.iter().map(|(_, r)| r).chain([&self.r]);
        if ranks.into_iter().any(|r| *r == 0) {
            mistakes.push("r must be at least 1".to_string());
        }
        let alphas = self.alpha_pattern.iter().map(|(_, a)| a);
        for alpha in alphas.chain([&self.lora_alpha]) {
            if !alpha.is_finite() || *alpha <= 0.0 {
                mistakes.push(format!("lora_alpha must be above 0, not {alpha}"));
            }
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            mistakes.push(format!(
                "lora_dropout must be at least 0 and below 1, not {}",
                self.lora_dropout
            ));
        }
        mistakes
    }

    fn scaled(&self, factor: f64) -> Option<Box<dyn Method>> {
        let mut scaled = self.clone();
        scaled.lora_alpha *= factor;
        scaled.alpha_pattern.iter_mut().for_each(|(_, alpha)| *alpha *= factor);
        Some(Box::new(scaled))
    }

    fn patterns(&self) -> Vec<(&'static str, &str)> {
        let ranks = self
            .rank_pattern
            .iter()
            .map(|(name, _)| ("rank_pattern", name.as_str()));
        let alphas = self
            .alpha_pattern
            .iter()
            .map(|(name, _)| ("alpha_pattern", name.as_str()));
        ranks.chain(alphas).collect()
    }

    fn fixed(&self) -> Value {
        json!({
            "alora_invocation_tokens": null,
            "arrow_config": null,
            "corda_config": null,
            "ensure_weight_tying": false,
            "eva_config": null,
            "kasa_config": null,
            "layer_replication": null,
            "loftq_config": {},
            "lora_bias": false,
            "lora_ga_config": null,
            "megatron_config": null,
            "megatron_core": "megatron.core",
            "monteclora_config": null,
            "qalora_group_size": 16,
            "target_parameters": null,
            "trainable_token_indices": null,
            "use_bdlora": null,
            "use_dora": false,
            "use_qalora": false,
            "velora_config": null,
        })
    }

    fn tells_layout(&self) -> bool {
        true
    }

    fn bias_only(&self) -> Option<&'static str> {
        Some("lora_only")
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<New> {
        site.linear()?;
        let r = self.rank_of(site.path);
        let [a, b] = self.init_lora_weights.factors(site.features(), r, draw);
        let tensors = vec![AdapterTensor::new(A, a), AdapterTensor::new(B, b)];
        let kind = Lora {
            scaling: self.scaling_of(site.path),
        };
        Ok(New {
            dropout: self.lora_dropout,
            ..New::new(kind, tensors)
        })
    }
}
