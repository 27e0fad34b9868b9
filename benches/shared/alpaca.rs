//! The rows of an Alpaca file.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    instruction: String,
    #[serde(default)]
    input: String,
    output: String,
}

/// `instruction`, `input` and `output` of all rows.
pub(crate) fn rows(path: &Path) -> Result<Vec<[String; 3]>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let rows: Vec<Row> =
        serde_json::from_str(&text).with_context(|| format!("{shown} is not as expected"))?;
    let texts = rows
        .into_iter()
        .map(|row| [row.instruction, row.input, row.output]);
    Ok(texts.collect())
}
