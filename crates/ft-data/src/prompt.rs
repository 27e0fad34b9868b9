//! Rows of prompts, for methods that sample their own answers (GRPO, RLOO, PPO, online DPO).
//!
//! What is read, by the first of these columns that is there:
//!
//! - `prompt`: a text, which is continued as it is, or a list of messages;
//! - `messages` (or `conversations`): the turns so far, without an answer of the assistant at the end;
//! - `question`: the user's message, as in GSM8K, whose `answer` stays a column;
//! - `instruction`, optionally `input` and `history`: Alpaca's columns, whose `output` stays a column.
//!
//! Messages may come with the columns `system` and `tools`. All other columns are kept for the rewards.

use ft_core::Message;
use serde_json::{Map, Value};

use crate::columns::Row;
use crate::format::alpaca_prompt;
use crate::preference::message;
use crate::{Error, Result};

/// What a model is to continue or to answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Plain text, which is continued. It has no chat template.
    Text(String),
    /// Messages, which are answered. A chat template turns them into text.
    Messages(Vec<Message>),
}

/// A prompt and the columns that its answers are checked against.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptSample {
    /// The prompt.
    pub prompt: Prompt,
    /// The functions that the assistant may call, as JSON schemas.
    pub tools: Option<Vec<Value>>,
    /// All columns that are no part of the prompt, in the order of the row.
    pub columns: Map<String, Value>,
}

impl PromptSample {
    /// Reads one row. `row_number` counts from 1 and appears in error messages.
    ///
    /// ```
    /// use ft_data::{Prompt, PromptSample};
    /// use serde_json::json;
    ///
    /// let row = json!({"question": "How much is 2 + 2?", "answer": "2 + 2 = 4\n#### 4"});
    /// let sample = PromptSample::parse(&row, 1)?;
    /// assert!(matches!(&sample.prompt, Prompt::Messages(messages) if messages[0].role == "user"));
    /// assert_eq!(sample.columns["answer"], "2 + 2 = 4\n#### 4");
    /// # Ok::<(), ft_data::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no column of a prompt, a column has a wrong type, or a plain text comes with `system` or `tools`, which
    /// only messages can have.
    pub fn parse(row: &Value, row_number: usize) -> Result<Self> {
        let fields = Row::new(row, row_number, None)?;
        let forms = [
            "prompt",
            "messages",
            "conversations",
            "question",
            "instruction",
        ];
        let Some(name) = forms.into_iter().find(|name| fields.has(name)) else {
            return Err(fields.missing("prompt"));
        };
        let mut used = vec![name, "system", "tools"];
        let tools = fields.tools()?;
        let prompt = match (name, fields.value(name)?) {
            ("prompt", Value::String(text)) => {
                check_plain(&fields, tools.is_some())?;
                Prompt::Text(text.clone())
            }
            ("question", _) => {
                let question = Message::new("user", fields.text("question")?);
                Prompt::Messages(after_system(&fields, vec![question])?)
            }
            ("instruction", _) => {
                used.extend(["input", "history"]);
                Prompt::Messages(alpaca_prompt(&fields)?)
            }
            _ => {
                let turns = fields.turns([name; 2], ["role", "content"])?;
                let messages = turns.iter().map(message).collect::<Result<_>>()?;
                Prompt::Messages(after_system(&fields, messages)?)
            }
        };
        let others = row.as_object().into_iter().flatten();
        Ok(Self {
            prompt,
            tools,
            columns: (others.filter(|(name, _)| !used.contains(&name.as_str())))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        })
    }
}

impl From<Prompt> for PromptSample {
    fn from(prompt: Prompt) -> Self {
        Self {
            prompt,
            tools: None,
            columns: Map::new(),
        }
    }
}

/// An error if a plain text comes with what only messages can have.
fn check_plain(row: &Row<'_>, has_tools: bool) -> Result<()> {
    let system = row.optional_text("system")?.filter(|text| !text.is_empty());
    let name = match (system, has_tools) {
        (None, false) => return Ok(()),
        (Some(_), _) => "system",
        (None, true) => "tools",
    };
    Err(row.error(format!(
        "`prompt` is plain text, which has no place for the column `{name}`: rename `prompt` to `question`, so that it \
         becomes the user's message"
    )))
}

/// The column `system`, if there is one, and the messages.
pub(crate) fn after_system(row: &Row<'_>, messages: Vec<Message>) -> Result<Vec<Message>> {
    let Some(system) = row.optional_text("system")?.filter(|text| !text.is_empty()) else {
        return Ok(messages);
    };
    match messages.first() {
        Some(first) if ["system", "developer"].contains(&first.role.as_str()) => {
            if first.text() == Some(system) {
                return Ok(messages);
            }
            Err(row.error(
                "the row has two different system messages, the first message and the column `system`: remove one of \
                 them"
                    .to_string(),
            ))
        }
        _ => Ok([vec![Message::new("system", system)], messages].concat()),
    }
}

/// An error if messages cannot be answered.
pub(crate) fn check_open(messages: &[Message]) -> Result<()> {
    match messages.last() {
        None => Err(Error::Sample("the prompt has no messages".to_string())),
        Some(last) if last.role == "assistant" => Err(Error::Sample(
            "the prompt ends with a message of the assistant, but the model is to answer it: remove that message, or move \
             it to a column of its own"
                .to_string(),
        )),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(row: &Value) -> PromptSample {
        PromptSample::parse(row, 1).expect("parses")
    }

    #[test]
    fn all_forms_give_the_same_messages() {
        let user = json!({"role": "user", "content": "Hi"});
        for row in [
            json!({"prompt": [user], "answer": 4}),
            json!({"messages": [user], "answer": 4}),
            json!({"conversations": [{"from": "human", "value": "Hi"}], "answer": 4}),
            json!({"question": "Hi", "answer": 4}),
            json!({"instruction": "Hi", "input": "", "answer": 4}),
        ] {
            let sample = parsed(&row);
            let expected = Prompt::Messages(vec![Message::new("user", "Hi")]);
            assert_eq!(sample.prompt, expected, "{row}");
            assert_eq!(Value::Object(sample.columns), json!({"answer": 4}), "{row}");
        }
    }

    #[test]
    fn answers_stay_columns_and_parts_of_the_prompt_do_not() {
        let sample = parsed(&json!({
            "system": "Be brief", "instruction": "Add", "input": "1 2", "history": [["a", "b"]], "output": "3", "id": 7,
        }));
        let Prompt::Messages(messages) = &sample.prompt else {
            panic!("messages");
        };
        let turns: Vec<(&str, Option<&str>)> = (messages.iter())
            .map(|message| (message.role.as_str(), message.text()))
            .collect();
        assert_eq!(
            turns,
            [
                ("system", Some("Be brief")),
                ("user", Some("a")),
                ("assistant", Some("b")),
                ("user", Some("Add\n1 2")),
            ]
        );
        assert_eq!(
            Value::Object(sample.columns),
            json!({"output": "3", "id": 7})
        );

        let sample = parsed(&json!({"prompt": "2 + 2 =", "system": null, "tests": ["4"]}));
        assert_eq!(sample.prompt, Prompt::Text("2 + 2 =".to_string()));
        assert_eq!(Value::Object(sample.columns), json!({"tests": ["4"]}));
    }

    #[test]
    fn a_system_column_comes_first_and_once() {
        let system = json!({"role": "system", "content": "Be brief"});
        let user = json!({"role": "user", "content": "Hi"});
        let expected = parsed(&json!({"messages": [system, user]})).prompt;
        for row in [
            json!({"messages": [user], "system": "Be brief"}),
            json!({"messages": [system, user], "system": "Be brief"}),
            json!({"question": "Hi", "system": "Be brief"}),
        ] {
            assert_eq!(parsed(&row).prompt, expected, "{row}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let system = json!({"role": "system", "content": "Be brief"});
        for (row, part) in [
            (json!({"text": "a"}), "`prompt`"),
            (json!({"prompt": 3}), "`prompt` is a number"),
            (json!({"question": ["a"]}), "`question` is a list"),
            (json!({"messages": []}), "`messages` is empty"),
            (json!({"messages": "a"}), "a list of messages"),
            (json!({"prompt": "a", "system": "b"}), "`question`"),
            (json!({"prompt": "a", "tools": [{"name": "f"}]}), "`tools`"),
            (
                json!({"messages": [system], "system": "Else"}),
                "two different",
            ),
            (json!([1]), "an object with columns"),
        ] {
            let error = PromptSample::parse(&row, 7)
                .expect_err("refused")
                .to_string();
            assert!(
                error.contains("row 7") && error.contains(part),
                "{part}: {error}"
            );
        }
    }
}
