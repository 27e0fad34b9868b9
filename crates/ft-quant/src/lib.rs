#![doc = include_str!("../README.md")]

mod allocate;
mod awq;
mod calibrate;
mod cholesky;
mod error;
mod fit;
mod fold;
mod gguf_file;
mod gptq;
mod grid;
mod hqq;
mod importance;
mod mix;
mod model;
mod model_weights;
mod modelfile;
mod moments;
mod pack;
mod packed_folder;
mod qat;
pub mod ranges;
mod rounded;
mod sensitivity;
mod smooth;
mod target;

pub use allocate::{Choice, allocate};
pub use awq::{awq_clip, awq_scales};
pub use calibrate::calibration_windows;
pub use error::{Error, Result};
pub use fit::{Budget, Fit, fit_mix};
pub use ft_core::packed_folder::{
    NestedAbsmax, PackedLayout, Rounded, join_bitsandbytes, split_bitsandbytes,
};
pub use gguf_file::{GgufOptions, Written, WrittenTensor, write_gguf};
pub use gptq::{GptqConfig, gptq, output_error};
pub use grid::{Granularity, Grid, Levels, Scheme};
pub use hqq::{HqqConfig, hqq};
pub use importance::Importance;
pub use mix::{Mix, TensorFacts};
pub use model::{Algorithm, QuantizeConfig, QuantizedLayer, QuantizedModel, quantize_model};
pub use model_weights::ModelWeights;
pub use modelfile::write_modelfile;
pub use pack::{PackedLayer, pack_model};
pub use packed_folder::{FolderOptions, write_packed};
pub use qat::{FakeQuantizer, attach_fake_quantizers, fake_quantize, round_fake_quantized};
pub use rounded::{relative_error, round_to_nearest};
pub use sensitivity::Sensitivity;
pub use smooth::smooth_scales;
pub use target::Target;
