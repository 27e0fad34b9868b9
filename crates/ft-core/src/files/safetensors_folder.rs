//! Checkpoints in safetensors files: one file, or shards with an index.
//!
//! Reading maps the files into memory and checks names and shapes before any number is read, so a
//! checkpoint that does not fit costs nothing and is described whole. Writing goes to a temporary
//! file in the same folder, is synced, then renamed: a kill at any moment leaves either the old file
//! or the new one.

mod atomic_write;
mod finite;
mod module_weights;
mod tensor_file;
mod weight_files;

pub(super) use atomic_write::replace;
pub use atomic_write::{write_file, write_json};
pub use finite::check_finite;
pub use module_weights::{Weights, load_module, module_tensors, write_module, write_shards};
pub use tensor_file::{read_metadata, read_tensors, write_tensors, write_tensors_and_json};
pub use weight_files::WeightFiles;
pub(crate) use weight_files::read_json;

/// The name of an unsharded checkpoint.
pub const WEIGHTS: &str = "model.safetensors";
/// The name of the index of a sharded checkpoint.
pub const INDEX: &str = "model.safetensors.index.json";
