//! Running a model on a calibration text, block by block: what its linear layers read.

mod blocks;
mod text;
mod watch;

pub(crate) use blocks::Blocks;
pub use text::calibration_windows;
pub(crate) use watch::{Round, Stage};
