//! The formats of instruction data, and how a row of each becomes a [`Sample`].
//!
//! - Alpaca: `instruction`, `input`, `output`, and `system` and `history` as LLaMA-Factory has them;
//! - ShareGPT: `conversations` of `from` and `value`;
//! - messages: OpenAI's `role` and `content`;
//! - prompt and completion: two strings, or two lists of messages;
//! - text: `text`, of which every token is learnt, as in pretraining.
//!
//! A list of messages may come with a `system` column, which is put before them. If the list begins
//! with a system message too, both must be the same text. (LLaMA-Factory and axolotl take the message
//! and ignore the column without a warning.)

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use ft_core::Message;
use serde_json::{Map, Value, json};

use crate::columns::Row;
use crate::message_mask::take_mask;
use crate::{Conversation, Error, Result, RowStream, Sample};

/// The format of a dataset's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `instruction`, `output`, optionally `input`, `system` and `history` (pairs of earlier turns).
    Alpaca,
    /// `conversations` (or `messages`) of `from` and `value`, optionally `system` and `tools`.
    ShareGpt,
    /// `messages` (or `conversations`) of `role` and `content`, optionally `system` and `tools`.
    Messages,
    /// `prompt` and `completion`: both strings, or both lists of messages.
    PromptCompletion,
    /// `text`: plain text, of which every token and the end-of-text token are learnt.
    Text,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 5] = [
        Format::Alpaca,
        Format::ShareGpt,
        Format::Messages,
        Format::PromptCompletion,
        Format::Text,
    ];

    /// The name that settings and command lines use.
    pub fn name(self) -> &'static str {
        match self {
            Format::Alpaca => "alpaca",
            Format::ShareGpt => "sharegpt",
            Format::Messages => "messages",
            Format::PromptCompletion => "prompt_completion",
            Format::Text => "text",
        }
    }

    /// Reads one row. `row_number` counts from 1 and appears in error messages.
    ///
    /// # Errors
    ///
    /// If a column is missing or has a wrong type. The message lists the columns that exist.
    pub fn parse(self, row: &Value, row_number: usize) -> Result<Sample> {
        let row = Row::new(row, row_number, Some(self))?;
        match self {
            Format::Alpaca => alpaca(&row),
            Format::ShareGpt => sharegpt(&row),
            Format::Messages => messages(&row),
            Format::PromptCompletion => prompt_completion(&row),
            Format::Text => text(&row),
        }
    }

    /// The format that a row seems to have, judged by its columns.
    pub(crate) fn guess(row: &Map<String, Value>) -> Option<Self> {
        let turns = row.get("messages").or_else(|| row.get("conversations"));
        if let Some(turn) = turns.and_then(|turns| turns.get(0)) {
            if turn.get("role").is_some() {
                return Some(Format::Messages);
            }
            if turn.get("from").is_some() {
                return Some(Format::ShareGpt);
            }
        }
        if row.contains_key("instruction") && row.contains_key("output") {
            return Some(Format::Alpaca);
        }
        if row.contains_key("prompt") && row.contains_key("completion") {
            return Some(Format::PromptCompletion);
        }
        row.contains_key("text").then_some(Format::Text)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Format {
    /// The format of a file, by the columns of its first row that can be read. No more of the file is read.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or has no rows, or no format has such columns.
    pub fn of_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut stream = RowStream::open(path)?;
        let mut bad = None;
        let first = loop {
            match stream.next()? {
                Some(Ok(row)) => break row.value,
                Some(Err(row)) => bad = bad.or(Some(row)),
                None => {
                    return Err(bad.map_or_else(|| Error::empty(path), Error::from));
                }
            }
        };
        Self::of_row(&first).ok_or_else(|| {
            let names = first.as_object().map(|row| row.keys());
            let names = names.map(|names| names.cloned().collect::<Vec<_>>().join(", "));
            Error::Settings(format!(
                "no format has the columns of the first row ({}): name one of {}",
                names.unwrap_or_else(|| "there are none".into()),
                Self::ALL.map(Format::name).join(", ")
            ))
            .in_file(path)
        })
    }

    /// The format of a row, by its columns.
    ///
    /// ```
    /// use ft_data::Format;
    /// use serde_json::json;
    ///
    /// let row = json!({"instruction": "Say hello.", "output": "Hello!"});
    /// assert_eq!(Format::of_row(&row), Some(Format::Alpaca));
    /// assert_eq!(Format::of_row(&json!({"title": "Hello"})), None);
    /// ```
    pub fn of_row(row: &Value) -> Option<Self> {
        row.as_object().and_then(Self::guess)
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| {
                Error::Settings(format!(
                    "there is no format `{name}`: choose one of {}",
                    Self::ALL.map(Format::name).join(", ")
                ))
            })
    }
}

fn alpaca(row: &Row<'_>) -> Result<Sample> {
    let mut messages = alpaca_prompt(row)?;
    messages.push(Message::new("assistant", row.text("output")?));
    Ok(messages.into())
}

/// The messages of an Alpaca row before its `output`.
pub(crate) fn alpaca_prompt(row: &Row<'_>) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    if let Some(system) = row.optional_text("system")?.filter(|text| !text.is_empty()) {
        messages.push(Message::new("system", system));
    }
    for (index, turn) in row.optional_list("history")?.iter().enumerate() {
        match turn.as_array().map(Vec::as_slice) {
            Some([Value::String(question), Value::String(answer)]) => {
                messages.push(Message::new("user", question));
                messages.push(Message::new("assistant", answer));
            }
            _ => {
                return Err(row.error(format!(
                    "turn {} of `history` is not a pair of strings [instruction, output]",
                    index + 1
                )));
            }
        }
    }
    let instruction = row.text("instruction")?;
    let input = row.optional_text("input")?.unwrap_or_default();
    let parts: Vec<&str> = [instruction, input]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    messages.push(Message::new("user", parts.join("\n")));
    Ok(messages)
}

fn sharegpt(row: &Row<'_>) -> Result<Sample> {
    let mut turns = Turns::after_system(row)?;
    for turn in row.turns(["conversations", "messages"], ["from", "value"])? {
        turns.push(&turn, sharegpt_message(&turn)?)?;
    }
    turns.into_sample(row)
}

/// A message of `from` and `value`.
pub(crate) fn sharegpt_message(turn: &Row<'_>) -> Result<Message> {
    let value = turn.text("value")?;
    Ok(match turn.text("from")? {
        "human" | "user" => Message::new("user", value),
        "gpt" | "assistant" => Message::new("assistant", value),
        "system" => Message::new("system", value),
        "observation" | "tool" => Message::new("tool", value),
        "function_call" => function_call(value),
        other => {
            return Err(turn.error(format!(
                "`from` is `{other}`, but must be one of human, gpt, system, observation, function_call"
            )));
        }
    })
}

/// A call of tools: `{"name", "arguments"}`, or a list of these. Any other value stays text.
fn function_call(value: &str) -> Message {
    let calls = match serde_json::from_str::<Value>(value) {
        Ok(Value::Array(calls)) => calls,
        Ok(call @ Value::Object(_)) => vec![call],
        _ => Vec::new(),
    };
    if calls.is_empty() || calls.iter().any(|call| !call["name"].is_string()) {
        return Message::new("assistant", value);
    }
    let calls = calls
        .into_iter()
        .map(|call| json!({"type": "function", "function": call}))
        .collect();
    let mut message = Message::new("assistant", "");
    message.content = Value::Null;
    message
        .extra
        .insert("tool_calls".to_string(), Value::Array(calls));
    message
}

fn messages(row: &Row<'_>) -> Result<Sample> {
    let mut turns = Turns::after_system(row)?;
    turns.extend(row, ["messages", "conversations"])?;
    turns.into_sample(row)
}

fn prompt_completion(row: &Row<'_>) -> Result<Sample> {
    let both_are = |test: fn(&Value) -> bool| -> Result<bool> {
        Ok(test(row.value("prompt")?) && test(row.value("completion")?))
    };
    if both_are(Value::is_string)? {
        return Ok(Sample::PromptCompletion {
            prompt: row.text("prompt")?.to_string(),
            completion: row.text("completion")?.to_string(),
        });
    }
    if !both_are(Value::is_array)? {
        return Err(row.error(
            "`prompt` and `completion` must both be strings, or both be lists of messages with `role` \
             and `content`"
                .to_string(),
        ));
    }
    let mut turns = Turns::after_system(row)?;
    turns.extend(row, ["prompt"; 2])?;
    turns.masked = (0..turns.messages.len()).collect();
    turns.extend(row, ["completion"; 2])?;
    turns.into_sample(row)
}

fn text(row: &Row<'_>) -> Result<Sample> {
    Ok(Sample::PromptCompletion {
        prompt: String::new(),
        completion: row.text("text")?.to_string(),
    })
}

/// A message of `role` and `content`.
pub(crate) fn role_message(turn: &Row<'_>) -> Result<Message> {
    turn.text("role")?;
    if !turn.has("content") && !turn.has("tool_calls") {
        return Err(turn.missing("content"));
    }
    serde_json::from_value(turn.to_value()).map_err(|error| turn.error(error.to_string()))
}

/// The messages of a row so far.
struct Turns {
    messages: Vec<Message>,
    masked: BTreeSet<usize>,
    /// Whether the first message comes from the `system` column.
    system_column: bool,
}

impl Turns {
    /// The `system` column as first message, if there is one.
    fn after_system(row: &Row<'_>) -> Result<Self> {
        let system = row.optional_text("system")?.filter(|text| !text.is_empty());
        Ok(Self {
            messages: system
                .map(|text| Message::new("system", text))
                .into_iter()
                .collect(),
            masked: BTreeSet::new(),
            system_column: system.is_some(),
        })
    }

    fn push(&mut self, turn: &Row<'_>, mut message: Message) -> Result<()> {
        let masked = take_mask(turn, &mut message)?;
        if let [column] = &self.messages[..]
            && self.system_column
            && ["system", "developer"].contains(&message.role.as_str())
        {
            if column.content == message.content {
                return Ok(());
            }
            return Err(turn.error(
                "the row has two different system messages, this one and the column `system`: \
                 remove one of them"
                    .to_string(),
            ));
        }
        if masked {
            self.masked.insert(self.messages.len());
        }
        self.messages.push(message);
        Ok(())
    }

    /// The messages under the first of `names` that is there.
    fn extend(&mut self, row: &Row<'_>, names: [&'static str; 2]) -> Result<()> {
        for turn in row.turns(names, ["role", "content"])? {
            self.push(&turn, role_message(&turn)?)?;
        }
        Ok(())
    }

    fn into_sample(self, row: &Row<'_>) -> Result<Sample> {
        Ok(Sample::Conversation(Conversation {
            tools: row.tools()?,
            messages: self.messages,
            masked: self.masked,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(format: Format, row: Value) -> Result<Sample> {
        format.parse(&row, 3)
    }

    fn conversation_of(format: Format, row: Value) -> Conversation {
        match parse(format, row).unwrap() {
            Sample::Conversation(conversation) => conversation,
            other => panic!("{other:?} is no conversation"),
        }
    }

    fn turns(conversation: &Conversation) -> Vec<(&str, &str)> {
        let messages = conversation.messages.iter();
        messages
            .map(|m| (m.role.as_str(), m.text().unwrap_or("-")))
            .collect()
    }

    #[test]
    fn alpaca_joins_instruction_and_input_after_system_and_history() {
        let row = json!({
            "instruction": "Add", "input": "1 2", "output": "3", "system": "Be brief",
            "history": [["Hi", "Hello"]],
        });
        assert_eq!(
            turns(&conversation_of(Format::Alpaca, row)),
            [
                ("system", "Be brief"),
                ("user", "Hi"),
                ("assistant", "Hello"),
                ("user", "Add\n1 2"),
                ("assistant", "3"),
            ]
        );
        let row = json!({"instruction": "Add", "input": "", "output": "3", "history": null});
        assert_eq!(
            turns(&conversation_of(Format::Alpaca, row)),
            [("user", "Add"), ("assistant", "3")]
        );
    }

    #[test]
    fn sharegpt_roles_become_those_of_templates() {
        let row = json!({
            "conversations": [
                {"from": "human", "value": "Weather?"},
                {"from": "function_call", "value": "{\"name\": \"get\", \"arguments\": {\"city\": \"Rome\"}}"},
                {"from": "observation", "value": "sunny"},
                {"from": "gpt", "value": "Sunny."},
            ],
            "tools": "[{\"name\": \"get\"}]",
        });
        let conversation = conversation_of(Format::ShareGpt, row);
        assert_eq!(
            turns(&conversation),
            [
                ("user", "Weather?"),
                ("assistant", "-"),
                ("tool", "sunny"),
                ("assistant", "Sunny."),
            ]
        );
        let call = &conversation.messages[1].extra["tool_calls"][0];
        assert_eq!(call["function"]["arguments"]["city"], "Rome");
        assert_eq!(conversation.tools, Some(vec![json!({"name": "get"})]));
    }

    #[test]
    fn messages_keep_their_other_fields() {
        let row = json!({"messages": [
            {"role": "user", "content": "Hi", "name": "Ada"},
            {"role": "assistant", "tool_calls": []},
        ]});
        let conversation = conversation_of(Format::Messages, row);
        assert_eq!(conversation.messages[0].extra["name"], "Ada");
        assert_eq!(conversation.messages[1].content, Value::Null);
    }

    #[test]
    fn prompt_and_completion_are_strings_or_messages() {
        let row = json!({"prompt": "1+1=", "completion": "2"});
        assert_eq!(
            parse(Format::PromptCompletion, row).unwrap(),
            Sample::PromptCompletion {
                prompt: "1+1=".to_string(),
                completion: "2".to_string()
            }
        );
        let row = json!({
            "prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                       {"role": "user", "content": "c"}],
            "completion": [{"role": "assistant", "content": "d"}],
        });
        let conversation = conversation_of(Format::PromptCompletion, row);
        assert_eq!(conversation.masked, BTreeSet::from([0, 1, 2]));
        assert_eq!(conversation.messages.len(), 4);
        assert!(
            parse(
                Format::PromptCompletion,
                json!({"prompt": "a", "completion": []})
            )
            .is_err()
        );
    }

    #[test]
    fn a_missing_column_is_named_with_what_is_there_and_what_it_looks_like() {
        let row = json!({"conversations": [{"from": "human", "value": "x"}], "id": 7});
        let message = parse(Format::Alpaca, row).unwrap_err().to_string();
        assert_eq!(
            message,
            "row 3: there is no column `instruction`; the columns are: conversations, id; \
             this looks like --format sharegpt"
        );
        let row = json!({"instruction": "x", "response": "y"});
        let message = parse(Format::Alpaca, row).unwrap_err().to_string();
        assert!(message.contains("no column `output`"), "{message}");
        assert!(message.contains("instruction, response"), "{message}");
    }

    #[test]
    fn no_shape_of_a_row_panics() {
        let odd = [
            json!(null),
            json!(1),
            json!("x"),
            json!([]),
            json!({}),
            json!({"instruction": 1, "output": {}}),
            json!({"messages": "x", "conversations": 3}),
            json!({"messages": [1, null]}),
            json!({"messages": [{"role": 1, "content": "x"}]}),
            json!({"messages": [{"role": "user"}]}),
            json!({"conversations": [{"from": "alien", "value": "x"}]}),
            json!({"instruction": "a", "output": "b", "history": [["x"]]}),
            json!({"messages": [{"role": "user", "content": "x"}], "tools": "{"}),
            json!({"prompt": null, "completion": null}),
        ];
        for row in odd {
            for format in Format::ALL {
                let error = parse(format, row.clone()).unwrap_err().to_string();
                assert!(error.starts_with("row 3: "), "{error}");
            }
        }
    }

    #[test]
    fn names_are_read_back() {
        for format in Format::ALL {
            assert_eq!(format.name().parse::<Format>().unwrap(), format);
        }
        assert!(
            "csv"
                .parse::<Format>()
                .unwrap_err()
                .to_string()
                .contains("alpaca, sharegpt")
        );
    }
}
