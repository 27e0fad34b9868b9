#![doc = include_str!("../README.md")]

mod adapter_config;
mod adapter_files;
mod adapter_hub;
mod attach;
mod common;
mod copies;
mod error;
mod freeze;
mod lycoris;
mod merge;
mod method;
mod methods;
mod model_card;
mod random;
mod rank_allocator;
mod remade;
mod reparameterization;
mod stored_weights;
mod switch;
mod targets;
mod torch_random;

pub use adapter_config::{read_config, to_json};
pub use adapter_files::{load_adapter, save_adapter};
pub use attach::attach;
pub use common::{Bias, Common, Pattern};
pub use error::{Error, Result};
pub use freeze::{set_trainable, trainable_parameters};
pub use merge::{merge_and_unload, unload};
pub use method::{Draw, Features, Method, New, Site};
pub use methods::*;
pub use rank_allocator::{RankAllocator, orthogonality};
pub use reparameterization::{LowRank, LowRankReparameterizer};
pub use switch::{
    active_adapters, adapter_config, adapter_names, delete, set_active, without_adapters,
};
pub use targets::TargetModules;
