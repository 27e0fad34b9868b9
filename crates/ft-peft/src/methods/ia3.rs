//! IA3: Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning (Liu et al., 2022,
//! arXiv:2205.05638), section 3.3: `y = l ⊙ (Wx + b)`, and `y = W(l ⊙ x) + b` in feed-forward layers.

use burn::tensor::Tensor;
use ft_core::layers::{AdapterKind, AdapterTensor, At, Merged, Stage};
use serde::{Deserialize, Serialize};

use crate::adapter_config::json_settings;
use crate::method::{Draw, Method, NewAdapter, Site, method};
use crate::{Common, Error, Result, TargetModules};

/// Settings of an IA3 adapter (Liu et al., 2022, arXiv:2205.05638).
///
/// Without `target_modules` it is put on keys, values and the second feed-forward layer, as in the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ia3Config {
    /// Which of the layers scale their input in place of their output. Without it these are the feed-forward layers that
    /// `target_modules` names: `down_proj`, `mlp.c_proj`, `output.dense`, `dense_4h_to_h`, `fc2`; or all layers of these names,
    /// where it names none of them.
    pub feedforward_modules: Option<TargetModules>,
    /// Whether the vectors begin at one.
    pub init_ia3_weights: bool,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for Ia3Config {
    fn default() -> Self {
        Self {
            feedforward_modules: None,
            init_ia3_weights: true,
            common: Common::default(),
        }
    }
}

json_settings!(Ia3Config);

/// The feed-forward layers among the default targets.
const FEEDFORWARD: [&str; 5] = ["down_proj", "mlp.c_proj", "output.dense", "dense_4h_to_h", "fc2"];

impl Ia3Config {
    /// Which layers scale their input. PEFT requires that names are among those of `target_modules`; a pattern may name
    /// others.
    fn feedforward(&self) -> TargetModules {
        if let Some(chosen) = &self.feedforward_modules {
            return chosen.clone();
        }
        let names = match &self.common.target_modules {
            Some(TargetModules::Names(names)) => &names[..],
            _ => &[],
        };
        let known: Vec<&String> = names.iter().filter(|name| FEEDFORWARD.contains(&name.as_str())).collect();
        match known.is_empty() {
            true => {
                let names = FEEDFORWARD.map(regex::escape);
                TargetModules::Pattern(format!(r".*\.({})", names.join("|")))
            }
            false => TargetModules::names(known),
        }
    }
}

impl Method for Ia3Config {
    method!("IA3");

    fn mistakes(&self) -> Vec<String> {
        let (Some(TargetModules::Names(feedforward)), Some(TargetModules::Names(targets))) =
            (&self.feedforward_modules, &self.common.target_modules)
        else {
            return Vec::new();
        };
        let others: Vec<&str> = (feedforward.iter().filter(|name| !targets.contains(name)))
            .map(String::as_str)
            .collect();
        match others.is_empty() {
            true => Vec::new(),
            false => vec![format!(
                "feedforward_modules has names that target_modules does not have: {}; both must name layers alike, or be \
                 a pattern",
                others.join(", ")
            )],
        }
    }

    fn keys(&self) -> &'static [&'static str] {
        &["target_modules", "exclude_modules", "modules_to_save"]
    }

    fn tells_layout(&self) -> bool {
        true
    }

    fn default_targets(&self) -> &'static [&'static [&'static str]] {
        &[
            &["k_proj", "v_proj", "down_proj"],
            &["c_attn", "mlp.c_proj"],
            &["key", "value", "output.dense"],
            &["query_key_value", "dense_4h_to_h"],
            &["k_proj", "v_proj", "fc2"],
            &["qkv_proj", "down_proj"],
        ]
    }

    fn settle(&mut self) {
        let feedforward = self.feedforward();
        // `all-linear` is written as names, which may be others than these.
        self.feedforward_modules = Some(match (feedforward, &self.common.target_modules) {
            (TargetModules::Names(names), Some(TargetModules::Pattern(_))) => {
                let names: Vec<String> = names.iter().map(|name| regex::escape(name)).collect();
                TargetModules::Pattern(format!(r"(.*\.)?({})", names.join("|")))
            }
            (feedforward, _) => feedforward,
        });
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let linear = site.linear()?;
        let feedforward = self.feedforward();
        let feedforward = feedforward.matcher("").map_err(Error::Settings)?(site.path);
        let shape = match feedforward {
            true => [1, linear.in_features()],
            false => [linear.out_features(), 1],
        };
        let vector = match self.init_ia3_weights {
            true => draw.ones(shape),
            false => draw.normal(shape, 1.0),
        };
        Ok(NewAdapter::new(
            Ia3 { feedforward },
            vec![AdapterTensor::new(L, vector)],
        ))
    }
}

/// `[out_features, 1]`, or `[1, in_features]` in feed-forward layers.
const L: &str = "ia3_l";

/// A factor for each feature of the output, or of the input in feed-forward layers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ia3 {
    feedforward: bool,
}

/// `l`, `[out_features]` or `[in_features]`.
fn factors(at: &At<'_>) -> Tensor<1> {
    at.adapter.val2(L).flatten(0, 1)
}

impl AdapterKind for Ia3 {
    fn input(&self, at: &At<'_>, x: &Tensor<2>) -> Option<Tensor<2>> {
        (self.feedforward).then(|| ft_kernels::scale_features(x.clone(), factors(at)))
    }

    fn output(&self, at: &At<'_>, _: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        match self.feedforward {
            true => y,
            false => ft_kernels::scale_features(y, factors(at)),
        }
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        let l = at.adapter.val2(L);
        let bias = match self.feedforward {
            true => merged.bias,
            false => merged.bias.map(|bias| bias * l.clone().squeeze_dim(1)),
        };
        Some(Merged {
            weight: merged.weight * l,
            bias,
            ..merged
        })
    }

    fn stage(&self) -> Stage {
        match self.feedforward {
            true => Stage::Input,
            false => Stage::Output,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PEFT requires that names are among those of the targets, and takes any pattern.
    #[test]
    fn feedforward_layers_follow_from_the_targets() {
        let settled = |targets| {
            let mut config = Ia3Config::default().with_targets(targets);
            config.settle();
            config.feedforward_modules
        };
        assert_eq!(
            settled(TargetModules::names(["k_proj", "down_proj"])),
            Some(TargetModules::names(["down_proj"]))
        );
        let pattern = settled(TargetModules::all_linear()).expect("settled");
        let matcher = pattern.matcher("").expect("parses");
        assert!(matcher("transformer.h.0.mlp.c_proj") && matcher("model.layers.0.mlp.down_proj"));
        assert!(!matcher("transformer.h.0.attn.c_proj"));
    }
}
