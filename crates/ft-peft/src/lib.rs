#![doc = include_str!("../README.md")]

mod adapter_config;
mod adapter_files;
mod added;
mod attach;
mod beside;
mod by_name;
mod combine;
mod common;
mod convert;
mod copies;
mod error;
mod freeze;
mod hot_swap;
mod linalg;
mod lycoris;
mod merge;
mod method;
mod methods;
mod model_card;
mod random;
mod rank_allocator;
mod remade;
mod reparameterization;
mod rounding;
mod scale;
mod stored_weights;
mod switch;
mod targets;
mod token_rows;
mod torch_random;
mod unmerge;
mod vocabulary;

pub use adapter_config::{read_config, read_settings, to_json};
pub use adapter_files::{load_adapter, save_adapter};
pub use attach::attach;
pub use by_name::method;
pub use combine::{Combination, CombinationType, MajoritySign, combine};
pub use common::{Bias, Common, Pattern};
pub use convert::{Conversion, LayerConversion, convert_to_lora};
pub use error::{Error, Result};
pub use freeze::{set_trainable, trainable_parameters};
pub use ft_core::layers::with_rows;
pub use hot_swap::hot_swap;
pub use merge::{merge_and_unload, unload};
pub use method::{Draw, Features, Method, New, Site};
pub use methods::*;
pub use rank_allocator::{RankAllocator, orthogonality};
pub use reparameterization::{LowRank, LowRankReparameterizer};
pub use rounding::{LayerRounding, MergeReport, merge_report};
pub use scale::scale_adapter;
pub use switch::{
    active_adapters, adapter_config, adapter_names, delete, set_active, without_adapters,
};
pub use targets::TargetModules;
pub use token_rows::TokenIndices;
pub use unmerge::{merge_adapters, unmerge_adapters};
