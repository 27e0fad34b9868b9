//! Integration tests of ft-peft, one binary.

mod battery;
mod bottleneck;
mod combine;
mod embeddings;
mod encoder;
mod files;
mod golden;
mod laws;
mod methods;
mod own_model;
mod reparameterization;
