//! The training batches of all programs of a comparison.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ft::core::Tokenizer;

#[path = "alpaca.rs"]
mod alpaca;

/// `count` blocks of `block` token ids: the rows of an Alpaca file as `instruction\ninput\noutput`, an
/// end-of-text token after each, joined and cut.
pub(crate) fn blocks(
    data: &Path,
    tokenizer: &Tokenizer,
    block: usize,
    count: usize,
) -> Result<Vec<Vec<i64>>> {
    let eos = tokenizer
        .eos_token_id()
        .context("the tokenizer names no end-of-text token")?;
    let mut ids = Vec::new();
    for parts in alpaca::rows(data)? {
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
