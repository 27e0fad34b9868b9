//! The trainer on models small enough to be followed by hand.

mod accumulation;
mod adamw_8bit;
mod adamw_trajectory;
mod callbacks;
mod checkpoints;
mod ewc;
mod groups;
mod lora_plus;
mod loss_without_meaning;
mod memory;
mod metrics;
#[cfg(feature = "mlflow")]
mod mlflow;
mod model;
mod optimizers;
mod reproducible;
mod resume;
mod rollouts;
mod schedules;
mod steps;
mod updates;
mod watching;
