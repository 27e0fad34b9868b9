//! DAPO's soft punishment of completions that are too long (Yu et al., 2025, arXiv:2503.14476, equation 13).

use std::num::NonZero;

use serde::Deserialize;

use super::{BoxError, Completion, Reward};
use crate::{Error, Result};

/// For `n` tokens, with `max` and `cache` tokens:
///
/// - 0 if `n <= max - cache`,
/// - `((max - cache) - n) / cache` if `max - cache < n <= max`,
/// - -1 if `max < n`.
///
/// The paper has `max` 20,480 and `cache` 4,096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Settings")]
pub struct SoftOverlong {
    max: usize,
    cache: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    max: usize,
    cache: Option<NonZero<usize>>,
}

impl SoftOverlong {
    /// A punishment that begins `cache` tokens before `max`.
    ///
    /// # Errors
    ///
    /// If `cache` is 0 or more than `max`.
    pub fn new(max: usize, cache: usize) -> Result<Self> {
        if cache == 0 || cache > max {
            return Err(Error::Reward {
                reward: "overlong".to_string(),
                reason: format!(
                    "the punishment begins `cache` tokens before `max`, so `cache` must be in 1..={max}, not {cache}"
                ),
            });
        }
        Ok(Self { max, cache })
    }
}

impl TryFrom<Settings> for SoftOverlong {
    type Error = String;

    /// Without a `cache`, it is a fifth of `max`, as in the paper.
    fn try_from(Settings { max, cache }: Settings) -> std::result::Result<Self, String> {
        let cache = cache.map_or(max / 5, NonZero::get);
        Self::new(max, cache).map_err(Error::into_reason)
    }
}

impl Reward for SoftOverlong {
    fn name(&self) -> &str {
        "overlong"
    }

    fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError> {
        let over = completion.token_count.saturating_sub(self.max - self.cache);
        let share = over.min(self.cache) as f64 / self.cache as f64;
        // Subtracted from zero, so that short completions have 0 and not -0.
        Ok(Some(0.0 - share))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::super::PromptRef;
    use super::*;

    #[test]
    fn the_punishment_is_that_of_the_paper() {
        let reward = SoftOverlong::new(20_480, 4_096).expect("valid");
        let from_json: SoftOverlong =
            serde_json::from_value(json!({"max": 20_480})).expect("valid");
        assert_eq!(from_json, reward);
        for (token_count, score) in [
            (0, 0.0),
            (16_384, 0.0),
            (17_408, -0.25),
            (18_432, -0.5),
            (20_480, -1.0),
            (20_481, -1.0),
            (usize::MAX, -1.0),
        ] {
            let completion = Completion {
                prompt: PromptRef::Text(""),
                text: "",
                token_count,
                finished: true,
                columns: &Map::new(),
            };
            assert_eq!(reward.score(&completion).expect("no error"), Some(score));
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        assert!(SoftOverlong::new(10, 0).is_err());
        assert!(SoftOverlong::new(10, 11).is_err());
        assert!(serde_json::from_value::<SoftOverlong>(json!({"max": 4})).is_err());
    }
}
