#![doc = include_str!("../README.md")]

mod awq;
mod bitsandbytes;
mod cholesky;
mod error;
mod gguf_file;
mod gptq;
mod grid;
mod hqq;
mod importance;
mod mix;
mod model_weights;
pub mod ranges;
mod rounded;

pub use awq::{awq_clip, awq_scales};
pub use bitsandbytes::{NestedAbsmax, join_bitsandbytes, split_bitsandbytes};
pub use error::{Error, Result};
pub use gguf_file::{GgufOptions, Written, WrittenTensor, write_gguf};
pub use gptq::{GptqConfig, gptq, output_error};
pub use grid::{Granularity, Grid, Levels, Scheme};
pub use hqq::{HqqConfig, hqq};
pub use importance::Importance;
pub use mix::{Mix, TensorFacts};
pub use model_weights::ModelWeights;
pub use rounded::{Rounded, relative_error, round_to_nearest};
