//! Tests against the reference implementations; see `tests/golden`.

#![allow(clippy::unwrap_used)]

mod agreement;
#[cfg(feature = "harness")]
mod harness;
mod significance;
