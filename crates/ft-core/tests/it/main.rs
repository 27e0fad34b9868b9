//! Integration tests of ft-core, one binary.

mod checkpoints;
mod generation;
mod loss;
mod models;
