//! Integration tests of ft-peft, one binary.

mod combine;
mod embeddings;
mod encoder;
mod files;
mod golden;
mod laws;
mod own_model;
mod prompt_laws;
mod prompts;
mod reparameterization;
