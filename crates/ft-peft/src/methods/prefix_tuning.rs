//! Prefix tuning: Prefix-Tuning: Optimizing Continuous Prompts for Generation (Li and Liang, 2021, arXiv:2101.00190),
//! section 4: trained keys and values before those of the tokens, in every block. Keys are not rotated.

use std::collections::BTreeMap;

use ft_core::Parts;
use serde::{Deserialize, Serialize};

use crate::adapter_config::json_settings;
use crate::method::{Draw, Method, NewAdapter, Origin, Site};
use crate::prompt_encoder::{self, Activation, Network, PromptSizes, prompt_method};
use crate::{Common, Error, Result};

/// How a prefix begins, where it is not random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitPrefix {
    /// Zeros. They still take part in the softmax, so that the model is not the base.
    Zero,
}

/// Settings of prefix tuning (Li and Liang, 2021, arXiv:2101.00190).
///
/// With a projection a network computes keys and values while they train. The file of the adapter holds them and not the
/// network, so that a loaded adapter trains without it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrefixTuningConfig {
    /// How many virtual tokens.
    pub num_virtual_tokens: usize,
    /// Whether a network of two layers computes keys and values.
    pub prefix_projection: bool,
    /// The width between its layers; that of the keys of a block if not given.
    pub encoder_hidden_size: Option<usize>,
    /// How the prefix begins; normal with standard deviation 1 if not given.
    pub init_weights: Option<InitPrefix>,
    /// Sizes of the model.
    #[serde(flatten)]
    pub sizes: PromptSizes,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for PrefixTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: 20,
            prefix_projection: false,
            encoder_hidden_size: None,
            init_weights: None,
            sizes: PromptSizes::default(),
            common: Common::default(),
        }
    }
}

json_settings!(PrefixTuningConfig);

const PROJECTION: Network = Network {
    layers: &["transform.0", "transform.2"],
    activation: Activation::Tanh,
};

/// Projections to keys, and projections to queries, keys and values with the output layers beside them.
const KEYS: &str = "k_proj";
const FUSED: [&str; 3] = ["c_attn", "query_key_value", "qkv_proj"];
const OUTPUTS: [&str; 3] = ["c_proj", "dense", "o_proj"];

/// The features of all key heads together, for every block.
///
/// A fused projection has as many output features for queries as the output layer has inputs, and equally many for keys
/// and values.
fn key_features(model: &dyn Parts) -> Vec<usize> {
    #[derive(Default)]
    struct Attention {
        keys: Option<usize>,
        fused: Option<usize>,
        output: Option<usize>,
    }
    let mut layers: BTreeMap<String, Attention> = BTreeMap::new();
    model.for_each_linear(&mut |path, linear| {
        let Some((layer, name)) = path.rsplit_once('.') else {
            return;
        };
        let layer = layers.entry(layer.to_string()).or_default();
        if name == KEYS {
            layer.keys = Some(linear.out_features());
        } else if FUSED.contains(&name) {
            layer.fused = Some(linear.out_features());
        } else if OUTPUTS.contains(&name) {
            layer.output = Some(linear.in_features());
        }
    });
    let of_fused = |layer: &Attention| Some(layer.fused?.checked_sub(layer.output?)? / 2);
    let of_layer = |layer: &Attention| layer.keys.or_else(|| of_fused(layer));
    layers.values().filter_map(of_layer).collect()
}

impl Method for PrefixTuningConfig {
    prompt_method!("PREFIX_TUNING");

    fn mistakes(&self) -> Vec<String> {
        prompt_encoder::mistakes(self.num_virtual_tokens, self.encoder_hidden_size)
    }

    fn refuses(&self, origin: Origin) -> Option<String> {
        // A file has the width of the keys, whether there is a network or not.
        let unused = origin == Origin::New
            && !self.prefix_projection
            && self.encoder_hidden_size.is_some()
            && self.encoder_hidden_size != self.sizes.token_dim;
        unused.then(|| {
            "encoder_hidden_size has no effect without prefix_projection: set prefix_projection to true, or leave it out".into()
        })
    }

    fn fit(&mut self, model: &dyn Parts) -> Result<()> {
        prompt_encoder::check_decoder(model)?;
        let features = key_features(model);
        let [first, rest @ ..] = &features[..] else {
            return Err(Error::Settings(format!(
                "prefix tuning needs blocks with a layer {KEYS}, or one of {} beside {}: this model has none, use prompt \
                 tuning",
                FUSED.join(", "),
                OUTPUTS.join(", ")
            )));
        };
        if rest.iter().any(|other| other != first) {
            return Err(Error::Settings(
                "prefix tuning needs blocks with equally many key features, as PEFT's file has it: use prompt tuning".into(),
            ));
        }
        self.encoder_hidden_size.get_or_insert(*first);
        // PEFT divides the features by it. Without it PEFT takes the number of query heads.
        self.sizes.num_attention_heads = self.sizes.num_attention_heads.or(model.key_heads());
        self.sizes.fit(*first, features.len())
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let (Some(width), Some(blocks)) = (self.sizes.token_dim, self.sizes.num_layers) else {
            return Err(Error::Settings(
                "token_dim and num_layers are those of the model".into(),
            ));
        };
        let (tokens, all) = (self.num_virtual_tokens, 2 * blocks * width);
        let zero = self.init_weights == Some(InitPrefix::Zero);
        if self.prefix_projection && !site.loaded {
            let widths = [width, self.encoder_hidden_size.unwrap_or(width), all];
            return Ok(PROJECTION.begin(tokens, &widths, Some(blocks), zero, draw));
        }
        let prefix = match zero || site.loaded {
            true => draw.zeros([tokens, all]),
            false => draw.normal([tokens, all], 1.0),
        };
        Ok(prompt_encoder::plain(prefix, Some(blocks)))
    }
}
