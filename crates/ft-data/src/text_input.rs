//! How texts become what an encoder reads: the longest input, and whether token types are part of it.

use ft_core::{Encoded, Tokenizer, Truncation};
use serde_json::Value;

use crate::{Result, TextTokens};

/// The longest input in tokens: `setting`, else the tokenizer's `model_max_length`, and at most what the positions allow.
pub fn longest_input(setting: Option<usize>, tokenizer: &Tokenizer, positions: usize) -> usize {
    let named = tokenizer
        .setting("model_max_length")
        .and_then(Value::as_f64);
    // Tokenizers without a length name a huge one.
    let named = named.filter(|n| (1.0..1e9).contains(n)).map(|n| n as usize);
    let limit = setting.or(named).unwrap_or(positions);
    limit.clamp(1, positions.max(1))
}

/// Whether a model gets the types of tokens: if `model_input_names` of its tokenizer lists them. Without a list all classes of
/// transformers do so except the one for models of any kind.
///
/// A class `PreTrainedTokenizerFast` without a list is read as in transformers 4, where it has types; transformers 5 leaves them
/// out. [`with_input_names`] makes both the same.
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

/// The tokenizer with `model_input_names`, so that transformers gives a saved model the inputs that it was trained with, whatever
/// the class of the tokenizer.
#[must_use]
pub fn with_input_names(tokenizer: Tokenizer) -> Tokenizer {
    if tokenizer.setting("model_input_names").is_some() {
        return tokenizer;
    }
    let names: &[&str] = match reads_token_types(&tokenizer) {
        true => &["input_ids", "token_type_ids", "attention_mask"],
        false => &["input_ids", "attention_mask"],
    };
    tokenizer.with_setting("model_input_names", names)
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
            tokenizer: with_input_names(tokenizer.clone()),
        }
    }

    /// The tokenizer, with [`model_input_names`](with_input_names): it is to be saved beside the model.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokenizer(settings: Value) -> Tokenizer {
        let folder = tempfile::TempDir::new().expect("folder");
        let write = |name: &str, value: Value| {
            std::fs::write(folder.path().join(name), value.to_string()).expect("writes");
        };
        write(
            "tokenizer.json",
            json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
                "pre_tokenizer": null, "post_processor": null, "decoder": null,
                "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}}),
        );
        write("tokenizer_config.json", settings);
        Tokenizer::from_pretrained(folder.path()).expect("loads")
    }

    #[test]
    fn without_a_length_of_the_tokenizer_the_positions_decide() {
        let longest = |settings, setting| longest_input(setting, &tokenizer(settings), 8192);
        assert_eq!(longest(json!({"model_max_length": 1e30}), None), 8192);
        assert_eq!(longest(json!({"model_max_length": 300}), None), 300);
        assert_eq!(longest(json!({}), Some(20)), 20);
    }

    #[test]
    fn the_inputs_of_a_model_are_written_down() {
        let names = |settings| {
            let named = with_input_names(tokenizer(settings));
            let list = named.setting("model_input_names").cloned().expect("a list");
            assert_eq!(reads_token_types(&named), list.to_string().contains("type"));
            list.as_array().map(Vec::len)
        };
        assert_eq!(names(json!({})), Some(3));
        assert_eq!(
            names(json!({"tokenizer_class": "TokenizersBackend"})),
            Some(2)
        );
        assert_eq!(names(json!({"model_input_names": ["input_ids"]})), Some(1));
    }
}
