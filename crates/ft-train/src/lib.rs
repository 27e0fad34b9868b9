#![doc = include_str!("../README.md")]

mod accumulate;
mod adamw;
mod callback;
mod checkpoint;
mod clip;
mod curves;
mod dead_parameters;
mod diagnosis;
mod early_stopping;
mod error;
mod eval_batches;
mod evaluate;
mod ewc;
mod forgetting_monitor;
mod log;
mod lora_plus;
mod machine_memory;
mod manifest;
mod memory_estimate;
mod method;
mod metric;
mod model_view;
mod named_optimizer;
mod on_stream;
mod optim;
mod optimizer_states;
mod param_groups;
mod param_kind;
mod progress;
mod records;
mod run;
mod run_folder;
mod schedule;
mod selection;
mod sft_step;
mod step_context;
mod step_output;
mod step_seed;
mod tracker;
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
pub use curves::{Curve, draw_loss_curves, svg};
pub use diagnosis::{Finding, Symptom, diagnose_evaluation, diagnose_step};
pub use early_stopping::EarlyStopping;
pub use error::{BoxError, Error, Result, UnknownName};
pub use evaluate::{EvalMetrics, evaluate};
pub use ewc::Ewc;
pub use forgetting_monitor::ForgettingMonitor;
pub use lora_plus::lora_plus;
pub use machine_memory::{machine_memory, resident_memory};
pub use manifest::{FileFacts, MANIFEST, Manifest, Results};
pub use memory_estimate::{MemoryEstimate, Moment, Workload, batch_size_within};
pub use method::{Method, OnBatches};
pub use metric::{Metric, MetricSum, Metrics};
pub use model_view::ModelView;
pub use named_optimizer::{FromConfig, NamedOptimizer, NamedState};
pub use on_stream::OnStream;
pub use optim::Optim;
pub use optimizer_states::OptimizerStates;
pub use param_groups::{ParamGroup, ParamRow, ParamTable};
pub use param_kind::ParamKind;
pub use records::{Evaluation, StepRecord, TrainReport};
pub use schedule::{
    DecayShape, Schedule, constant_with_warmup, cosine_with_min_lr, cosine_with_restarts,
    cosine_with_warmup, inverse_sqrt, linear_with_warmup, plateau_factor, polynomial_decay,
    warmup_stable_decay,
};
pub use selection::{Selection, train_only};
pub use sft_step::SftStep;
pub use step_context::{Phase, StepContext};
pub use step_output::{StepOutput, StepResult, next_token_loss};
pub use step_seed::step_seed;
#[cfg(feature = "mlflow")]
pub use tracker::MlflowTracker;
pub use tracker::{CsvTracker, TensorBoard, Tracker, WandbTracker};
pub use train_config::TrainConfig;
pub use trainer::Trainer;
pub use window_plan::total_steps;
