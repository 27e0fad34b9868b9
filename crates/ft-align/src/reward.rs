//! Rewards: numbers that say how good a completion is.
//!
//! A [`Reward`] sees a [`Completion`]: the prompt, the text, and the columns of the prompt's row. [`by_name`] makes one
//! from a text such as `gsm8k`. [`WeightedSum`] adds several, and reads a list of them from a JSON file. [`score_batch`]
//! applies them to a batch on several threads, and survives those that panic or do not end.
//!
//! | name | reward |
//! |---|---|
//! | `exact` | [`ExactAnswer`]: the answer is the text of a column |
//! | `gsm8k`, `numeric` | [`NumericAnswer`]: the answer is the number of a column |
//! | `regex:PATTERN` | [`RegexMatch`]: the pattern matches |
//! | `format`, `format:TAGS` | [`FormatTags`]: `<reasoning>...</reasoning><answer>...</answer>`, or other tags |
//! | `length:TOKENS` | [`TargetLength`]: the distance from a length |
//! | `overlong:MAX` | [`SoftOverlong`]: DAPO's punishment of length |
//! | `json` | [`JsonSchema`]: JSON that satisfies a schema |
//! | a reward model, only in code | [`ModelScore`]: its score |
//! | a process reward model, only in code | [`StepScore`]: the lowest score of a step |
//! | a judge, only in code | `ft::JudgeReward`: the rating of a chat model |
//! | `code`, only from a file or in code | [`CodeTests`]: the code passes tests; runs it, without a sandbox |

use std::fmt;

mod answer_tag;
mod by_name;
#[cfg(unix)]
mod code_tests;
mod completion;
mod exact_answer;
#[cfg(unix)]
mod fenced_block;
mod format_tags;
mod from_fn;
mod json_schema;
mod model_score;
mod named;
mod number;
mod numeric_answer;
mod regex_match;
mod schema;
mod score_batch;
mod scores;
mod soft_overlong;
mod step_score;
mod target_length;
mod weighted_sum;

pub use by_name::{by_name, by_names};
#[cfg(unix)]
pub use code_tests::CodeTests;
pub use completion::{Completion, PromptRef};
pub use exact_answer::ExactAnswer;
pub use format_tags::FormatTags;
pub use from_fn::{FromFn, from_fn};
pub use json_schema::JsonSchema;
pub use model_score::ModelScore;
pub use named::named;
pub use numeric_answer::NumericAnswer;
pub use regex_match::RegexMatch;
pub use schema::Schema;
pub use score_batch::score_batch;
pub use scores::{Failure, FailureKind, Scores};
pub use soft_overlong::SoftOverlong;
pub use step_score::StepScore;
pub use target_length::TargetLength;
pub use weighted_sum::{WeightedScores, WeightedSum};

/// Why a reward has no score: any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Scores completions.
pub trait Reward: Send + Sync {
    /// The name in logs and messages.
    fn name(&self) -> &str;

    /// The score of a completion. None means that the reward does not apply, for instance because the row lacks a column:
    /// it is then left out of sums and statistics.
    ///
    /// # Errors
    ///
    /// If the completion cannot be scored. A bad completion has a low score; it is no error.
    fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError>;

    /// The scores of several completions, in order. A reward model overrides this and [`batch_size`](Self::batch_size).
    fn score_all(&self, completions: &[Completion<'_>]) -> Vec<Result<Option<f64>, BoxError>> {
        completions.iter().map(|one| self.score(one)).collect()
    }

    /// How many completions [`score_batch`] hands to one call of [`score_all`](Self::score_all), at most. With 1, a
    /// completion whose scoring panics or does not end costs no other completion its score.
    fn batch_size(&self) -> usize {
        1
    }
}

impl fmt::Debug for dyn Reward + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reward").field(&self.name()).finish()
    }
}
