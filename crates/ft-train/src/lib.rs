#![doc = include_str!("../README.md")]

mod accumulate;
mod adamw;
mod callback;
mod checkpoint;
mod clip;
mod error;
mod evaluate;
mod log;
mod optim;
mod optimizer_states;
mod progress;
mod records;
mod run_folder;
mod schedule;
mod step_seed;
mod train_config;
mod trainable;
mod trainer;
mod trainer_state;
mod window_plan;

pub use accumulate::{Accumulator, Window};
pub use adamw::{AdamW, AdamWState};
pub use callback::{Callback, Verdict};
pub use checkpoint::latest_checkpoint;
pub use clip::{clip_factor, global_norm};
pub use error::{BoxError, Error, Result};
pub use evaluate::{EvalMetrics, evaluate};
pub use optim::Optim;
pub use optimizer_states::OptimizerStates;
pub use records::{Evaluation, StepRecord, TrainReport};
pub use schedule::{Schedule, constant_with_warmup, cosine_with_warmup, linear_with_warmup};
pub use step_seed::step_seed;
pub use train_config::TrainConfig;
pub use trainer::Trainer;
