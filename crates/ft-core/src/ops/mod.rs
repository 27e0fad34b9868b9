//! The operations that every model shares, as plain functions of tensors.
//!
//! Models call these and nothing below them, so that a faster implementation of one operation
//! reaches every model at once. The remaining two of the family stand in files of their own: the
//! projection with adapters is [`Linear::forward`](crate::Linear::forward), head and loss are
//! [`linear_cross_entropy`](crate::linear_cross_entropy).

mod activation;
mod attention;
mod norm;
mod rotary;

pub use activation::{Activation, gated_mlp};
pub use attention::{AttentionMask, attention};
pub use norm::{layer_norm, rms_norm};
pub use rotary::apply_rotary;
