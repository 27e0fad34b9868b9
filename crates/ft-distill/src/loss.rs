//! Losses of distillation as functions.
//!
//! | what is compared | functions |
//! |---|---|
//! | logits of one vocabulary | [`soft_targets`], [`divergence`], [`standardized`] |
//! | logits of two vocabularies | [`universal`] |
//! | hidden states | [`cosine`], [`hidden_mse`] |
//! | attention | [`attention_mse`], [`attention_kl`], [`relation_kl`] |
//!
//! Losses are not reduced: there is one number a row. A gradient flows only into the student. These functions take whole
//! logits, as classifiers have them. Language models train with [`Distill`](crate::Distill), which never has them.

mod attention;
mod divergence;
mod hidden;
mod relations;
mod soft_targets;
mod standardized;
mod universal;

pub use attention::{attention_kl, attention_mse};
pub use divergence::divergence;
pub use hidden::{cosine, hidden_mse};
pub use relations::{relation_kl, split_heads};
pub use soft_targets::soft_targets;
pub use standardized::standardized;
pub use universal::universal;
