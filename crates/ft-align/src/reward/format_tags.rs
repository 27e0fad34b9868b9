//! Whether a completion has its parts in tags, as recipes of GRPO demand of reasoning and answer.

use serde::Deserialize;

use super::{BoxError, Completion, Reward};
use crate::{Error, Result};

/// 1 if the completion consists of `<TAG>...</TAG>` for each tag, in order and once, with nothing but white space between
/// and around them; else 0.
///
/// Soft: the share of the opening and closing tags that occur exactly once, anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Settings")]
pub struct FormatTags {
    /// `<TAG>` and `</TAG>` of each tag.
    tags: Vec<[String; 2]>,
    soft: bool,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    tags: Vec<String>,
    soft: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tags: vec!["reasoning".to_string(), "answer".to_string()],
            soft: false,
        }
    }
}

impl Default for FormatTags {
    /// The tags `reasoning` and `answer`, not soft.
    fn default() -> Self {
        let Settings { tags, soft } = Settings::default();
        Self::of_names(&tags, soft)
    }
}

impl FormatTags {
    /// A reward for these tags, given without brackets.
    ///
    /// # Errors
    ///
    /// If there are no tags, one occurs twice, is empty, or has white space or brackets.
    pub fn new<S: AsRef<str>>(tags: &[S], soft: bool) -> Result<Self> {
        let error = |reason: String| {
            Err(Error::Reward {
                reward: "format".to_string(),
                reason,
            })
        };
        if tags.is_empty() {
            return error("there are no tags: name one, such as `answer`".to_string());
        }
        for (index, tag) in tags.iter().enumerate() {
            let tag = tag.as_ref();
            let bad = |c: char| c.is_whitespace() || "<>/".contains(c);
            if tag.is_empty() || tag.contains(bad) {
                return error(format!(
                    "the tag `{tag}` is empty or has white space or brackets: write `answer` for <answer>"
                ));
            }
            if tags[..index].iter().any(|other| other.as_ref() == tag) {
                return error(format!("the tag `{tag}` occurs twice"));
            }
        }
        Ok(Self::of_names(tags, soft))
    }

    fn of_names<S: AsRef<str>>(tags: &[S], soft: bool) -> Self {
        let names = tags.iter().map(AsRef::as_ref);
        Self {
            tags: names
                .map(|tag| [format!("<{tag}>"), format!("</{tag}>")])
                .collect(),
            soft,
        }
    }

    /// Whether the text is the tags with their contents.
    fn fits(&self, text: &str) -> bool {
        let mut rest = text;
        for [open, close] in &self.tags {
            let Some(inside) = rest.trim_start().strip_prefix(open.as_str()) else {
                return false;
            };
            let Some((_, after)) = inside.split_once(close.as_str()) else {
                return false;
            };
            rest = after;
        }
        rest.trim().is_empty() && self.single_tags(text) == 2 * self.tags.len()
    }

    /// How many of the opening and closing tags occur exactly once.
    fn single_tags(&self, text: &str) -> usize {
        let tags = self.tags.iter().flatten();
        tags.filter(|tag| text.matches(tag.as_str()).take(2).count() == 1)
            .count()
    }
}

impl TryFrom<Settings> for FormatTags {
    type Error = String;

    fn try_from(settings: Settings) -> std::result::Result<Self, String> {
        Self::new(&settings.tags, settings.soft).map_err(Error::into_reason)
    }
}

impl Reward for FormatTags {
    fn name(&self) -> &str {
        "format"
    }

    fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError> {
        let text = completion.text;
        Ok(Some(if self.soft {
            self.single_tags(text) as f64 / (2 * self.tags.len()) as f64
        } else {
            f64::from(u8::from(self.fits(text)))
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::completion::score_of;
    use super::*;

    #[test]
    fn tags_come_once_and_in_order() {
        let good = "<reasoning>\n2 + 2 < 5\n</reasoning>\n<answer>\n4\n</answer>";
        for (text, strict, soft) in [
            (good, 1.0, 1.0),
            (&format!("\n {good} \n"), 1.0, 1.0),
            (&format!("So: {good}"), 0.0, 1.0),
            (&format!("{good} Done"), 0.0, 1.0),
            (&format!("{good}{good}"), 0.0, 0.0),
            ("<answer>4</answer><reasoning>a</reasoning>", 0.0, 1.0),
            ("<reasoning>a</reasoning> so <answer>4</answer>", 0.0, 1.0),
            ("<reasoning><answer>4</reasoning></answer>", 0.0, 1.0),
            (
                "<reasoning>a<answer></reasoning><answer>4</answer>",
                0.0,
                0.75,
            ),
            ("<reasoning>a</reasoning><answer>4", 0.0, 0.75),
            ("<answer>4</answer>", 0.0, 0.5),
            ("4", 0.0, 0.0),
            ("", 0.0, 0.0),
        ] {
            for (reward, score) in [
                (FormatTags::default(), strict),
                (
                    FormatTags::new(&["reasoning", "answer"], true).expect("valid"),
                    soft,
                ),
            ] {
                assert_eq!(
                    score_of(&reward, text, json!({})),
                    Ok(Some(score)),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn other_tags_and_impossible_ones() {
        let reward = FormatTags::new(&["think"], false).expect("valid");
        assert_eq!(
            score_of(&reward, "<think></think>", json!({})),
            Ok(Some(1.0))
        );
        let none: [&str; 0] = [];
        assert!(FormatTags::new(&none, false).is_err());
        for tags in [["a", "a"], ["a", ""], ["a", "<b>"], ["a", "b c"]] {
            assert!(FormatTags::new(&tags, false).is_err(), "{tags:?}");
        }
    }

    #[test]
    fn a_million_tags_are_counted() {
        let text = "<reasoning></reasoning>".repeat(50_000);
        let reward = FormatTags::default();
        assert_eq!(score_of(&reward, &text, json!({})), Ok(Some(0.0)));
    }
}
