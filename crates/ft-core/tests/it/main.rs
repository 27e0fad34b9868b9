//! Integration tests of ft-core, one binary.

mod chat_template;
mod checkpoints;
mod generation;
mod loss;
mod models;
mod tokenizer;
