//! Integration tests of ft-distill, one binary.

#![allow(clippy::unwrap_used)]

mod distill;
mod gkd;
mod losses;
#[cfg(feature = "servers")]
#[path = "../../../ft-eval/tests/it/judges/mock_server.rs"]
#[allow(dead_code)]
mod mock_server;
#[cfg(feature = "servers")]
mod servers;
mod step_by_step;
mod student;
