//! LoRA: Low-Rank Adaptation of Large Language Models (Hu et al., 2021, arXiv:2106.09685), equation 3:
//! `h = W₀x + s·B(Ax)`, with `s = α/r`, or `α/√r` for rank-stabilised LoRA (Kalajdzievski, 2023, arXiv:2312.03732).
//!
//! It acts on activations: neither the sum `W₀ + sBA` nor its gradient, both the size of `W₀`, exists while training.

mod dora;
mod embedding;
mod eva;
mod eva_layers;
mod incremental_pca;
mod initialisation;
mod lora_fa;
mod low_rank;
mod plain;
mod settings;

use burn::tensor::Tensor;
use ft_core::Part;
use ft_core::layers::{AdapterTensor, LowRank};
use serde_json::{Value, json};

pub use eva::{EvaConfig, eva_initialise};
pub use initialisation::InitLoraWeights;
pub use lora_fa::lora_fa;
pub(crate) use lora_fa::{precondition, preconditions};
pub use plain::into_plain_lora;
pub(crate) use plain::saved_as_plain;
pub use settings::LoraConfig;

use crate::method::{Draw, Method, NewAdapter, Origin, Site, method};
use crate::{Result, TokenIndices};
use dora::{Dora, MAGNITUDE};
use embedding::on_embedding;
use low_rank::{A, B, BIAS, Lora, START_A, START_B};

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
        let ranks = self.rank_pattern.iter().map(|(_, r)| r).chain([&self.r]);
        mistakes.extend(ranks.filter_map(|r| self.init_lora_weights.mistake(*r)));
        if self.use_dora && self.init_lora_weights == InitLoraWeights::Mica {
            mistakes.push("use_dora and init_lora_weights = mica exclude each other".to_string());
        }
        if self.use_dora && self.lora_bias {
            mistakes.push("use_dora and lora_bias exclude each other".to_string());
        }
        mistakes.extend(self.eva_config.iter().filter_map(EvaConfig::mistake));
        if !(0.0..1.0).contains(&self.lora_dropout) {
            mistakes.push(format!(
                "lora_dropout must be at least 0 and below 1, not {}",
                self.lora_dropout
            ));
        }
        mistakes
    }

    fn scaled(&self, factor: f64) -> Option<Box<dyn Method>> {
        // DoRA's change is not linear in the scale, and what PiSSA subtracts does not depend on it.
        if self.use_dora || self.init_lora_weights.is_principal_part() {
            return None;
        }
        let mut scaled = self.clone();
        scaled.lora_alpha *= factor;
        scaled
            .alpha_pattern
            .iter_mut()
            .for_each(|(_, alpha)| *alpha *= factor);
        Some(Box::new(scaled))
    }

    fn refuses(&self, origin: Origin) -> Option<String> {
        let unused = origin == Origin::New
            && self.eva_config.is_some()
            && self.init_lora_weights != InitLoraWeights::Eva;
        let unused = unused.then(|| {
            "eva_config has no effect unless init_lora_weights is eva: leave it out".to_string()
        });
        let refused = self.init_lora_weights.refuses(origin);
        refused
            .or(unused)
            .or_else(|| self.bias_mistake().filter(|_| origin == Origin::New))
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
            "kasa_config": null,
            "layer_replication": null,
            "loftq_config": {},
            "lora_ga_config": null,
            "megatron_config": null,
            "megatron_core": "megatron.core",
            "monteclora_config": null,
            "qalora_group_size": 16,
            "target_parameters": null,
            "use_bdlora": null,
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

    fn takes(&self, part: Part<'_>) -> bool {
        matches!(part, Part::Linear(_) | Part::Embedding(_))
    }

    fn token_indices(&self) -> Option<&TokenIndices> {
        self.trainable_token_indices.as_ref()
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let scaling = self.scaling_of(site.path);
        let r = self.rank_of(site.path);
        if let Part::Embedding(table) = site.part {
            return on_embedding(site.path, table, self, draw);
        }
        let linear = site.linear()?;
        let start = self.init_lora_weights.factors(site, r, scaling, draw)?;
        let b = AdapterTensor::new(B, start.b.clone());
        let mut tensors = vec![
            AdapterTensor::new(A, start.a.clone()),
            match self.init_lora_weights {
                InitLoraWeights::Mica => b.frozen(),
                _ => b,
            },
        ];
        if self.lora_bias {
            let zeros = draw.zeros([linear.out_features()]);
            tensors.push(AdapterTensor::new(BIAS, zeros));
        }
        let lora = Lora { scaling };
        if self.use_dora {
            let added = match start.of_base {
                true => None,
                false => Some(LowRank {
                    a: start.a.clone(),
                    b: start.b.clone(),
                    scale: scaling,
                    dropout: None,
                }),
            };
            let magnitude = match site.loaded {
                true => draw.zeros([linear.out_features()]),
                false => {
                    let magnitude = dora::magnitude(linear.matrix(), added);
                    Tensor::<1>::from_data(magnitude.into_data(), &draw.device)
                }
            };
            tensors.push(AdapterTensor::new(MAGNITUDE, magnitude));
        }
        if start.of_base {
            let fixed = |name, tensor| AdapterTensor::new(name, tensor).frozen().unsaved();
            tensors.extend([fixed(START_A, start.a), fixed(START_B, -start.b)]);
        }
        let new = match self.use_dora {
            true => NewAdapter::new(Dora::new(lora), tensors),
            false => NewAdapter::new(lora, tensors),
        };
        Ok(NewAdapter {
            dropout: self.lora_dropout,
            ..new
        })
    }
}
