//! The distance of a completion's length from a target.

use std::num::NonZero;

use serde::Deserialize;

use super::{BoxError, Completion, Reward};

/// `-min(1, |n - N| / N)` for `n` tokens and the target `N`: 0 at the target, -1 for an empty completion and from `2N` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetLength {
    /// The target, in tokens.
    pub tokens: NonZero<usize>,
}

impl Reward for TargetLength {
    fn name(&self) -> &str {
        "length"
    }

    fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError> {
        let target = self.tokens.get();
        let distance = completion.token_count.abs_diff(target) as f64 / target as f64;
        // Subtracted from zero, so that the best score is 0 and not -0.
        Ok(Some(0.0 - distance.min(1.0)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::completion::score_of;
    use super::*;

    #[test]
    fn the_score_falls_on_both_sides_of_the_target() {
        let reward = TargetLength {
            tokens: NonZero::new(4).expect("not zero"),
        };
        for (text, score) in [
            ("a b c d", 0.0),
            ("a b c", -0.25),
            ("a b c d e f", -0.5),
            ("", -1.0),
            (&"a ".repeat(1000), -1.0),
        ] {
            assert_eq!(
                score_of(&reward, text, json!({})),
                Ok(Some(score)),
                "{text}"
            );
        }
    }
}
