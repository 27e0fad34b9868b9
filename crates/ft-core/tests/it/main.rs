//! Integration tests of ft-core, one binary.

#![allow(clippy::unwrap_used)]

mod chat_template;
mod checkpoints;
mod decoder;
mod encoder_tasks;
mod encoders;
mod generation;
mod gguf;
mod hub;
mod loss;
mod low_rank;
mod models;
mod packed;
mod resize;
mod sampling;
mod sequence_classifier;
mod token_classifier;
mod tokenizer;
