//! Comparisons as preference data for DPO and similar methods.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::{Comparison, PairItem, Preference};
use crate::{Error, Result};

/// Rows for preference training, and the numbers of pairs without a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreferenceRows {
    /// `prompt`, `chosen`, `rejected`.
    pub rows: Vec<Value>,
    /// Pairs without a winner.
    pub ties: usize,
    /// Pairs without a verdict.
    pub missing: usize,
}

/// A row for every pair with a winner, with the fields that TRL, LLaMA-Factory and ft-data read. The values are texts, or
/// lists of messages if `conversational` is true.
///
/// # Errors
///
/// If the numbers of pairs and comparisons differ.
pub fn preference_rows(
    items: &[PairItem],
    comparisons: &[Comparison],
    conversational: bool,
) -> Result<PreferenceRows> {
    super::bias::same_length(items.len(), comparisons.len())?;
    let turn = |role: &str, text: &str| match conversational {
        true => json!([{"role": role, "content": text}]),
        false => json!(text),
    };
    let mut found = PreferenceRows::default();
    for (item, comparison) in items.iter().zip(comparisons) {
        let (chosen, rejected) = match comparison.verdict() {
            Some(Preference::A) => (&item.response_a, &item.response_b),
            Some(Preference::B) => (&item.response_b, &item.response_a),
            Some(Preference::Tie) => {
                found.ties += 1;
                continue;
            }
            None => {
                found.missing += 1;
                continue;
            }
        };
        found.rows.push(json!({
            "prompt": turn("user", &item.prompt),
            "chosen": turn("assistant", chosen),
            "rejected": turn("assistant", rejected),
        }));
    }
    Ok(found)
}

/// Writes the rows as JSON lines. The file is written whole or not at all.
///
/// # Errors
///
/// If the file cannot be written.
pub fn write_preferences(path: &Path, rows: &PreferenceRows) -> Result<()> {
    let failed = |source| Error::Write {
        path: path.to_path_buf(),
        source,
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    for row in &rows.rows {
        writeln!(file, "{row}").map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
