//! The scores that a process reward model gives to the steps of a completion.

use std::fmt;

use ft_core::{AutoTokenClassifier, Tokenizer};

use super::{BoxError, Completion, PromptRef, Reward};
use crate::{Error, Result, score_solutions};

/// The lowest of the probabilities that the steps of a completion are right, as a process reward model gives them (Wang et al.,
/// 2024, arXiv:2312.08935, section 3.4).
///
/// Steps are the parts between the separators that the model was trained with; parts of white space are none. A completion without
/// steps has the score 0. The prompt is the text, or the contents of the messages with line breaks between them, as the model read
/// it in its training ([`tokenize_steps`](ft_data::tokenize_steps)): without a chat template.
pub struct StepScore {
    name: String,
    model: AutoTokenClassifier,
    tokenizer: Tokenizer,
    separator: String,
    batch_size: usize,
}

impl StepScore {
    /// A reward of this name. Without `separator` it is that of the model's `config.json`. The model reads `batch_size`
    /// completions at a time.
    ///
    /// # Errors
    ///
    /// If the model does not have two labels, has no separator and none is given, or lacks tokens of the tokenizer, or
    /// `batch_size` is 0.
    pub fn new(
        name: impl Into<String>,
        model: AutoTokenClassifier,
        tokenizer: Tokenizer,
        separator: Option<&str>,
        batch_size: usize,
    ) -> Result<Self> {
        let name = name.into();
        tokenizer.check_vocab(model.dims().vocab_size)?;
        let wrong = |reason: &str| Error::Reward {
            reward: name.clone(),
            reason: reason.into(),
        };
        if model.config().num_labels() != 2 {
            return Err(wrong(
                "a process reward model has two labels, wrong and right",
            ));
        }
        if batch_size == 0 {
            return Err(wrong("batch_size must be 1 or more"));
        }
        let known = model.config().step_separator.clone();
        let Some(separator) = separator.map(str::to_string).or(known) else {
            return Err(wrong(
                "the model's config.json has no step_separator: give the one that it was trained with",
            ));
        };
        if separator.is_empty() {
            return Err(wrong("the separator of steps is empty"));
        }
        Ok(Self {
            name,
            model,
            tokenizer,
            separator,
            batch_size,
        })
    }

    /// The prompt and the steps of a completion.
    fn solution<'a>(&self, completion: &Completion<'a>) -> (String, Vec<&'a str>) {
        let prompt = match completion.prompt {
            PromptRef::Text(text) => text.to_string(),
            PromptRef::Messages(messages) => {
                let texts = messages.iter().filter_map(|message| message.text());
                texts.collect::<Vec<_>>().join("\n")
            }
        };
        let steps = completion.text.split(self.separator.as_str());
        (
            prompt,
            steps.filter(|step| !step.trim().is_empty()).collect(),
        )
    }
}

impl fmt::Debug for StepScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepScore")
            .field("name", &self.name)
            .field("separator", &self.separator)
            .finish_non_exhaustive()
    }
}

impl Reward for StepScore {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError> {
        let mut scores = self.score_all(std::slice::from_ref(completion));
        scores.pop().unwrap_or(Ok(None))
    }

    fn score_all(&self, completions: &[Completion<'_>]) -> Vec<Result<Option<f64>, BoxError>> {
        let solutions: Vec<_> = completions.iter().map(|one| self.solution(one)).collect();
        let separator = Some(self.separator.as_str());
        let score = |solutions: &[_]| {
            let size = self.batch_size;
            score_solutions(&self.model, &self.tokenizer, separator, solutions, size)
        };
        let lowest = |steps: &[f32]| {
            let lowest = steps.iter().copied().reduce(f32::min);
            Ok(Some(f64::from(lowest.unwrap_or(0.0))))
        };
        match score(&solutions) {
            Ok(found) => found.iter().map(|steps| lowest(steps)).collect(),
            // One that cannot be scored, such as one that is too long, costs the others nothing.
            Err(_) => (solutions.chunks(1))
                .map(|one| lowest(&score(one)?.concat()))
                .collect(),
        }
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }
}
