//! A format whose columns, fields and roles a dataset calls otherwise.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::columns::Row;
use crate::{Error, Format, Result, Sample};

/// A [`Format`], and what a dataset calls its columns. A format alone converts into it.
///
/// ```
/// use ft_data::{Format, RowFormat, Sample};
/// use serde_json::json;
///
/// let format = RowFormat::new(Format::Alpaca).with_columns("instruction=question,output=answer")?;
/// let row = json!({"question": "2 + 3?", "answer": "5", "id": 7});
/// let Sample::Conversation(sample) = format.parse(&row, 1)? else { unreachable!() };
/// assert_eq!(sample.messages[1].text(), Some("5"));
/// # Ok::<(), ft_data::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFormat {
    format: Format,
    /// Names of the format, and those of the dataset.
    columns: BTreeMap<String, String>,
    /// Whether columns that are not named are left out.
    only: bool,
    /// Fields of a message: names of the format, and those of the dataset.
    fields: BTreeMap<String, String>,
    /// Roles: names of the dataset, and those of the format.
    roles: BTreeMap<String, String>,
    last_turn: bool,
}

impl From<Format> for RowFormat {
    fn from(format: Format) -> Self {
        Self::new(format)
    }
}

impl RowFormat {
    /// A format with its own names.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            columns: BTreeMap::new(),
            only: false,
            fields: BTreeMap::new(),
            roles: BTreeMap::new(),
            last_turn: false,
        }
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Columns by the names of the dataset: `output=answer,instruction=question`, the format's name first.
    ///
    /// # Errors
    ///
    /// If the text has another form, or the format has no such column.
    pub fn with_columns(mut self, text: &str) -> Result<Self> {
        for pair in text.split(',') {
            let (own, theirs) = pair.split_once('=').ok_or_else(|| {
                Error::Settings(format!(
                    "`{pair}` names no column: write OURS=THEIRS, as output=answer"
                ))
            })?;
            self = self.with_column(own.trim(), theirs.trim())?;
        }
        Ok(self)
    }

    /// The column `own` of the format, which the dataset calls `theirs`.
    ///
    /// # Errors
    ///
    /// If the format has no such column.
    pub fn with_column(mut self, own: &str, theirs: &str) -> Result<Self> {
        let known = columns(self.format);
        if !known.contains(&own) {
            return Err(Error::Settings(format!(
                "the format {} has no column `{own}`: it has {}",
                self.format,
                known.join(", ")
            )));
        }
        self.columns.insert(own.to_string(), theirs.to_string());
        Ok(self)
    }

    /// Without the columns that were not named, as LLaMA-Factory reads a dataset whose columns are named.
    #[must_use]
    pub fn with_named_columns_only(mut self) -> Self {
        self.only = true;
        self
    }

    /// The field `own` of a message, which the dataset calls `theirs`: `from` and `value`, or `role` and `content`.
    #[must_use]
    pub fn with_field(mut self, own: &str, theirs: &str) -> Self {
        self.fields.insert(own.to_string(), theirs.to_string());
        self
    }

    /// The role `own` of the format, which the dataset calls `theirs`.
    #[must_use]
    pub fn with_role(mut self, own: &str, theirs: &str) -> Self {
        self.roles.insert(theirs.to_string(), own.to_string());
        self
    }

    /// Only the last answer of a conversation is learnt.
    #[must_use]
    pub fn with_last_turn_only(mut self, last_turn: bool) -> Self {
        self.last_turn = last_turn;
        self
    }

    /// Reads one row. `row_number` counts from 1 and appears in error messages.
    ///
    /// # Errors
    ///
    /// As [`Format::parse`].
    pub fn parse(&self, row: &Value, row_number: usize) -> Result<Sample> {
        let row = self.renamed(row, row_number)?;
        let mut sample = self.format.parse(&row, row_number)?;
        if let (true, Sample::Conversation(conversation)) = (self.last_turn, &mut sample) {
            let roles = conversation.messages.iter().map(|one| one.role.as_str());
            let answers = roles.enumerate().filter(|(_, role)| *role == "assistant");
            let mut answers: Vec<usize> = answers.map(|(place, _)| place).collect();
            answers.pop();
            conversation.masked.extend(answers);
        }
        Ok(sample)
    }

    /// The row with the names of the format.
    fn renamed<'a>(&self, row: &'a Value, number: usize) -> Result<Cow<'a, Value>> {
        if self.columns.is_empty() && self.fields.is_empty() && self.roles.is_empty() {
            return Ok(Cow::Borrowed(row));
        }
        let Value::Object(there) = row else {
            // The same error as without names.
            Row::new(row, number, Some(self.format))?;
            return Ok(Cow::Borrowed(row));
        };
        let mut renamed = match self.only {
            true => Map::new(),
            false => there.clone(),
        };
        for theirs in self.columns.values() {
            renamed.remove(theirs);
        }
        for (own, theirs) in &self.columns {
            match there.get(theirs) {
                Some(value) => {
                    renamed.insert(own.clone(), value.clone());
                }
                None if required(self.format).contains(&own.as_str()) => {
                    let names: Vec<&str> = there.keys().map(String::as_str).collect();
                    return Err(Error::Row {
                        row: number,
                        reason: format!(
                            "there is no column `{theirs}`, which is named for `{own}`; the columns are: {}",
                            names.join(", ")
                        ),
                    });
                }
                None => {}
            }
        }
        for turns in ["messages", "conversations", "prompt", "completion"] {
            if let Some(Value::Array(turns)) = renamed.get_mut(turns) {
                turns.iter_mut().for_each(|turn| self.rename_turn(turn));
            }
        }
        Ok(Cow::Owned(Value::Object(renamed)))
    }

    fn rename_turn(&self, turn: &mut Value) {
        let Value::Object(turn) = turn else { return };
        for (own, theirs) in &self.fields {
            if let Some(value) = turn.remove(theirs) {
                turn.insert(own.clone(), value);
            }
        }
        for name in ["from", "role"] {
            if let Some(Value::String(role)) = turn.get_mut(name)
                && let Some(own) = self.roles.get(role.as_str())
            {
                role.clone_from(own);
            }
        }
    }
}

impl FromStr for RowFormat {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        name.parse::<Format>().map(Self::new)
    }
}

/// The columns that a format knows.
fn columns(format: Format) -> &'static [&'static str] {
    match format {
        Format::Alpaca => &["instruction", "input", "output", "system", "history"],
        Format::ShareGpt => &["conversations", "system", "tools"],
        Format::Messages => &["messages", "system", "tools"],
        Format::PromptCompletion => &["prompt", "completion", "system", "tools"],
        Format::Text => &["text"],
    }
}

/// Those of them that a row must have.
fn required(format: Format) -> &'static [&'static str] {
    match format {
        Format::Alpaca => &["instruction", "output"],
        Format::ShareGpt => &["conversations"],
        Format::Messages => &["messages"],
        Format::PromptCompletion => &["prompt", "completion"],
        Format::Text => &["text"],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Conversation;

    fn turns(sample: Sample) -> Vec<(String, String)> {
        let Sample::Conversation(Conversation { messages, .. }) = sample else {
            panic!("{sample:?} is no conversation");
        };
        let text = |text: Option<&str>| text.unwrap_or("-").to_string();
        let all = messages.iter();
        all.map(|one| (one.role.clone(), text(one.text())))
            .collect()
    }

    #[test]
    fn columns_fields_and_roles_are_renamed() {
        let format = RowFormat::new(Format::Alpaca)
            .with_columns("instruction = context, output=response")
            .expect("are columns");
        let row = json!({"context": "a", "response": "b", "input": "c"});
        let sample = format.parse(&row, 1).expect("is a row");
        assert_eq!(turns(sample)[0].1, "a\nc");
        let only = format.clone().with_named_columns_only();
        assert_eq!(turns(only.parse(&row, 1).expect("is a row"))[0].1, "a");

        let format = RowFormat::new(Format::ShareGpt)
            .with_column("conversations", "dialog")
            .expect("is a column")
            .with_field("from", "speaker")
            .with_field("value", "text")
            .with_role("human", "USER")
            .with_role("gpt", "BOT");
        let row =
            json!({"dialog": [{"speaker": "USER", "text": "x"}, {"speaker": "BOT", "text": "y"}]});
        let expected = [("user", "x"), ("assistant", "y")];
        let expected = expected.map(|(role, text)| (role.to_string(), text.to_string()));
        assert_eq!(turns(format.parse(&row, 1).expect("is a row")), expected);
    }

    #[test]
    fn names_that_are_wrong_are_named() {
        let error = RowFormat::new(Format::Text).with_columns("body=text");
        assert!(
            error
                .expect_err("is unknown")
                .to_string()
                .contains("no column `body`")
        );
        let format = RowFormat::new(Format::Text)
            .with_columns("text=body")
            .expect("is a column");
        let error = format
            .parse(&json!({"title": 1}), 4)
            .expect_err("is missing");
        let expected =
            "row 4: there is no column `body`, which is named for `text`; the columns are: title";
        assert_eq!(error.to_string(), expected);
        assert!(format.parse(&json!(7), 4).is_err());
    }

    #[test]
    fn of_the_answers_the_last_may_be_learnt_alone() {
        let turn = |role: &str| json!({"role": role, "content": "x"});
        let roles = ["user", "assistant", "user", "assistant"];
        let row = json!({"messages": roles.map(turn)});
        let format = RowFormat::new(Format::Messages).with_last_turn_only(true);
        let Sample::Conversation(sample) = format.parse(&row, 1).expect("is a row") else {
            panic!("is a conversation");
        };
        let learnt: Vec<usize> = (0..4).filter(|place| sample.learns(*place)).collect();
        assert_eq!(learnt, [3]);
    }
}
