//! Whether the answer is the text of a column.

use serde::Deserialize;
use serde_json::Value;

use super::answer_tag::tagged_answer;
use super::{BoxError, Completion, Reward};

/// 1 if the answer equals the column, else 0.
///
/// The answer is the content of the last `<answer>...</answer>`, or the whole completion if there is none. Both sides are
/// compared in lower case, with runs of white space as one space, and without white space around them and a full stop
/// at the end. A column that is a list has several right answers. Numbers and booleans are compared as JSON writes them.
///
/// The reward does not apply to rows without the column.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExactAnswer {
    /// The column with the right answer.
    pub column: String,
}

impl Default for ExactAnswer {
    /// The column `answer`.
    fn default() -> Self {
        Self {
            column: "answer".to_string(),
        }
    }
}

impl Reward for ExactAnswer {
    fn name(&self) -> &str {
        "exact"
    }

    fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError> {
        let Some(column) = completion.column(&self.column) else {
            return Ok(None);
        };
        let right: &[Value] = match column {
            Value::Array(answers) => answers,
            one => std::slice::from_ref(one),
        };
        let answer = normalized(tagged_answer(completion.text).unwrap_or(completion.text));
        for value in right {
            let right = match value {
                Value::String(text) => normalized(text),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                _ => {
                    return Err(format!(
                        "the column `{}` is no text, number or boolean, nor a list of these",
                        self.column
                    )
                    .into());
                }
            };
            if right == answer {
                return Ok(Some(1.0));
            }
        }
        Ok(Some(0.0))
    }
}

fn normalized(text: &str) -> String {
    let text = text.trim();
    let text = text.strip_suffix('.').unwrap_or(text).to_lowercase();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::completion::score_of;
    use super::*;

    #[test]
    fn texts_are_compared_without_case_space_and_full_stop() {
        let reward = ExactAnswer::default();
        for (text, answer, expected) in [
            ("Paris", json!("paris"), 1.0),
            (" New\n York. ", json!("new york"), 1.0),
            ("I think <answer>\nParis\n</answer>", json!("Paris."), 1.0),
            ("It is Paris", json!("Paris"), 0.0),
            ("", json!("Paris"), 0.0),
            ("b", json!(["a", "b"]), 1.0),
            ("True", json!(true), 1.0),
            ("18", json!(18), 1.0),
        ] {
            let score = score_of(&reward, text, json!({ "answer": answer }));
            assert_eq!(score, Ok(Some(expected)), "{text:?} {answer}");
        }
    }

    #[test]
    fn rows_without_the_column_do_not_count_and_strange_columns_are_errors() {
        let reward = ExactAnswer {
            column: "city".to_string(),
        };
        assert_eq!(score_of(&reward, "a", json!({"answer": "a"})), Ok(None));
        assert_eq!(score_of(&reward, "a", json!({"city": null})), Ok(None));
        let error = score_of(&reward, "a", json!({"city": {}})).expect_err("an error");
        assert!(error.contains("`city`"), "{error}");
    }
}
