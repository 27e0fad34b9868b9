//! Integration tests of the crate, one file each.

#[cfg(feature = "harness")]
mod harness;
