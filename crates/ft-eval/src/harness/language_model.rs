//! What a benchmark asks of a model.

use crate::Result;

/// How likely is `continuation` after `context`? Both are text, cut at token borders by the model:
/// the whole is tokenised and cut where the context's own tokens end, and spaces at the end of the
/// context belong to the continuation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Continuation {
    /// What comes before; empty: the model's prefix token alone.
    pub context: String,
    /// What is scored.
    pub continuation: String,
}

/// The answer to a [`Continuation`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogLikelihood {
    /// Sum of the natural log-probabilities of the continuation's tokens.
    pub logp: f64,
    /// Whether every token of it is the model's first choice.
    pub is_greedy: bool,
}

/// Continue `context` until one of the stop strings, the end of text or `max_gen_toks` tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateUntil {
    /// The prompt.
    pub context: String,
    /// Stop strings; none of them is in the answer.
    pub until: Vec<String>,
    /// The most tokens an answer may have.
    pub max_gen_toks: usize,
    /// 0 is greedy.
    pub temperature: f64,
    /// Only the smallest set of tokens with this mass is drawn from; 1: all.
    pub top_p: f64,
    /// Only this many most likely tokens are drawn from; 0: all.
    pub top_k: usize,
    /// Seed of the draw.
    pub seed: u64,
}

/// A model that benchmarks can be run on.
///
/// Every method gets all requests at once, so that an implementation can order them by length, share
/// prefixes and batch, and hands over each answer as soon as it has it, in any order, by the index of its
/// request: answers are cached as they come, and progress is shown.
pub trait LanguageModel {
    /// What tells this model from every other one, weights and adapter included: cached answers
    /// belong to it.
    fn identity(&self) -> String;

    /// Scores continuations.
    fn loglikelihood(
        &self,
        requests: &[Continuation],
        done: &mut dyn FnMut(usize, LogLikelihood) -> Result<()>,
    ) -> Result<()>;

    /// The log-probability of each whole text, in windows of the model's length, the first token
    /// after the model's prefix token.
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

    /// Messages as `(role, content)` in the model's chat template, ready to be continued.
    /// With `add_generation_prompt` the assistant's turn is opened; without it the last message is left
    /// open to be continued.
    fn apply_chat_template(
        &self,
        messages: &[(String, String)],
        add_generation_prompt: bool,
    ) -> Result<String>;

    /// The source of the chat template; `None`: the model has none.
    fn chat_template(&self) -> Option<String>;
}
