//! Evaluation of a training stage: measures that suit the stage, compared with the model of the stage before,
//! in one report.
//!
//! | stage | measured |
//! |---|---|
//! | domain adaptation | bits per byte and word perplexity on texts of the domain and on general ones |
//! | instruction tuning | a judge's scores; empty, looping and leaking replies; length |
//! | preference alignment | refusals of harmful prompts, refusals of harmless ones, win rate against the stage before; length |
//!
//! [`StageAnswers::collect`] collects the answers of one model, which can be stored. [`compare`] compares the answers of
//! two models, which do not have to be in memory at the same time. [`evaluate_stage`] does both.
//!
//! Differences have a 95% interval from a paired bootstrap over texts or replies. A measure that is worse by
//! more than its tolerance fails the report.

mod answers;
mod compare;
mod data;
mod fit;
mod replies;
mod report;

pub use answers::StageAnswers;
pub use compare::{StageJudge, Tolerances, compare};
pub use data::{Instruction, StageData};
pub use fit::{TextFit, bits_per_byte, word_perplexity};
pub use replies::{ReplyFaults, reply_faults};
pub use report::{Better, Measure, Sample, StageReport};

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::harness::LanguageModel;
use crate::{Error, Result};

/// A stage of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Trained further on texts of a domain.
    DomainAdaptation,
    /// Trained to follow instructions.
    InstructionTuning,
    /// Trained on preferences.
    PreferenceAlignment,
}

impl Stage {
    fn title(self) -> &'static str {
        match self {
            Stage::DomainAdaptation => "Domain adaptation",
            Stage::InstructionTuning => "Instruction tuning",
            Stage::PreferenceAlignment => "Preference alignment",
        }
    }

    /// The number of requests to a model.
    fn questions(self, data: &StageData) -> usize {
        match self {
            Stage::DomainAdaptation => data.domain.len() + data.general.len(),
            Stage::InstructionTuning => data.instructions.len(),
            Stage::PreferenceAlignment => data.instructions.len() + data.harmful.len(),
        }
    }
}

impl FromStr for Stage {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "domain" => Ok(Stage::DomainAdaptation),
            "instructions" => Ok(Stage::InstructionTuning),
            "preferences" => Ok(Stage::PreferenceAlignment),
            _ => Err(Error::Settings(format!(
                "no stage is called {name}: there are domain, instructions and preferences"
            ))),
        }
    }
}

/// Measures a model, and that of the stage before if there is one: collects the answers of both and compares them.
///
/// # Errors
///
/// If a model fails, or there is no data for the stage.
pub fn evaluate_stage(
    stage: Stage,
    candidate: (&str, &dyn LanguageModel),
    previous: Option<(&str, &dyn LanguageModel)>,
    data: &StageData,
    max_new_tokens: usize,
    judge: Option<&StageJudge<'_>>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<StageReport> {
    let mut collect = |(name, model): (&str, &dyn LanguageModel)| {
        StageAnswers::collect(stage, name, model, data, max_new_tokens, progress)
    };
    let previous = previous.map(&mut collect).transpose()?;
    let candidate = collect(candidate)?;
    compare(
        stage,
        &candidate,
        previous.as_ref(),
        data,
        judge,
        &Tolerances::default(),
    )
}
