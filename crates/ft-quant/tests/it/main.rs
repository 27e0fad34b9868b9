//! Integration tests of ft-quant, one binary.

#![allow(clippy::unwrap_used)]

mod algorithms;
mod bitsandbytes;
mod gguf;
mod model;
mod qat;
