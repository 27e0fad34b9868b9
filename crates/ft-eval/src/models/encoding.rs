//! Texts to tokens, cut where lm-evaluation-harness cuts them.

use ft_core::Tokenizer;

use super::of_core;
use crate::text::python_characters::is_space;
use crate::{Error, Result};

/// The token before a text without a context: the begin-of-text token, or else the end-of-text token.
pub(super) fn prefix_token(tokenizer: &Tokenizer) -> Result<u32> {
    let ids = [tokenizer.bos_token_id(), tokenizer.eos_token_id()];
    ids.into_iter().flatten().next().ok_or_else(|| {
        Error::Model(
            "the tokenizer has neither bos_token nor eos_token, and a text without a context needs one \
             to begin with: name one in tokenizer_config.json"
                .to_string(),
        )
    })
}

/// The tokens of a text with the special tokens that the model expects, unless the text begins with the prefix
/// token, as rendered chat templates do.
pub(super) fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let prefix = prefix_token(tokenizer)?;
    let prefix = tokenizer.decode(&[prefix], false).map_err(of_core)?;
    let add_special = !text.starts_with(&prefix);
    tokenizer.encode(text, add_special).map_err(of_core)
}

/// The tokens of context and continuation. Both are tokenised as one text, which is cut where the context's own tokens
/// end. Space at the end of the context belongs to the continuation.
///
/// # Errors
///
/// If the continuation has no token of its own.
pub(super) fn encode_pair(
    tokenizer: &Tokenizer,
    context: &str,
    continuation: &str,
) -> Result<(Vec<u32>, Vec<u32>)> {
    let empty = || {
        Error::Model(format!(
            "the continuation {continuation:?} after {:?} adds no token: an answer must not be empty, and \
             target_delimiter has to separate it from its context",
            tail(context)
        ))
    };
    let stripped = context.trim_end_matches(is_space);
    if stripped.is_empty() {
        let prefix = prefix_token(tokenizer)?;
        let text = format!("{context}{continuation}");
        let mut ids = tokenizer.encode(&text, false).map_err(of_core)?;
        // A continuation that begins with the prefix token is scored from its second token.
        if ids.first() == Some(&prefix) {
            ids.remove(0);
        }
        return if ids.is_empty() {
            Err(empty())
        } else {
            Ok((vec![prefix], ids))
        };
    }
    let mut whole = encode(tokenizer, &format!("{context}{continuation}"))?;
    let context = encode(tokenizer, stripped)?;
    if whole.len() <= context.len() {
        return Err(empty());
    }
    let continuation = whole.split_off(context.len());
    if context.is_empty() {
        // A tokenizer may drop characters, all of them here.
        return Ok((vec![prefix_token(tokenizer)?], continuation));
    }
    Ok((context, continuation))
}

/// The end of a text, for messages.
fn tail(text: &str) -> &str {
    let start = text.char_indices().rev().nth(39).map_or(0, |(at, _)| at);
    &text[start..]
}
