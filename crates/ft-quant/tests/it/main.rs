//! Integration tests of ft-quant, one binary.

#![allow(clippy::unwrap_used)]

mod algorithms;
mod bitsandbytes;
mod calibration;
mod fit;
mod fuzz;
mod gguf;
mod model;
mod packed_folder;
mod qat;
