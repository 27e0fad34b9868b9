//! What the models of a stage are asked.

use serde::Deserialize;

/// A prompt, and what its reply is held against.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Instruction {
    /// What the user says.
    pub prompt: String,
    /// A good reply, which the judge sees.
    #[serde(default)]
    pub reference: Option<String>,
}

/// What the models of a stage are measured on. What is empty is not measured, and the report says so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageData {
    /// Texts of the domain that were held out.
    pub domain: Vec<String>,
    /// General texts: what the model should not forget.
    pub general: Vec<String>,
    /// Prompts to be answered well; for preference alignment also those that must not be refused.
    pub instructions: Vec<Instruction>,
    /// Prompts to be refused.
    pub harmful: Vec<String>,
}
