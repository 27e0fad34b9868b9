//! Prompt tuning: The Power of Scale for Parameter-Efficient Prompt Tuning (Lester et al., 2021, arXiv:2104.08691),
//! section 2: trained embeddings before those of the tokens.

use burn::tensor::{DType, Int, Tensor};
use ft_core::layers::Embedding;
use ft_core::{Parts, Tokenizer};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::adapter_config::json_settings;
use crate::method::{Draw, Method, NewAdapter, Origin, Site};
use crate::prompt_encoder::{self, PromptSizes, prompt_method};
use crate::{Common, Error, Result};

/// How the virtual tokens of [`PromptTuningConfig`] begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PromptTuningInit {
    /// Normal with standard deviation 1.
    #[default]
    Random,
    /// The embeddings of tokens of the vocabulary, drawn at random.
    SampleVocab,
    /// The embeddings of a text: see [`PromptTuningConfig::from_text`].
    Text,
}

/// Settings of prompt tuning (Lester et al., 2021, arXiv:2104.08691).
///
/// The virtual tokens take positions, so that the longest sequence is shorter. Losses, evaluation and generation work as
/// without them. Learning rates are much higher than those of other methods: 0.03 and above.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptTuningConfig {
    /// How many virtual tokens.
    pub num_virtual_tokens: usize,
    /// How they begin.
    pub prompt_tuning_init: PromptTuningInit,
    /// The text they begin as.
    pub prompt_tuning_init_text: Option<String>,
    /// Where PEFT finds the tokenizer of that text.
    pub tokenizer_name_or_path: Option<String>,
    /// Sizes of the model.
    #[serde(flatten)]
    pub sizes: PromptSizes,
    /// The tokens of the text, which are not part of the file.
    #[serde(skip)]
    pub init_token_ids: Vec<u32>,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for PromptTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: 20,
            prompt_tuning_init: PromptTuningInit::Random,
            prompt_tuning_init_text: None,
            tokenizer_name_or_path: None,
            sizes: PromptSizes::default(),
            init_token_ids: Vec::new(),
            common: Common::default(),
        }
    }
}

json_settings!(PromptTuningConfig);

impl PromptTuningConfig {
    /// Virtual tokens that begin as the embeddings of a text, which is repeated or cut to their number. PEFT finds the
    /// tokenizer by `tokenizer_name_or_path`.
    ///
    /// # Errors
    ///
    /// If the text has no tokens.
    pub fn from_text(
        num_virtual_tokens: usize,
        text: &str,
        tokenizer: &Tokenizer,
        tokenizer_name_or_path: &str,
    ) -> Result<Self> {
        let init_token_ids = tokenizer.encode(text, true)?;
        if init_token_ids.is_empty() {
            return Err(Error::Settings(
                "the text that virtual tokens begin as has no tokens".into(),
            ));
        }
        Ok(Self {
            num_virtual_tokens,
            prompt_tuning_init: PromptTuningInit::Text,
            prompt_tuning_init_text: Some(text.to_string()),
            tokenizer_name_or_path: Some(tokenizer_name_or_path.to_string()),
            init_token_ids,
            ..Self::default()
        })
    }

    /// The tokens whose embeddings the virtual tokens begin as; none for random numbers.
    fn first_tokens(&self, table: &Embedding, draw: &mut Draw<'_>) -> Result<Option<Vec<i64>>> {
        let (count, rows) = (self.num_virtual_tokens, table.rows());
        let ids: Vec<i64> = match self.prompt_tuning_init {
            PromptTuningInit::Random => return Ok(None),
            PromptTuningInit::SampleVocab => (0..count)
                .map(|_| draw.rng.random_range(0..rows) as i64)
                .collect(),
            PromptTuningInit::Text => {
                let ids = self.init_token_ids.iter().cycle().take(count);
                ids.map(|id| i64::from(*id)).collect()
            }
        };
        if ids.is_empty() {
            return Err(Error::Settings(
                "prompt_tuning_init is TEXT, but the settings have no tokens of the text: make them with \
                 PromptTuningConfig::from_text"
                    .into(),
            ));
        }
        match ids.iter().find(|id| **id >= rows as i64) {
            Some(id) => Err(Error::Settings(format!(
                "prompt_tuning_init_text: token {id} is not in the model's vocabulary of {rows}: is the tokenizer that of \
                 another model?"
            ))),
            None => Ok(Some(ids)),
        }
    }
}

impl Method for PromptTuningConfig {
    prompt_method!("PROMPT_TUNING", "tokenizer_kwargs");

    fn mistakes(&self) -> Vec<String> {
        prompt_encoder::mistakes(self.num_virtual_tokens, None)
    }

    fn refuses(&self, origin: Origin) -> Option<String> {
        let unused = origin == Origin::New
            && self.prompt_tuning_init != PromptTuningInit::Text
            && self.prompt_tuning_init_text.is_some();
        unused.then(|| {
            "prompt_tuning_init_text has no effect unless prompt_tuning_init is TEXT: set it, or leave the text out".into()
        })
    }

    fn fit(&mut self, model: &dyn Parts) -> Result<()> {
        let (width, blocks) = prompt_encoder::embedding_and_blocks(model)?;
        self.sizes.fit(width, blocks)
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let table = site.embedding()?;
        let shape = [self.num_virtual_tokens, site.features().outputs];
        let embeddings = match site.loaded {
            true => draw.zeros(shape),
            false => match self.first_tokens(table, draw)? {
                None => draw.normal(shape, 1.0),
                Some(ids) => {
                    let ids = Tensor::<1, Int>::from_data(ids.as_slice(), &draw.device);
                    let rows = match table.weight.packed() {
                        // A few rows of blocks, unless an adapter has the table.
                        Some(packed) if table.adapters.is_empty() => {
                            packed.rows(ids.unsqueeze()).squeeze_dim(0)
                        }
                        _ => table.table().detach().select(0, ids),
                    };
                    let rows = rows.detach().cast(DType::F32);
                    rows * table.scale
                }
            },
        };
        Ok(prompt_encoder::plain(embeddings, None))
    }
}
