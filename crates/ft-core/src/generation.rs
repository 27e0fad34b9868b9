//! From a model to text.

pub(crate) mod generate;
pub(crate) mod generation_config;
pub mod sampling;
