//! The crates together: on the model that ships, on a real model where there is one, and through the
//! examples as a user runs them.

mod adalora;
mod adapter_examples;
mod agreement;
mod alignment_examples;
mod bad_input;
mod bert_score;
mod data_examples;
mod distillation_examples;
mod embedding_examples;
mod encoder_examples;
mod evaluation_examples;
mod examples;
#[cfg(unix)]
mod full_disk;
mod kills;
mod local_model;
mod loftq;
#[path = "../../crates/ft-eval/tests/it/judges/mock_server.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod mock_server;
mod own_body;
mod qlora;
mod quantization_examples;
mod real_model;
mod shipped_model;
mod stages;
mod trajectories;
