//! Judgements by language models, and measures of their reliability.
//!
//! A [`ChatModel`] replies to conversations: a server with OpenAI's protocol ([`OpenAiClient`]: llama.cpp, vLLM,
//! Ollama, hosted ones), a local model, a mock. [`CachedModel`] stores its replies in a file and counts their cost.
//!
//! - [`judge_each`] rates single replies against criteria, the reason before the score;
//! - [`judge_pairs`] compares two replies in both orders; contradicting verdicts count as a tie;
//! - [`position_bias`], [`verbosity_bias`] and [`self_preference`] measure what else the verdicts depend on, and
//!   [`calibrate`] compares them with human labels;
//! - [`preference_rows`] turns comparisons into preference data for DPO;
//! - [`QuestionWriter`] asks questions about texts, for retrieval benchmarks and training pairs, and [`Translator`] puts texts into
//!   another language;
//! - [`refusals`] measures whether replies refuse, as HarmBench does.
//!
//! A judge's reply has to match a JSON schema. Otherwise the request is repeated with the mistake added. After the
//! last attempt the verdict is reported as missing, with the reason. A missing verdict is not guessed and not counted.

mod ask;
mod bias;
mod cached_model;
mod calibration;
mod chat_model;
mod openai;
mod pairwise;
mod pointwise;
mod preferences;
mod proportion;
mod questions;
mod refusal;
mod schema;
mod translation;

pub use ask::{Missing, Panel};
pub use bias::{
    PositionBias, SelfPreference, VerbosityBias, position_bias, self_preference, verbosity_bias,
};
pub use cached_model::{CachedModel, Prices, Spent};
pub use calibration::{Calibrated, ScaleCalibrated, calibrate, calibrate_scale};
pub use chat_model::{ChatMessage, ChatModel, ChatReply, ChatRequest, Usage};
pub use openai::OpenAiClient;
pub use pairwise::{
    Comparison, Order, PairItem, PairJudge, Preference, WinRate, judge_pairs, win_rate,
};
pub use pointwise::{Item, PointJudge, Scale, Shot, Verdict, judge_each};
pub use preferences::{PreferenceRows, preference_rows, write_preferences};
pub use proportion::{Proportion, proportion};
pub use questions::{QuestionWriter, WrittenQuestion, WrittenQuestions};
pub use refusal::{Refusal, refusals};
pub use translation::Translator;

pub use crate::refusal_phrases::looks_like_refusal;
pub use crate::server::ServerOptions;

pub(crate) use ask::ask;
