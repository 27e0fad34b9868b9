//! The trait of language models, and its requests.

use crate::Result;

/// A request for the log-likelihood of `continuation` after `context`. The model tokenises both as one text and cuts it
/// where the context's own tokens end. Spaces at the end of the context belong to the continuation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Continuation {
    /// The text before the continuation. If it is empty, the model uses its prefix token.
    pub context: String,
    /// The text that is scored.
    pub continuation: String,
}

/// The answer to a [`Continuation`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogLikelihood {
    /// Sum of the natural log-probabilities of the continuation's tokens.
    pub logp: f64,
    /// Whether every token of the continuation is the most likely one.
    pub is_greedy: bool,
}

/// A request to continue `context` up to a stop string, the end of text or `max_gen_toks` tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateUntil {
    /// The prompt.
    pub context: String,
    /// Stop strings. The answer does not contain them.
    pub until: Vec<String>,
    /// The maximum number of tokens of the answer.
    pub max_gen_toks: usize,
    /// The sampling temperature; 0 is greedy.
    pub temperature: f64,
    /// Samples from the smallest set of tokens with this probability; 1 means all tokens.
    pub top_p: f64,
    /// Samples from this many of the most likely tokens; 0 means all tokens.
    pub top_k: usize,
    /// Seed of sampling.
    pub seed: u64,
}

/// A language model that benchmarks run on.
///
/// Every method receives all requests at once, so that an implementation can sort them by length, share prefixes and
/// form batches. It calls `done` with each answer and the index of its request, in any order, as soon as the
/// answer is available. Answers are cached and progress is reported at each call.
pub trait LanguageModel {
    /// Identifies the model, including its weights and adapter. Cached answers are stored under it.
    fn identity(&self) -> String;

    /// Scores continuations.
    fn loglikelihood(
        &self,
        requests: &[Continuation],
        done: &mut dyn FnMut(usize, LogLikelihood) -> Result<()>,
    ) -> Result<()>;

    /// The log-probability of each whole text, in windows of the model's length. The first token is scored after the
    /// model's prefix token.
    fn loglikelihood_rolling(
        &self,
        texts: &[String],
        done: &mut dyn FnMut(usize, f64) -> Result<()>,
    ) -> Result<()>;

    /// Continues prompts.
    fn generate_until(
        &self,
        requests: &[GenerateUntil],
        done: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<()>;

    /// Renders messages `(role, content)` with the model's chat template.
    /// With `add_generation_prompt` the text ends with the beginning of the assistant's turn. Without it, it ends after the
    /// content of the last message, so that the message can be continued.
    fn apply_chat_template(
        &self,
        messages: &[(String, String)],
        add_generation_prompt: bool,
    ) -> Result<String>;

    /// The source of the chat template; `None` if the model has none.
    fn chat_template(&self) -> Option<String>;
}
