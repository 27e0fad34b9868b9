//! Integration tests of ft-align, one binary.

#![allow(clippy::unwrap_used)]

mod grpo;
mod grpo_reading;
mod losses;
mod methods;
mod online_dpo;
mod policy;
mod ppo;
mod process_reward_model;
mod refusals;
mod reward_model;
mod rewards;
mod trajectories;
mod watching;
mod windows;
