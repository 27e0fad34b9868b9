//! Models: bodies, heads, and one loader for all of them.

pub(crate) mod auto;
pub(crate) mod backbone;
pub(crate) mod bert;
pub(crate) mod causal_lm;
pub(crate) mod config;
pub(crate) mod gpt2;
pub(crate) mod llama;
mod resize;
pub(crate) mod token_batch;
