//! Rewards of rows of tokens.

use burn::module::Module;
use ft_core::AutoSequenceClassifier;
use ft_data::{Tokenized, collate_padded};

use crate::reward_model::rewards;
use crate::{Error, Result};

/// The rewards of rows of tokens, in their order: the scores of a model with one label.
///
/// A row is a prompt with an answer, as the model was trained on; its last token is scored. Rows of similar lengths make
/// a batch of at most `batch_size`, so that there is little padding. There is no dropout and no graph.
///
/// # Errors
///
/// If the model does not have exactly one label, or a row has no tokens or more than the model allows.
///
/// # Panics
///
/// If `batch_size` is 0.
pub fn score_rows(
    model: &AutoSequenceClassifier,
    rows: &[impl AsRef<[u32]>],
    batch_size: usize,
) -> Result<Vec<f32>> {
    let model = model.valid();
    let device = model.devices().first().cloned().unwrap_or_default();
    let rows = rows.iter().map(|row| Tokenized {
        input_ids: row.as_ref().to_vec(),
        labels: vec![0; row.as_ref().len()],
    });
    let rows: Vec<Tokenized> = rows.collect();
    let mut found = vec![0.0; rows.len()];
    for places in by_length(&rows, batch_size)? {
        let batch: Vec<&Tokenized> = places.iter().map(|&place| &rows[place]).collect();
        // What the padding is does not matter: no token attends to it.
        let batch = collate_padded(&batch, 1, 0);
        let scores = rewards(&model, &batch, &device)?.into_data();
        for (&place, score) in places.iter().zip(scores.iter::<f32>()) {
            found[place] = score;
        }
    }
    Ok(found)
}

/// The numbers of the rows in batches of at most `batch_size`, the longest rows first.
///
/// # Errors
///
/// If a row has no tokens.
///
/// # Panics
///
/// If `batch_size` is 0.
pub(crate) fn by_length(rows: &[Tokenized], batch_size: usize) -> Result<Vec<Vec<usize>>> {
    if let Some(row) = rows.iter().position(|row| row.input_ids.is_empty()) {
        let row = row + 1;
        return Err(Error::RewardModel(format!(
            "row {row} has no tokens: there is nothing to score"
        )));
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(rows[row].len()));
    Ok(order.chunks(batch_size).map(<[usize]>::to_vec).collect())
}
