//! The calibration text: windows of tokens.

use std::path::Path;

use ft_core::Tokenizer;
use serde_json::Value;

use crate::{Error, Result};

/// The first `count` windows of `length` tokens of a text file, or as many as there are.
///
/// In a `.jsonl` file the text is in the field `text` of each line, and the tokens of a line end with the end of text. Other
/// files are one text.
///
/// # Errors
///
/// If the file cannot be read, a line has no text, or there is less than one window.
pub fn calibration_windows(
    path: &Path,
    tokenizer: &Tokenizer,
    length: usize,
    count: usize,
) -> Result<Vec<Vec<u32>>> {
    let wrong = |reason: String| Error::Settings(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let length = length.max(1);
    let wanted = length.saturating_mul(count.max(1));
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
    let windows: Vec<Vec<u32>> = ids.chunks_exact(length).map(<[u32]>::to_vec).collect();
    match windows.is_empty() {
        true => Err(wrong(format!(
            "{} tokens, less than one window of {length}: give a longer text, or shorter windows",
            ids.len()
        ))),
        false => Ok(windows),
    }
}
