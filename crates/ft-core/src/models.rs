//! Models: bodies, heads, and one loader for all of them.

pub(crate) mod auto;
pub(crate) mod auto_backbone;
pub(crate) mod backbone;
pub(crate) mod bert;
pub(crate) mod causal_lm;
pub(crate) mod config;
pub(crate) mod deberta;
mod decoder_layers;
pub(crate) mod distilbert;
pub(crate) mod encoder_task;
pub(crate) mod falcon;
pub(crate) mod gemma;
pub(crate) mod gpt2;
pub(crate) mod gpt_neox;
pub(crate) mod granite;
pub(crate) mod llama;
mod masked_head;
pub(crate) mod modernbert;
pub(crate) mod mpnet;
pub(crate) mod olmo2;
pub(crate) mod phi;
pub(crate) mod phi3;
mod resize;
mod scored_decoder;
pub(crate) mod sequence_classifier;
pub(crate) mod smollm3;
pub(crate) mod token_batch;
pub(crate) mod token_classifier;

pub(crate) use auto::is_buffer;
pub use auto::{AutoCausalLm, ModelConfig, model_types};
pub use auto_backbone::{AutoBackbone, BackboneConfig, encoder_types};
pub use backbone::{Backbone, Dims};
pub use bert::Bert;
pub use causal_lm::CausalLm;
pub use config::*;
pub use deberta::Deberta;
pub use distilbert::DistilBert;
pub use encoder_task::{
    EncoderMaskedLm, EncoderQuestionAnswering, EncoderSequenceClassifier, EncoderTokenClassifier,
};
pub use falcon::Falcon;
pub use gemma::Gemma;
pub use gpt_neox::GptNeox;
pub use gpt2::Gpt2;
pub use granite::Granite;
pub use llama::Llama;
pub use modernbert::ModernBert;
pub use mpnet::MpNet;
pub use olmo2::Olmo2;
pub use phi::Phi;
pub use phi3::Phi3;
pub use sequence_classifier::AutoSequenceClassifier;
pub use smollm3::SmolLm3;
pub use token_batch::TokenBatch;
pub use token_classifier::AutoTokenClassifier;
