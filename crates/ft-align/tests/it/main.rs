//! Integration tests of ft-align, one binary.

#![allow(clippy::unwrap_used)]

mod losses;
mod reward_model;
