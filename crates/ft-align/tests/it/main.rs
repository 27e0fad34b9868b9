//! Integration tests of ft-align, one binary.

#![allow(clippy::unwrap_used)]

mod grpo;
mod losses;
mod methods;
mod online_dpo;
mod policy;
mod ppo;
mod reward_model;
mod rewards;
mod trajectories;
