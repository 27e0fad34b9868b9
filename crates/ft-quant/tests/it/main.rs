//! The algorithms against golden data.

mod algorithms;
