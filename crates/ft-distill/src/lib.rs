#![doc = include_str!("../README.md")]

mod distill;
mod error;
pub mod loss;
mod student;
mod top_logits;

pub use distill::{Distill, DistillBatch, DistillConfig, TeacherSource, compare};
pub use error::{Error, Result};
pub use ft_kernels::Divergence;
pub use student::student_of;
pub use top_logits::{TopLogits, write_top_logits};
