//! Fine-tune language models in Rust: from base weights to a measured, shippable model.
//!
//! This crate re-exports the crates of its workspace:
//!
//! - [`core`]: models, loading and saving, tokenizer and chat template, generation;
//! - [`data`]: datasets, masks and packing;
//! - [`peft`]: adapters and their files;
//! - [`quant`]: few bits, and GGUF files;
//! - [`train`]: the training loop;
//! - [`align`]: losses of preferences, rewards and policies;
//! - [`distill`]: distillation from a teacher in memory or on disk;
//! - [`embed`]: embedding models: encoding, losses, training, mining, search;
//! - [`tasks`]: classes, tags, answers and masked tokens; pipelines from text to answer;
//! - `eval` (feature `eval`, on by default): metrics, statistics, benchmarks and judges;
//! - [`kernels`]: the operations of models.
//!
//! The device is chosen at run time: see [`device()`].
//!
//! # Features
//!
//! - `cpu` (default), `cuda`, `wgpu`, `vulkan`, `metal`: the devices;
//! - `eval` (default): evaluation. Without it about forty fewer crates are compiled;
//! - `hub`: models by hub id are downloaded;
//! - `mlflow` (default): a tracker that sends the numbers of a run to an MLflow server;
//! - `parquet`, `arrow`, `zstd`: data in Parquet files, in Arrow files, and compressed with zstd;
//! - `documents`: text from HTML, DOCX and PDF files.

pub use burn;
pub use ft_align as align;
pub use ft_core as core;
pub use ft_data as data;
pub use ft_distill as distill;
pub use ft_embed as embed;
#[cfg(feature = "eval")]
pub use ft_eval as eval;
pub use ft_kernels as kernels;
pub use ft_peft as peft;
pub use ft_quant as quant;
pub use ft_tasks as tasks;
pub use ft_train as train;

mod adalora;
mod device;
#[cfg(feature = "eval")]
mod judge_reward;
mod loftq;
mod memory;
mod threads;

pub use adalora::AdaLora;
pub use device::{DeviceError, device};
#[cfg(feature = "eval")]
pub use judge_reward::{JudgeReward, conversation_text};
pub use loftq::{LoftqError, LoftqLayer, loftq_initialise};
pub use memory::peak_rss_mb;
pub use threads::compute_threads;
