//! Rows of unpaired feedback: an answer, and whether it is desirable.
//!
//! `prompt` and `completion` (texts, or lists of messages), or `messages` (or `conversations`) whose last turn is the answer; and
//! `label` (or `kto_tag`), true or false.

use serde_json::Value;

use crate::columns::Row;
use crate::preference::{messages, prompt, sample};
use crate::{Result, Sample};

/// An answer to a prompt, and whether it is desirable. Only the answer is learnt.
#[derive(Clone, Debug, PartialEq)]
pub struct UnpairedSample {
    /// The prompt with the answer.
    pub sample: Sample,
    /// Whether the answer is desirable.
    pub desirable: bool,
}

impl UnpairedSample {
    /// Reads one row. `row_number` counts from 1 and appears in error messages.
    ///
    /// # Errors
    ///
    /// If a column is missing or has a wrong type.
    pub fn parse(row: &Value, row_number: usize) -> Result<Self> {
        let row = Row::new(row, row_number, None)?;
        let name = match row.has("kto_tag") {
            true => "kto_tag",
            false => "label",
        };
        let desirable = match row.value(name)? {
            Value::Bool(desirable) => *desirable,
            other => {
                return Err(row.error(format!(
                    "`{name}` is {other}, but must be true (desirable) or false"
                )));
            }
        };
        Ok(Self {
            sample: answer(&row)?,
            desirable,
        })
    }
}

fn answer(row: &Row<'_>) -> Result<Sample> {
    if row.has("prompt") {
        if let (Value::String(prompt), Value::String(completion)) =
            (row.value("prompt")?, row.value("completion")?)
        {
            return Ok(Sample::PromptCompletion {
                prompt: prompt.clone(),
                completion: completion.clone(),
            });
        }
        return sample(row, &prompt(row)?, messages(row, "completion")?);
    }
    let name = match row.has("conversations") {
        true => "conversations",
        false => "messages",
    };
    let mut prompt = messages(row, name)?;
    let answer = prompt.pop().into_iter().collect();
    sample(row, &prompt, answer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_turn_is_the_answer() {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let turns = json!([
            turn("user", "a"),
            turn("assistant", "b"),
            turn("user", "c"),
            turn("assistant", "d")
        ]);
        for (row, desirable) in [
            (json!({"messages": turns, "label": true}), true),
            (json!({"messages": turns, "kto_tag": false}), false),
        ] {
            let read = UnpairedSample::parse(&row, 1).expect("parses");
            assert_eq!(read.desirable, desirable);
            let Sample::Conversation(conversation) = read.sample else {
                panic!("a conversation");
            };
            let learnt: Vec<bool> = (0..4).map(|i| conversation.learns(i)).collect();
            assert_eq!(learnt, [false, false, false, true]);
        }
        let row = json!({"prompt": "a", "completion": [turn("assistant", "b")], "label": true});
        let Sample::Conversation(read) = UnpairedSample::parse(&row, 1).expect("parses").sample
        else {
            panic!("a conversation");
        };
        assert_eq!(read.messages[0].role, "user");
        let row = json!({"prompt": "a", "completion": "b", "label": 1});
        let error = UnpairedSample::parse(&row, 4)
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("row 4") && error.contains("label"),
            "{error}"
        );
    }
}
