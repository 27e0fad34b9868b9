//! Whether a difference between systems is one.
