//! Fine-tune language models in Rust: from base weights to a measured, shippable model.
//!
//! This crate is the front of a workspace and re-exports its parts:
//!
//! - [`core`] has models, weights in and out, tokenizer and chat template, generation;
//! - [`data`] has datasets, masks and packing;
//! - [`peft`] has adapters;
//! - [`eval`] has metrics, statistics and benchmarks;
//! - [`train`] has the loop;
//! - [`kernels`] has the operations that models are made of.
//!
//! Where a model computes is chosen when the program runs: see [`device()`].

pub use burn;
pub use ft_core as core;
pub use ft_data as data;
pub use ft_eval as eval;
pub use ft_kernels as kernels;
pub use ft_peft as peft;
pub use ft_train as train;

mod device;
mod memory;
mod threads;

pub use device::{DeviceError, device};
pub use memory::peak_rss_mb;
pub use threads::compute_threads;
