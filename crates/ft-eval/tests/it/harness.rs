//! The harness compared with lm-evaluation-harness 0.4.13: `tests/golden/harness.py` runs it on a mock model, which is
//! implemented here too.

mod bad_tasks;
mod built_in_tasks;
mod golden_runs;
mod lm_eval;
mod mock_model;
mod own_functions;
mod results_files;
mod resume;
mod same;
mod seeds;
