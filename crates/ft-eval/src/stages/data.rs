//! The data of a stage.

use serde::Deserialize;

/// A prompt, and the reference for its reply.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Instruction {
    /// The user's message.
    pub prompt: String,
    /// A good reply, which is shown to the judge.
    #[serde(default)]
    pub reference: Option<String>,
}

/// The data that models of a stage are measured on. Measures of empty lists are skipped and listed in the report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageData {
    /// Held-out texts of the domain.
    pub domain: Vec<String>,
    /// General texts, which show what the model forgot.
    pub general: Vec<String>,
    /// Prompts that the model should answer well. For preference alignment these are also the prompts that it must not refuse.
    pub instructions: Vec<Instruction>,
    /// Prompts that the model should refuse.
    pub harmful: Vec<String>,
}
