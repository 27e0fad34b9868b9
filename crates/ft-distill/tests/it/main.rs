//! Integration tests of ft-distill, one binary.

#![allow(clippy::unwrap_used)]

mod distill;
mod gkd;
mod losses;
mod step_by_step;
mod student;
