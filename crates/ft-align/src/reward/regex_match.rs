//! Whether a pattern matches.

use regex::Regex;
use serde::Deserialize;

use super::{BoxError, Completion, Reward};
use crate::{Error, Result};

/// 1 if the pattern matches anywhere in the completion, else 0.
///
/// Patterns are those of the crate `regex`: matching takes time linear in the text, and there is no look-around and no
/// reference to a group. `^` and `$` are the ends of the text, `.` matches no newline; `(?m)` and `(?s)` change that.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Settings")]
pub struct RegexMatch {
    pattern: Regex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    pattern: String,
}

impl RegexMatch {
    /// A reward for texts that the pattern matches.
    ///
    /// # Errors
    ///
    /// If the pattern is not valid, or its automaton is too large.
    pub fn new(pattern: &str) -> Result<Self> {
        match Regex::new(pattern) {
            Ok(pattern) => Ok(Self { pattern }),
            Err(error) => Err(Error::Reward {
                reward: "regex".to_string(),
                reason: error.to_string(),
            }),
        }
    }
}

impl TryFrom<Settings> for RegexMatch {
    type Error = String;

    fn try_from(settings: Settings) -> std::result::Result<Self, String> {
        Self::new(&settings.pattern).map_err(Error::into_reason)
    }
}

impl Reward for RegexMatch {
    fn name(&self) -> &str {
        "regex"
    }

    fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError> {
        let matches = self.pattern.is_match(completion.text);
        Ok(Some(f64::from(u8::from(matches))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::completion::score_of;
    use super::*;

    #[test]
    fn patterns_match_anywhere() {
        let reward = RegexMatch::new(r"\bdogs?\b").expect("valid");
        for (text, score) in [("two dogs", 1.0), ("dogma", 0.0), ("", 0.0)] {
            assert_eq!(
                score_of(&reward, text, json!({})),
                Ok(Some(score)),
                "{text}"
            );
        }
    }

    /// Backtracking engines take exponential time for these.
    #[test]
    fn hostile_patterns_and_texts_take_linear_time() {
        let reward = RegexMatch::new(r"^(a+)+$").expect("valid");
        let text = format!("{}b", "a".repeat(1_000_000));
        assert_eq!(score_of(&reward, &text, json!({})), Ok(Some(0.0)));
        let error = RegexMatch::new(r"((a{1000}){1000}){1000}").expect_err("too large");
        assert!(error.to_string().contains("size limit"), "{error}");
        let error = RegexMatch::new("(").expect_err("invalid");
        assert!(error.to_string().contains("`regex`"), "{error}");
    }
}
