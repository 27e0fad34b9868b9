//! How texts become what an encoder reads: the longest input, and whether token types are part of it.

use ft_core::{Encoded, Tokenizer, Truncation};
use serde_json::Value;

use crate::{Result, TextTokens};

/// The longest input if neither files nor positions give a shorter one.
const LONGEST: usize = 512;

/// The longest input in tokens: `setting`, else the tokenizer's `model_max_length`, else 512, and at most what the positions
/// allow.
pub fn longest_input(setting: Option<usize>, tokenizer: &Tokenizer, positions: usize) -> usize {
    let named = tokenizer
        .setting("model_max_length")
        .and_then(Value::as_f64);
    // Tokenizers without a length name a huge one.
    let named = named.filter(|n| (1.0..1e9).contains(n)).map(|n| n as usize);
    let limit = setting.or(named).unwrap_or(positions.min(LONGEST));
    limit.clamp(1, positions.max(1))
}

/// Whether a model gets the types of tokens: if `model_input_names` of its tokenizer lists them. Without a list all classes of
/// transformers do so except the one for models of any kind.
pub fn reads_token_types(tokenizer: &Tokenizer) -> bool {
    match tokenizer
        .setting("model_input_names")
        .and_then(Value::as_array)
    {
        Some(names) => names.iter().any(|name| name == "token_type_ids"),
        None => {
            tokenizer.setting("tokenizer_class").and_then(Value::as_str)
                != Some("TokenizersBackend")
        }
    }
}

/// Texts to the input of one encoder.
#[derive(Clone, Debug)]
pub struct TextInput {
    tokenizer: Tokenizer,
    max_length: usize,
    token_types: bool,
}

impl TextInput {
    /// For a model of so many positions ([`Dims::max_position_embeddings`](ft_core::Dims)), whose inputs are cut at
    /// `max_length` tokens, or at the length of [`longest_input`].
    pub fn new(tokenizer: &Tokenizer, positions: usize, max_length: Option<usize>) -> Self {
        Self {
            max_length: longest_input(max_length, tokenizer, positions),
            token_types: reads_token_types(tokenizer),
            tokenizer: tokenizer.clone(),
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The longest input in tokens, special ones included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The id that fills up rows.
    pub fn padding(&self) -> u32 {
        self.tokenizer.pad_token_id().unwrap_or(0)
    }

    /// A text or a pair, cut at the longest input.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode_model_input`].
    pub fn encode(
        &self,
        text: &str,
        pair: Option<&str>,
        truncation: Truncation,
    ) -> Result<Encoded> {
        let length = Some(self.max_length);
        Ok((self.tokenizer).encode_model_input(text, pair, length, truncation)?)
    }

    /// What the model reads of an encoded text.
    pub fn tokens(&self, encoded: &Encoded) -> TextTokens {
        TextTokens {
            ids: encoded.ids.clone(),
            skipped: 0,
            type_ids: match self.token_types {
                true => encoded.type_ids.clone(),
                false => Vec::new(),
            },
        }
    }
}
