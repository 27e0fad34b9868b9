//! Running a model on a calibration text, block by block: what its linear layers read.

mod blocks;
mod passes;
mod text;
mod watch;

pub(crate) use blocks::{Blocks, check_adapters};
pub use text::calibration_windows;
pub(crate) use text::token_before_texts;
pub(crate) use watch::{Round, Stage};
