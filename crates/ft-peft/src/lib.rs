#![doc = include_str!("../README.md")]

mod adapter_config;
mod adapter_files;
mod attach;
mod error;
mod freeze;
mod lora_config;
mod merge;
mod reparameterization;
mod stored_weights;
mod switch;
mod targets;

pub use adapter_files::{load_adapter, save_adapter};
pub use attach::attach;
pub use error::{Error, Result};
pub use freeze::{set_trainable, trainable_parameters};
pub use lora_config::{InitLoraWeights, LoraConfig};
pub use merge::{merge_and_unload, unload};
pub use reparameterization::{LowRank, LowRankReparameterizer};
pub use switch::{active_adapters, adapter_names, delete, set_active, without_adapters};
pub use targets::TargetModules;
