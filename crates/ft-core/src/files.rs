//! Checkpoints and where they come from.

pub(crate) mod hub;
pub(crate) mod pretrained;
pub mod safetensors_folder;
