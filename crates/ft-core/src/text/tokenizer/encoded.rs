//! One text or a pair of texts as a model reads it: cut to a length, with the special tokens around it.
//!
//! Texts are cut before special tokens are added, so that these are always there, as transformers does. They are cut at their end,
//! or at their beginning if `truncation_side` of the tokenizer is `left`.

use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::tokenizer::{Decoder, Encoding, Model, OffsetType, PostProcessor, PreTokenizer};
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
    /// at the end of the texts, or at their beginning if that is the tokenizer's `truncation_side`.
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
        let mut first = self.bare(text, 0)?;
        let mut second = pair.map(|pair| self.bare(pair, 1)).transpose()?;
        if let Some(max_length) = max_length {
            let room = self.room(max_length, pair.is_some())?;
            let side = self.truncation_side();
            (first, second) = cut(first, second, room, max_length, truncation, (side, 0))?;
            first.set_overflowing(Vec::new());
            if let Some(second) = &mut second {
                second.set_overflowing(Vec::new());
            }
        }
        let encoding = self.inner.post_process(first, second, true).map_err(fail)?;
        Ok(Encoded::from(&encoding))
    }

    /// A text in windows of at most `max_length` tokens, special ones included, that go on where the window before ended less
    /// `overlap` tokens. With a `pair` the windows are those of the pair, and each begins with the whole text: a question and
    /// the parts of a document. Nothing is lost.
    ///
    /// # Errors
    ///
    /// If the tokenizer refuses a text, `max_length` leaves no room, or the overlap is not smaller than a window.
    pub fn encode_windows(
        &self,
        text: &str,
        pair: Option<&str>,
        max_length: usize,
        overlap: usize,
    ) -> Result<Vec<Encoded>> {
        let first = self.bare(text, 0)?;
        let second = pair.map(|pair| self.bare(pair, 1)).transpose()?;
        let room = self.room(max_length, pair.is_some())?;
        let (truncation, whole) = match &second {
            None => (Truncation::OnlyFirst, first.len()),
            Some(second) => (Truncation::OnlySecond, first.len() + second.len()),
        };
        let window = match &second {
            None => room,
            Some(_) => room.saturating_sub(first.len()),
        };
        if whole > room && overlap >= window {
            return Err(Error::Tokenizer(format!(
                "windows of {window} tokens cannot overlap by {overlap}: allow more than {max_length} tokens, or less overlap"
            )));
        }
        let windows = (TruncationDirection::Right, overlap);
        let (first, second) = cut(first, second, room, max_length, truncation, windows)?;
        let encoding = self.inner.post_process(first, second, true).map_err(fail)?;
        let rest = encoding.get_overflowing().iter().map(Encoded::from);
        Ok(std::iter::once(Encoded::from(&encoding))
            .chain(rest)
            .collect())
    }

    /// Tokens as text, joined by the tokenizer's decoder.
    ///
    /// # Errors
    ///
    /// If the decoder refuses them.
    pub fn tokens_to_text(&self, tokens: Vec<String>) -> Result<String> {
        match self.inner.get_decoder() {
            Some(decoder) => decoder.decode(tokens).map_err(fail),
            None => Ok(tokens.join(" ")),
        }
    }

    /// What tokens within a word begin with (`##`), for tokenizers that mark these and not the beginnings of words.
    pub fn continuing_subword_prefix(&self) -> Option<&str> {
        let prefix = match self.inner.get_model() {
            ModelWrapper::WordPiece(model) => Some(&model.continuing_subword_prefix),
            ModelWrapper::BPE(model) => model.continuing_subword_prefix.as_ref(),
            _ => None,
        };
        prefix
            .map(String::as_str)
            .filter(|prefix| !prefix.is_empty())
    }

    /// The tokens of a text before post-processing, which must be applied once only: it moves offsets, and it numbers the
    /// texts.
    fn bare(&self, text: &str, type_id: u32) -> Result<Encoding> {
        let inner = &self.inner;
        let mut text =
            (inner.get_added_vocabulary()).extract_and_normalize(inner.get_normalizer(), text);
        if let Some(pre_tokenizer) = inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut text).map_err(fail)?;
        }
        (inner.get_model())
            .tokenize_in_pretokenized(&mut text, None)
            .map_err(fail)?;
        text.into_encoding(None, type_id, OffsetType::Byte)
            .map_err(fail)
    }

    /// Which end of a text is cut off: the setting of `tokenizer_config.json`, else that of `tokenizer.json`.
    fn truncation_side(&self) -> TruncationDirection {
        match self.setting("truncation_side").and_then(Value::as_str) {
            Some("left") => TruncationDirection::Left,
            Some(_) => TruncationDirection::Right,
            None => {
                (self.truncation.as_ref()).map_or(TruncationDirection::Right, |own| own.direction)
            }
        }
    }

    /// How many tokens of `max_length` are left for texts.
    fn room(&self, max_length: usize, pair: bool) -> Result<usize> {
        let added =
            (self.inner.get_post_processor()).map_or(0, |processor| processor.added_tokens(pair));
        max_length.checked_sub(added).ok_or_else(|| {
            Error::Tokenizer(format!(
                "a length of {max_length} leaves no room: {added} special tokens are added to a text"
            ))
        })
    }
}

fn fail(error: tokenizers::Error) -> Error {
    Error::Tokenizer(error.to_string())
}

/// Cuts texts to `room` tokens together, at a side; what is cut off is kept as overflow, in windows with tokens in common.
fn cut(
    first: Encoding,
    second: Option<Encoding>,
    room: usize,
    max_length: usize,
    truncation: Truncation,
    (direction, stride): (TruncationDirection, usize),
) -> Result<(Encoding, Option<Encoding>)> {
    let params = TruncationParams {
        direction,
        max_length: room,
        strategy: match truncation {
            Truncation::LongestFirst => TruncationStrategy::LongestFirst,
            Truncation::OnlyFirst => TruncationStrategy::OnlyFirst,
            Truncation::OnlySecond => TruncationStrategy::OnlySecond,
        },
        stride,
    };
    truncate_encodings(first, second, &params).map_err(|error| {
        Error::Tokenizer(format!(
            "the text cannot be cut to {max_length} tokens: {error}; allow more tokens, or cut the other text too"
        ))
    })
}
