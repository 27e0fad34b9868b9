//! Pipelines against transformers, and training of each task.

mod pipelines;
mod training;
mod trajectory;
mod windows;
