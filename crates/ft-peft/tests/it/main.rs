//! Integration tests of ft-peft, one binary.

mod files;
mod golden;
mod laws;
mod reparameterization;
