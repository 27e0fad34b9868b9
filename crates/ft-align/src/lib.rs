#![doc = include_str!("../README.md")]

mod error;
pub mod loss;
pub mod reward;

pub use error::{Error, Result};
