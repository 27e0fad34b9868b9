#![doc = include_str!("../README.md")]

mod actor_critic;
mod best_of_n;
mod dpo;
mod error;
mod grpo;
mod grpo_config;
mod judged_pairs;
mod kto;
pub mod loss;
mod online_dpo;
mod pair_batch;
mod policy_watch;
mod ppo;
mod ppo_config;
mod process_reward_model;
mod reference;
mod reference_free;
mod reference_logps;
pub mod reward;
mod reward_model;
mod sampler;
mod score_rows;
mod scored_rollout;
mod sequences;
mod splits;

pub use actor_critic::ActorCritic;
pub use best_of_n::{
    best, best_and_worst, preference_row, sample_and_score, sample_answers, sft_row,
};
pub use dpo::{Dpo, DpoConfig};
pub use error::{Error, Result};
pub use grpo::Grpo;
pub use grpo_config::GrpoConfig;
pub use judged_pairs::{Comparison, JudgedPair, comparisons, undefeated};
pub use kto::{Kto, KtoConfig, UnpairedLoss};
pub use online_dpo::{OnlineBatch, OnlineDpo, OnlineDpoConfig};
pub use pair_batch::PairBatch;
pub use policy_watch::PolicyWatch;
pub use ppo::{Ppo, PpoBatch, PpoRow};
pub use ppo_config::PpoConfig;
pub use process_reward_model::{process_reward_step, score_solutions, score_steps};
pub use reference::Reference;
pub use reference_free::ReferenceFree;
pub use reference_logps::add_reference_logps;
pub use reward_model::RewardModel;
pub use sampler::Sampled;
pub use score_rows::score_rows;
pub use scored_rollout::{PolicyBatch, ScoredRollout};
