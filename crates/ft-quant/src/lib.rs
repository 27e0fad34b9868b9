#![doc = include_str!("../README.md")]

mod error;
mod gguf_file;
mod importance;
mod mix;
mod model_weights;

pub use error::{Error, Result};
pub use gguf_file::{GgufOptions, Written, WrittenTensor, write_gguf};
pub use importance::Importance;
pub use mix::{Mix, TensorFacts};
pub use model_weights::ModelWeights;
