#![doc = include_str!("../README.md")]

mod dpo;
mod error;
mod grpo;
mod grpo_config;
mod kto;
pub mod loss;
mod pair_batch;
mod policy_watch;
mod reference;
mod reference_free;
mod reference_logps;
pub mod reward;
mod reward_model;
mod rollout;
mod score_rows;
mod scored_rollout;
mod sequences;
mod splits;

pub use dpo::{Dpo, DpoConfig};
pub use error::{Error, Result};
pub use grpo::{Grpo, Sampled};
pub use grpo_config::GrpoConfig;
pub use kto::{Kto, KtoConfig, UnpairedLoss};
pub use pair_batch::PairBatch;
pub use policy_watch::PolicyWatch;
pub use reference::Reference;
pub use reference_free::ReferenceFree;
pub use reference_logps::add_reference_logps;
pub use reward_model::RewardModel;
pub use rollout::{Rollout, RolloutConfig, sample};
pub use score_rows::score_rows;
pub use scored_rollout::{PolicyBatch, ScoredRollout};
