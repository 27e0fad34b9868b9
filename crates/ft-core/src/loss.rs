//! Losses and log-probabilities from hidden states and head, without the logits.

mod chunked_head;
pub(crate) mod distillation;
pub(crate) mod linear_cross_entropy;
pub(crate) mod score_tokens;
pub(crate) mod token_logps;
