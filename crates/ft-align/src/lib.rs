#![doc = include_str!("../README.md")]

mod error;
pub mod loss;

pub use error::{Error, Result};
