//! A reward under another name.

use std::sync::Arc;

use super::{BoxError, Completion, Reward};

struct Named {
    name: String,
    reward: Arc<dyn Reward>,
}

/// The same reward with another name, so that two of a kind can be told apart.
pub fn named(name: impl Into<String>, reward: Arc<dyn Reward>) -> Arc<dyn Reward> {
    Arc::new(Named {
        name: name.into(),
        reward,
    })
}

impl Reward for Named {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError> {
        self.reward.score(completion)
    }

    fn score_all(&self, completions: &[Completion<'_>]) -> Vec<Result<Option<f64>, BoxError>> {
        self.reward.score_all(completions)
    }

    fn batch_size(&self) -> usize {
        self.reward.batch_size()
    }
}
