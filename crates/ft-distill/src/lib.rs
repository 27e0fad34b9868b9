#![doc = include_str!("../README.md")]

mod distill;
mod error;
pub mod loss;
mod own_answers;
mod reasoning;
#[cfg(feature = "servers")]
mod server_teacher;
mod step_by_step;
mod student;
mod top_logits;

pub use distill::{Distill, DistillBatch, DistillConfig, TeacherSource, compare};
pub use error::{Error, Result};
pub use ft_kernels::Divergence;
pub use own_answers::OwnAnswers;
pub use reasoning::{Reasoned, split_thinking};
#[cfg(feature = "servers")]
pub use server_teacher::ServerTeacher;
pub use step_by_step::{
    EXPLAIN, PREDICT, StepByStep, StepByStepBatch, StepByStepExample, step_by_step_batches,
};
pub use student::{Teacher, narrow_student_of, student_of};
pub use top_logits::{TopLogits, write_top_logits};
