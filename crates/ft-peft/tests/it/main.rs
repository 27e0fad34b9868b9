//! Integration tests of ft-peft, one binary.

mod battery;
mod bottleneck;
mod combine;
mod embeddings;
mod encoder;
mod extras;
mod files;
mod golden;
mod laws;
mod lora_family;
mod lora_laws;
mod lora_written;
mod methods;
mod own_model;
mod prompt_laws;
mod prompts;
mod reparameterization;
