//! One text or a pair of texts as a model reads it: cut to a length, with the special tokens around it.
//!
//! Texts are cut before special tokens are added, so that these are always there, as transformers does.

use tokenizers::tokenizer::{Encoding, PostProcessor};
use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};

use super::Tokenizer;
use crate::{Error, Result};

/// Which text of a pair is cut if both together are too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Truncation {
    /// The longer one; both to the same length if that is not enough.
    #[default]
    LongestFirst,
    /// The first one.
    OnlyFirst,
    /// The second one.
    OnlySecond,
}

/// The tokens of a text, or of a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, special ones included.
    pub ids: Vec<u32>,
    /// For each token 0, or 1 where the tokenizer tells the second text of a pair from the first.
    pub type_ids: Vec<u32>,
    /// For each token the bytes of its text that it covers; empty for tokens that were added around the text.
    pub offsets: Vec<(usize, usize)>,
    /// For each token the text it comes from, 0 or 1; none for tokens that were added.
    pub sequence: Vec<Option<usize>>,
    /// For each token the word that it is part of, counted in its text as the tokenizer splits it; none for tokens that
    /// were added.
    pub words: Vec<Option<u32>>,
}

impl Encoded {
    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

impl From<&Encoding> for Encoded {
    fn from(encoding: &Encoding) -> Self {
        let special = encoding.get_special_tokens_mask();
        let sequence = (0..encoding.len())
            .map(|token| {
                let own = encoding.token_to_sequence(token);
                own.filter(|_| special[token] == 0)
            })
            .collect();
        Self {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
            sequence,
            words: encoding.get_word_ids().to_vec(),
        }
    }
}

impl Tokenizer {
    /// The tokens of `text`, or of `text` and `pair`, with the special tokens around them: at most `max_length` in all, cut
    /// at the end of the texts.
    ///
    /// # Errors
    ///
    /// If the tokenizer refuses a text, or `max_length` leaves no room for special tokens or for the text that is not cut.
    pub fn encode_model_input(
        &self,
        text: &str,
        pair: Option<&str>,
        max_length: Option<usize>,
        truncation: Truncation,
    ) -> Result<Encoded> {
        let fail = |error: tokenizers::Error| Error::Tokenizer(error.to_string());
        let encode = |text: &str| self.inner.encode(text, false).map_err(fail);
        let mut first = encode(text)?;
        let mut second = pair.map(encode).transpose()?;
        if let Some(max_length) = max_length {
            let added = (self.inner.get_post_processor())
                .map_or(0, |processor| processor.added_tokens(pair.is_some()));
            let room = max_length.checked_sub(added).ok_or_else(|| {
                Error::Tokenizer(format!(
                    "a length of {max_length} leaves no room: {added} special tokens are added to a text"
                ))
            })?;
            let params = TruncationParams {
                direction: TruncationDirection::Right,
                max_length: room,
                strategy: match truncation {
                    Truncation::LongestFirst => TruncationStrategy::LongestFirst,
                    Truncation::OnlyFirst => TruncationStrategy::OnlyFirst,
                    Truncation::OnlySecond => TruncationStrategy::OnlySecond,
                },
                stride: 0,
            };
            (first, second) = truncate_encodings(first, second, &params).map_err(|error| {
                Error::Tokenizer(format!(
                    "the text cannot be cut to {max_length} tokens: {error}; allow more tokens, or cut the other text too"
                ))
            })?;
            first.set_overflowing(Vec::new());
            if let Some(second) = &mut second {
                second.set_overflowing(Vec::new());
            }
        }
        let encoding = self.inner.post_process(first, second, true).map_err(fail)?;
        Ok(Encoded::from(&encoding))
    }
}
