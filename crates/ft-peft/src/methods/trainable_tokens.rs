//! Trainable tokens: rows of the embedding for a few tokens train, the others stay frozen.

use ft_core::Part;
use serde::{Deserialize, Serialize};

use crate::adapter_config::json_settings;
use crate::method::{Draw, Method, NewAdapter, Site, method};
use crate::token_rows::{TokenRows, mistake_of};
use crate::{Common, Result};

/// Settings of trainable tokens.
///
/// Without `target_modules` these are rows of the embedding of tokens, where it has one of the names `embed_tokens`, `wte`,
/// `word_embeddings` and `embed_in`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainableTokensConfig {
    /// The tokens whose rows train.
    pub token_indices: Vec<usize>,
    /// Whether the rows begin as the embedding's; else they are drawn from a normal distribution.
    pub init_weights: bool,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for TrainableTokensConfig {
    fn default() -> Self {
        Self {
            token_indices: Vec::new(),
            init_weights: true,
            common: Common::default(),
        }
    }
}

json_settings!(TrainableTokensConfig);

/// `[tokens, width]`: whole rows.
pub(crate) const TOKENS_DELTA: &str = "trainable_tokens_delta";

impl Method for TrainableTokensConfig {
    method!("TRAINABLE_TOKENS");

    fn mistakes(&self) -> Vec<String> {
        let mistake = mistake_of(&self.token_indices);
        mistake
            .map(|mistake| format!("token_indices: {mistake}"))
            .into_iter()
            .collect()
    }

    fn keys(&self) -> &'static [&'static str] {
        &["target_modules"]
    }

    fn default_targets(&self) -> &'static [&'static [&'static str]] {
        &[
            &["embed_tokens"],
            &["wte"],
            &["word_embeddings"],
            &["embed_in"],
        ]
    }

    fn takes(&self, part: Part<'_>) -> bool {
        matches!(part, Part::Embedding(_))
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let (kind, mut rows) =
            TokenRows::on(site.path, site.part, &self.token_indices, TOKENS_DELTA)?;
        if !self.init_weights {
            let shape = [self.token_indices.len(), site.features().outputs];
            rows.set(draw.normal(shape, 1.0).into_data());
        }
        Ok(NewAdapter::new(kind, vec![rows]))
    }
}
