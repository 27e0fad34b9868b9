#![doc = include_str!("../README.md")]

mod dpo;
mod error;
mod grpo;
mod kto;
pub mod loss;
mod pair_batch;
mod reference;
mod reference_free;
mod reference_logps;
pub mod reward;
mod rollout;
mod sequences;

pub use dpo::{Dpo, DpoConfig};
pub use error::{Error, Result};
pub use grpo::{Grpo, GrpoConfig, PolicyBatch, Sampled, ScoredRollout};
pub use kto::{Kto, KtoConfig, UnpairedLoss};
pub use pair_batch::PairBatch;
pub use reference::Reference;
pub use reference_free::ReferenceFree;
pub use reference_logps::add_reference_logps;
pub use rollout::{Rollout, RolloutConfig, sample};
