//! What models are made of, for models of this crate and of others.

pub(crate) mod alibi;
pub(crate) mod attention;
pub(crate) mod blocks;
pub(crate) mod embedding;
pub(crate) mod gated_mlp;
pub(crate) mod head;
pub(crate) mod kv_cache;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod lora;
pub(crate) mod mlp;
pub(crate) mod parts;
pub(crate) mod pass;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod rope_scaling;
pub(crate) mod self_attention;
pub(crate) mod windows;

pub use alibi::Alibi;
pub use attention::{attend, merge_heads, split_grouped_heads, split_heads};
pub use blocks::run_blocks;
pub use embedding::Embedding;
pub use gated_mlp::GatedMlp;
pub use head::{Head, Projection};
pub use kv_cache::KvCache;
pub use layer_norm::LayerNorm;
pub use linear::{Layout, Linear};
pub use lora::Lora;
pub use mlp::Mlp;
pub use parts::{Part, PartMut, Parts};
pub use pass::{Pass, Place};
pub use rms_norm::RmsNorm;
pub use rope::{Angles, Rope};
pub use rope_scaling::RopeScaling;
pub use self_attention::SelfAttention;
pub use windows::{Masks, Windows};
