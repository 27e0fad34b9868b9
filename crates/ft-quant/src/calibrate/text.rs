//! The calibration text: windows of tokens.

use std::path::Path;

use ft_core::Tokenizer;
use serde_json::Value;

use crate::{Error, Result};

/// The first `count` windows of `length` tokens of a text file, or as many as there are.
///
/// In a `.jsonl` file the text is in the field `text` of each line, and the tokens of a line end with the end of text. Other
/// files are one text. If the tokenizer puts a token before texts, such as Gemma's `<bos>`, every window begins with it.
///
/// # Errors
///
/// If `length` or `count` is 0, the file cannot be read, a line has no text, or there is less than one window.
pub fn calibration_windows(
    path: &Path,
    tokenizer: &Tokenizer,
    length: usize,
    count: usize,
) -> Result<Vec<Vec<u32>>> {
    let wrong = |reason: String| Error::Settings(format!("{}: {reason}", path.display()));
    let first = token_before_texts(tokenizer);
    let own = length.saturating_sub(usize::from(first.is_some()));
    if own == 0 || count == 0 {
        return Err(Error::Settings(format!(
            "{count} calibration windows of {length} tokens have no text: 128 windows of 512 tokens are usual"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let wanted = own.saturating_mul(count);
    let mut ids = Vec::new();
    if path
        .extension()
        .is_some_and(|extension| extension == "jsonl")
    {
        let lines = text.lines().enumerate();
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            if ids.len() >= wanted {
                break;
            }
            let row: Value = serde_json::from_str(line)
                .map_err(|error| wrong(format!("line {} is not JSON: {error}", number + 1)))?;
            let text = (row["text"].as_str())
                .ok_or_else(|| wrong(format!("line {} has no field text", number + 1)))?;
            ids.extend(tokenizer.encode(text, false)?);
            ids.extend(tokenizer.eos_token_id());
        }
    } else {
        ids = tokenizer.encode(&text, false)?;
    }
    ids.truncate(wanted);
    let windows = ids.chunks_exact(own);
    let windows: Vec<Vec<u32>> = windows
        .map(|ids| first.into_iter().chain(ids.iter().copied()).collect())
        .collect();
    match windows.is_empty() {
        true => Err(wrong(format!(
            "{} tokens, less than one window of {length}: give a longer text, or shorter windows",
            ids.len()
        ))),
        false => Ok(windows),
    }
}

/// The token that the tokenizer puts before a text; none if it puts none.
pub(crate) fn token_before_texts(tokenizer: &Tokenizer) -> Option<u32> {
    let ids = tokenizer.encode("a", true).ok()?;
    let bos = tokenizer.bos_token_id()?;
    (ids.first() == Some(&bos)).then_some(bos)
}
