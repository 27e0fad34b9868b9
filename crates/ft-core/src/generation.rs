//! From a model to text.

pub(crate) mod generate;
pub(crate) mod generation_config;
mod row_text;
pub mod sampling;
