#![doc = include_str!("../README.md")]

mod adapter_config;
mod adapter_files;
mod attach;
mod common;
mod copies;
mod error;
mod freeze;
mod merge;
mod method;
mod methods;
mod model_card;
mod prompt_encoder;
mod random;
mod reparameterization;
mod stored_weights;
mod switch;
mod targets;

pub use adapter_config::{read_config, to_json};
pub use adapter_files::{load_adapter, save_adapter};
pub use attach::attach;
pub use common::{Bias, Common, Pattern};
pub use error::{Error, Result};
pub use freeze::{set_trainable, trainable_parameters};
pub use merge::{merge_and_unload, unload};
pub use method::{Draw, Features, Method, New, Site};
pub use methods::*;
pub use prompt_encoder::PromptSizes;
pub use reparameterization::{LowRank, LowRankReparameterizer};
pub use switch::{
    active_adapters, adapter_config, adapter_names, delete, set_active, without_adapters,
};
pub use targets::TargetModules;
