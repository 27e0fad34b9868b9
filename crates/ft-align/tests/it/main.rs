//! Integration tests of ft-align, one binary.

#![allow(clippy::unwrap_used)]

mod grpo;
mod losses;
mod methods;
mod policy;
mod reward_model;
mod rewards;
mod trajectories;
