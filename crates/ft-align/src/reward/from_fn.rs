//! A function as a reward.

use super::{BoxError, Completion, Reward};

/// A reward that a function computes. [`from_fn`] makes it.
pub struct FromFn<F> {
    name: String,
    score: F,
}

/// A reward that a function computes.
///
/// ```
/// use ft_align::reward::{Completion, PromptRef, Reward, from_fn};
/// use serde_json::Map;
///
/// let ended = from_fn("ended", |completion| Ok(Some(f64::from(u8::from(completion.finished)))));
/// let completion = Completion {
///     prompt: PromptRef::Text("1, 2,"),
///     text: " 3",
///     token_count: 1,
///     finished: false,
///     columns: &Map::new(),
/// };
/// assert_eq!(ended.score(&completion)?, Some(0.0));
/// # Ok::<(), ft_align::reward::BoxError>(())
/// ```
pub fn from_fn<F>(name: impl Into<String>, score: F) -> FromFn<F>
where
    F: Fn(&Completion<'_>) -> Result<Option<f64>, BoxError> + Send + Sync,
{
    FromFn {
        name: name.into(),
        score,
    }
}

impl<F> Reward for FromFn<F>
where
    F: Fn(&Completion<'_>) -> Result<Option<f64>, BoxError> + Send + Sync,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError> {
        (self.score)(completion)
    }
}
