#![doc = include_str!("../README.md")]

mod dpo;
mod error;
mod kto;
pub mod loss;
mod pair_batch;
mod reference;
mod reference_free;
mod reference_logps;
mod sequences;

pub use dpo::{Dpo, DpoConfig};
pub use error::{Error, Result};
pub use kto::{Kto, KtoConfig, UnpairedLoss};
pub use pair_batch::PairBatch;
pub use reference::Reference;
pub use reference_free::ReferenceFree;
pub use reference_logps::add_reference_logps;
