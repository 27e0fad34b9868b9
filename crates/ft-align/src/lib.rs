#![doc = include_str!("../README.md")]

mod error;
pub mod loss;
mod reward_model;
mod score_rows;

pub use error::{Error, Result};
pub use reward_model::RewardModel;
pub use score_rows::score_rows;
