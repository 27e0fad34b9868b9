//! Measures of tagged sequences.
