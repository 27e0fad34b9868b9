//! AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning (Zhang et al., 2023, arXiv:2303.10512),
//! equation 3: `h = W₀x + s·B·(E ⊙ A)·x`, a low-rank change in the form of a singular value decomposition, whose singular
//! values `E` can be zeroed one by one.
//!
//! [`RankAllocator`](crate::RankAllocator) distributes ranks over the layers while training, and
//! [`orthogonality`](crate::orthogonality) is what is added to the loss. As in PEFT the scale is `s = α/(init_r + 10⁻⁵)`,
//! also after ranks have been removed.

use burn::tensor::Tensor;
use ft_core::layers::{AdapterKind, AdapterTensor, At, LowRank, Merged};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use crate::adapter_config::json_settings;
use crate::method::{Draw, Method, NewAdapter, Origin, QUERIES_AND_VALUES, Site, method};
use crate::{Common, Error, Pattern, Result};

/// Settings of an AdaLoRA adapter (Zhang et al., 2023, arXiv:2303.10512).
///
/// The defaults are PEFT's; without `target_modules` it is put on queries and values. `total_step` has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdaLoraConfig {
    /// The mean rank of a layer at the end.
    pub target_r: usize,
    /// The rank of every layer at the beginning.
    pub init_r: usize,
    /// Steps before ranks are removed.
    pub tinit: usize,
    /// Steps after the last removal.
    pub tfinal: usize,
    /// Steps from one removal to the next.
    #[serde(rename = "deltaT")]
    pub delta_t: usize,
    /// How much of the mean importance is kept in a step.
    pub beta1: f64,
    /// How much of the mean uncertainty is kept in a step.
    pub beta2: f64,
    /// The weight of the orthogonality in the loss.
    pub orth_reg_weight: f64,
    /// How many steps the training has.
    pub total_step: Option<usize>,
    /// Which ranks are left, by the path of a layer and `.lora_E`. Layers that are not listed have all.
    #[serde(
        serialize_with = "null_if_empty",
        deserialize_with = "crate::pattern::deserialize"
    )]
    pub rank_pattern: Pattern<Vec<bool>>,
    /// The adapter's output is scaled by `lora_alpha / init_r`.
    pub lora_alpha: f64,
    /// Dropout on the adapter's input while training.
    pub lora_dropout: f64,
    /// Whether the singular values begin at zero.
    pub init_lora_weights: bool,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

fn null_if_empty<S: Serializer>(
    pattern: &[(String, Vec<bool>)],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match pattern {
        [] => serializer.serialize_none(),
        pattern => crate::pattern::serialize(pattern, serializer),
    }
}

impl Default for AdaLoraConfig {
    fn default() -> Self {
        Self {
            target_r: 8,
            init_r: 12,
            tinit: 0,
            tfinal: 0,
            delta_t: 1,
            beta1: 0.85,
            beta2: 0.85,
            orth_reg_weight: 0.5,
            total_step: None,
            rank_pattern: Vec::new(),
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            init_lora_weights: true,
            common: Common::default(),
        }
    }
}

json_settings!(AdaLoraConfig);

impl AdaLoraConfig {
    /// The rank of the layer at `path`.
    fn rank_of(&self, path: &str) -> Result<usize> {
        let kept = self
            .rank_pattern
            .iter()
            .find(|(name, _)| *name == pattern_name(path));
        let Some((name, kept)) = kept else {
            return Ok(self.init_r);
        };
        match kept.len() == self.init_r {
            true => Ok(kept.iter().filter(|kept| **kept).count()),
            false => Err(Error::Settings(format!(
                "rank_pattern of {name} has {} entries: it must have init_r = {}",
                kept.len(),
                self.init_r
            ))),
        }
    }

    /// The step at which ranks are removed for the last time.
    pub(crate) fn last_allocation(&self) -> usize {
        self.total_step
            .unwrap_or_default()
            .saturating_sub(self.tfinal)
    }
}

/// The name of a layer in `rank_pattern`.
pub(crate) fn pattern_name(path: &str) -> String {
    format!("{path}.{E}")
}

impl Method for AdaLoraConfig {
    method!("ADALORA");

    fn scaled(&self, factor: f64) -> Option<Box<dyn Method>> {
        let mut scaled = self.clone();
        scaled.lora_alpha *= factor;
        Some(Box::new(scaled))
    }

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.init_r == 0 {
            mistakes.push("init_r must be at least 1".to_string());
        }
        match self.total_step {
            None | Some(0) => mistakes.push("total_step must be given: how many steps the training has".to_string()),
            Some(total) if self.tinit + self.tfinal >= total => mistakes.push(format!(
                "total_step = {total} leaves no steps to remove ranks in: it must be above tinit + tfinal = {}",
                self.tinit + self.tfinal
            )),
            Some(_) => {}
        }
        if self.delta_t == 0 {
            mistakes.push("deltaT must be at least 1".to_string());
        }
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(beta > 0.0 && beta < 1.0) {
                mistakes.push(format!("{name} must be above 0 and below 1, not {beta}"));
            }
        }
        if !(self.orth_reg_weight.is_finite() && self.orth_reg_weight >= 0.0) {
            mistakes.push(format!(
                "orth_reg_weight must be at least 0, not {}",
                self.orth_reg_weight
            ));
        }
        if !(self.lora_alpha.is_finite() && self.lora_alpha > 0.0) {
            mistakes.push(format!(
                "lora_alpha must be above 0, not {}",
                self.lora_alpha
            ));
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            mistakes.push(format!(
                "lora_dropout must be at least 0 and below 1, not {}",
                self.lora_dropout
            ));
        }
        mistakes
    }

    // PEFT reads and trains such adapters, without effect on the ranks.
    fn refuses(&self, origin: Origin) -> Option<String> {
        let useless = self.init_r <= self.target_r || self.target_r == 0;
        (useless && origin == Origin::New).then(|| {
            format!(
                "init_r = {} must be above target_r = {}, which must be above 0: without ranks to remove, use LoRA",
                self.init_r, self.target_r
            )
        })
    }

    fn ignored_in_files(&self) -> &'static [&'static str] {
        // A setting of LoRA, which PEFT does not use for AdaLoRA.
        &["r"]
    }

    fn fixed(&self) -> Value {
        json!({
            "alora_invocation_tokens": null,
            "alpha_pattern": {},
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
            "r": 8,
            "target_parameters": null,
            "trainable_token_indices": null,
            "use_bdlora": null,
            "use_dora": false,
            "use_qalora": false,
            "use_rslora": false,
            "velora_config": null,
        })
    }

    fn tells_layout(&self) -> bool {
        true
    }

    fn default_targets(&self) -> &'static [&'static [&'static str]] {
        &QUERIES_AND_VALUES
    }

    fn bias_only(&self) -> Option<&'static str> {
        Some("lora_only")
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let linear = site.linear()?;
        let r = self.rank_of(site.path)?;
        let (inputs, outputs) = (linear.in_features(), linear.out_features());
        let (std, values) = match self.init_lora_weights {
            true => (0.02, draw.zeros([r, 1])),
            false => (1.0, draw.normal([r, 1], 1.0)),
        };
        let tensors = vec![
            AdapterTensor::new(A, draw.normal([r, inputs], std)),
            AdapterTensor::new(B, draw.normal([outputs, r], std)),
            AdapterTensor::new(E, values),
        ];
        let kind = AdaLora {
            scaling: self.lora_alpha / (self.init_r as f64 + 1e-5),
        };
        Ok(NewAdapter {
            dropout: self.lora_dropout,
            ..NewAdapter::new(kind, tensors)
        })
    }
}

/// Right singular vectors, `[r, in_features]`.
pub(crate) const A: &str = "lora_A";
/// Left singular vectors, `[out_features, r]`.
pub(crate) const B: &str = "lora_B";
/// Singular values, `[r, 1]`.
pub(crate) const E: &str = "lora_E";

/// `s·B·(E ⊙ A)·x`, added to the product.
#[derive(Clone, Copy, Debug)]
struct AdaLora {
    /// `s`.
    scaling: f64,
}

impl AdaLora {
    /// None if no rank is left.
    fn factors(&self, at: &At<'_>) -> Option<LowRank> {
        let values = at.adapter.val2(E);
        (values.dims()[0] > 0).then(|| LowRank {
            a: at.adapter.val2(A) * values,
            b: at.adapter.val2(B),
            scale: self.scaling,
            dropout: None,
        })
    }
}

impl AdapterKind for AdaLora {
    fn low_rank(&self, at: &At<'_>, x: &Tensor<2>) -> Option<LowRank> {
        match at.adapter.drops_out(x) {
            true => None,
            false => self.factors(at),
        }
    }

    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        if at.fused {
            return y;
        }
        match self.factors(at) {
            None => y,
            Some(LowRank { a, b, scale, .. }) => {
                let x = at.adapter.dropout.forward(x.clone());
                y + x.matmul(a.transpose()).matmul(b.transpose()) * scale
            }
        }
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        let weight = match self.factors(at) {
            None => merged.weight,
            Some(LowRank { a, b, scale, .. }) => merged.weight + b.matmul(a) * scale,
        };
        Some(Merged { weight, ..merged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let config = AdaLoraConfig {
            init_r: 8,
            delta_t: 0,
            beta2: 1.0,
            total_step: Some(10),
            tinit: 4,
            tfinal: 6,
            ..AdaLoraConfig::default()
        };
        let message = config.validate().expect_err("wrong").to_string();
        for part in ["deltaT", "beta2", "total_step = 10"] {
            assert!(message.contains(part), "{message}");
        }
        let reason = config.refuses(Origin::New).expect("no ranks to remove");
        assert!(reason.contains("target_r = 8"), "{reason}");
        assert!(config.refuses(Origin::File).is_none());
        let message = AdaLoraConfig::default()
            .validate()
            .expect_err("wrong")
            .to_string();
        assert!(message.contains("total_step"), "{message}");
    }

    #[test]
    fn a_rank_pattern_gives_the_ranks_and_is_null_without_entries() {
        let mut config = AdaLoraConfig {
            init_r: 3,
            target_r: 2,
            total_step: Some(10),
            ..AdaLoraConfig::default()
        };
        assert_eq!(config.to_json(false)["rank_pattern"], Value::Null);
        config.rank_pattern = vec![("a.q_proj.lora_E".into(), vec![true, false, true])];
        assert_eq!(config.rank_of("a.q_proj").expect("fits"), 2);
        assert_eq!(config.rank_of("b.q_proj").expect("fits"), 3);
        let json = config.to_json(false);
        assert_eq!(
            json["rank_pattern"]["a.q_proj.lora_E"],
            json!([true, false, true])
        );
        config.init_r = 4;
        assert!(config.rank_of("a.q_proj").is_err());
    }
}
