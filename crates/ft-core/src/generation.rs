//! From a model to text.

pub(crate) mod decoder;
pub(crate) mod generate;
pub(crate) mod generation_config;
pub(crate) mod rollout;
mod row;
mod row_text;
pub mod sampling;
pub(crate) mod selection;
