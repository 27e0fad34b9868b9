//! The trainer on models small enough to be followed by hand.

mod accumulation;
mod adamw_8bit;
mod adamw_trajectory;
mod checkpoints;
mod model;
mod resume;
mod steps;
