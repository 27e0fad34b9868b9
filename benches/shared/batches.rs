//! The training batches of all programs of a comparison.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ft::core::Tokenizer;
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    instruction: String,
    #[serde(default)]
    input: String,
    output: String,
}

/// `count` blocks of `block` token ids: the rows of an Alpaca file as `instruction\ninput\noutput`, an
/// end-of-text token after each, joined and cut.
pub(crate) fn blocks(
    data: &Path,
    tokenizer: &Tokenizer,
    block: usize,
    count: usize,
) -> Result<Vec<Vec<i64>>> {
    let rows: Vec<Row> = read_json(data)?;
    let eos = tokenizer
        .eos_token_id()
        .context("the tokenizer names no end-of-text token")?;
    let mut ids = Vec::new();
    for row in rows {
        let parts = [row.instruction, row.input, row.output];
        let parts: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        ids.extend(tokenizer.encode(&parts.join("\n"), false)?);
        ids.push(eos);
        if ids.len() >= count * block {
            break;
        }
    }
    ensure!(
        ids.len() >= count * block,
        "{} has {} tokens, too few for {} blocks of {block}",
        data.display(),
        ids.len(),
        count
    );
    Ok(ids
        .chunks_exact(block)
        .take(count)
        .map(|block| block.iter().map(|&id| i64::from(id)).collect())
        .collect())
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not as expected", path.display()))
}
