//! What the programs that measure perplexity have in common: the windows of a text, and their negative log-likelihood.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ft::burn::tensor::{Device, Int, Tensor, TensorData};
use ft::core::{CausalLm, TokenBatch, Tokenizer, causal_lm_loss};

/// Disjoint windows of so many tokens of a text file; the last, partial one is dropped.
pub(crate) fn windows(path: &Path, tokenizer: &Tokenizer, context: usize) -> Result<Vec<Vec<u32>>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let ids = tokenizer.encode(&text, false)?;
    let windows: Vec<Vec<u32>> = ids.chunks_exact(context).map(<[u32]>::to_vec).collect();
    ensure!(
        !windows.is_empty(),
        "{} has {} tokens, fewer than one window of {context}: choose a smaller --context",
        path.display(),
        ids.len(),
    );
    Ok(windows)
}

/// The sum of the negative log-likelihoods of all tokens of the windows but the first of each, and their number. `progress` gets
/// both after each batch, with how many windows are done.
pub(crate) fn nll(
    model: &impl CausalLm,
    windows: &[Vec<u32>],
    batch_size: usize,
    device: &Device,
    mut progress: impl FnMut(f64, usize, usize),
) -> (f64, usize) {
    let (mut nll, mut tokens, mut done) = (0.0, 0, 0);
    for batch in windows.chunks(batch_size) {
        let values: Vec<i64> = batch.iter().flatten().map(|&id| id.into()).collect();
        let shape = [batch.len(), batch[0].len()];
        let input_ids = Tensor::<2, Int>::from_data(TensorData::new(values.clone(), shape), device);
        let hidden = model.hidden_states(&TokenBatch::new(input_ids), None);
        let loss = causal_lm_loss(hidden, model.head(), &values);
        nll += loss.sum.into_scalar::<f64>();
        tokens += loss.count;
        done += batch.len();
        progress(nll, tokens, done);
    }
    (nll, tokens)
}
