//! Models: bodies, heads, and one loader for all of them.

pub(crate) mod auto;
pub(crate) mod backbone;
pub(crate) mod bert;
pub(crate) mod causal_lm;
pub(crate) mod config;
pub(crate) mod decoder_layers;
pub(crate) mod gemma;
pub(crate) mod gpt2;
pub(crate) mod granite;
pub(crate) mod llama;
pub(crate) mod olmo2;
mod resize;
pub(crate) mod smollm3;
pub(crate) mod token_batch;

pub(crate) mod falcon;
pub(crate) mod gpt_neox;
pub(crate) mod phi;
pub(crate) mod phi3;
