//! Masked tokens: the training step that adapts an encoder to the texts of a domain (Gururangan et al., 2020,
//! arXiv:2004.10964).

use ft_core::EncoderMaskedLm;
use ft_data::MaskedBatch;
use ft_train::{StepContext, StepOutput, StepResult};

/// The step of ft-train: the mean over hidden tokens of `−ln softmax(z)[token]`.
///
/// # Errors
///
/// None; the type is that of all steps. A batch without hidden tokens counts for nothing.
pub fn masked_step(
    model: &EncoderMaskedLm,
    batch: &MaskedBatch,
    context: &StepContext,
) -> StepResult {
    let loss = model.loss(&batch.texts.tokens(&context.device), &batch.labels);
    Ok(StepOutput::from(loss).with_tokens(batch.texts.token_count()))
}
