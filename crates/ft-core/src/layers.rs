//! What models are made of, for models of this crate and of others.

pub(crate) mod attention;
pub(crate) mod blocks;
pub(crate) mod embedding;
pub(crate) mod gated_mlp;
pub(crate) mod head;
pub(crate) mod kv_cache;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod lora;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod self_attention;
pub(crate) mod windows;

pub use attention::{attend, merge_heads, split_heads};
pub use blocks::run_blocks;
pub use embedding::Embedding;
pub use gated_mlp::GatedMlp;
pub use head::{Head, Projection};
pub use kv_cache::KvCache;
pub use layer_norm::LayerNorm;
pub use linear::{Layout, Linear};
pub use lora::Lora;
pub use rms_norm::RmsNorm;
pub use rope::{Angles, Rope};
pub use self_attention::SelfAttention;
pub use windows::{Masks, Windows};
