#![doc = include_str!("../README.md")]

mod awq;
mod cholesky;
mod error;
mod gguf_file;
mod gptq;
mod grid;
mod hqq;
mod importance;
mod mix;
mod model_weights;
mod modelfile;
mod packed_folder;
pub mod ranges;
mod rounded;

pub use awq::{awq_clip, awq_scales};
pub use error::{Error, Result};
pub use ft_core::packed_folder::{
    NestedAbsmax, PackedLayout, Rounded, join_bitsandbytes, split_bitsandbytes,
};
pub use gguf_file::{GgufOptions, Written, WrittenTensor, write_gguf};
pub use gptq::{GptqConfig, gptq, output_error};
pub use grid::{Granularity, Grid, Levels, Scheme};
pub use hqq::{HqqConfig, hqq};
pub use importance::Importance;
pub use mix::{Mix, TensorFacts};
pub use model_weights::ModelWeights;
pub use modelfile::write_modelfile;
pub use packed_folder::{FolderOptions, write_packed};
pub use rounded::{relative_error, round_to_nearest};
