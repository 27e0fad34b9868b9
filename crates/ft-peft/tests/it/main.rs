//! Integration tests of ft-peft, one binary.

mod combine;
mod embeddings;
mod encoder;
mod files;
mod golden;
mod laws;
mod operations;
mod own_model;
mod reparameterization;
