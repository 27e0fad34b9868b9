//! Checkpoints and where they come from.

pub mod gguf;
pub(crate) mod hub;
mod mapped_file;
pub mod packed_folder;
pub(crate) mod pretrained;
pub mod safetensors_folder;
pub(crate) mod sizes;
pub(crate) mod stage;
pub(crate) mod weight_source;
