//! The columns of a row. Errors name the missing column, the columns that exist, and a fix.

use serde_json::{Map, Value};

use crate::{Error, Format, Result};

/// A row of a file, or one message of a row.
pub(crate) struct Row<'a> {
    fields: &'a Map<String, Value>,
    number: usize,
    /// The format that the row should have, if the caller knows several.
    format: Option<Format>,
    /// For a message: the column that holds it and its number, counted from 1.
    message: Option<(&'static str, usize)>,
}

impl<'a> Row<'a> {
    pub(crate) fn new(row: &'a Value, number: usize, format: Option<Format>) -> Result<Self> {
        match row {
            Value::Object(fields) => Ok(Self {
                fields,
                number,
                format,
                message: None,
            }),
            other => Err(Error::Row {
                row: number,
                reason: format!(
                    "it is {}, but a row must be an object with columns",
                    kind(other)
                ),
            }),
        }
    }

    /// An error in this row.
    pub(crate) fn error(&self, reason: String) -> Error {
        Error::Row {
            row: self.number,
            reason: match self.message {
                None => reason,
                Some((column, index)) => format!("message {index} of `{column}`: {reason}"),
            },
        }
    }

    /// The error for a missing column.
    pub(crate) fn missing(&self, name: &str) -> Error {
        let names: Vec<&str> = self.fields.keys().map(String::as_str).collect();
        let what = match self.message {
            None => "column",
            Some(_) => "field",
        };
        let there = if names.is_empty() {
            "none".to_string()
        } else {
            names.join(", ")
        };
        let guess = Format::guess(self.fields).filter(|&guess| Some(guess) != self.format);
        let fix = match (self.format, guess) {
            (Some(_), Some(guess)) => format!("this looks like --format {guess}"),
            _ if self.message.is_some() => self.message_fix(),
            (Some(format), None) => {
                format!("rename the column, or choose another --format than {format}")
            }
            (None, _) => "rename the column".to_string(),
        };
        self.error(format!(
            "there is no {what} `{name}`; the {what}s are: {there}; {fix}"
        ))
    }

    fn message_fix(&self) -> String {
        let other = match self.format {
            Some(Format::ShareGpt) if self.has("role") => Some(Format::Messages),
            Some(Format::Messages | Format::PromptCompletion) if self.has("from") => {
                Some(Format::ShareGpt)
            }
            _ => None,
        };
        match other {
            Some(format) => format!("this looks like --format {format}"),
            None => "add it, or remove the message".to_string(),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// The first of these columns that the row has.
    pub(crate) fn first_of(&self, names: &[&'static str]) -> Result<&'static str> {
        let found = names.iter().find(|name| self.has(name));
        found.copied().ok_or_else(|| self.missing(names[0]))
    }

    pub(crate) fn to_value(&self) -> Value {
        Value::Object(self.fields.clone())
    }

    pub(crate) fn value(&self, name: &str) -> Result<&'a Value> {
        self.fields.get(name).ok_or_else(|| self.missing(name))
    }

    pub(crate) fn text(&self, name: &str) -> Result<&'a str> {
        let value = self.value(name)?;
        value
            .as_str()
            .ok_or_else(|| self.wrong_kind(name, value, "text"))
    }

    /// A number that may be missing or null, then 0.
    pub(crate) fn number_or_zero(&self, name: &str) -> Result<f32> {
        let Some(value) = self.optional(name) else {
            return Ok(0.0);
        };
        let number = value.as_f64().map(|number| number as f32);
        (number.filter(|number| number.is_finite())).ok_or_else(|| {
            self.wrong_kind(
                name,
                value,
                "a number that `f32` can hold; rename the column if it is of something else",
            )
        })
    }

    /// A column that may be missing or null.
    pub(crate) fn optional(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn optional_text(&self, name: &str) -> Result<Option<&'a str>> {
        self.optional(name).map(|_| self.text(name)).transpose()
    }

    pub(crate) fn optional_list(&self, name: &str) -> Result<&'a [Value]> {
        match self.optional(name) {
            None => Ok(&[]),
            Some(Value::Array(values)) => Ok(values),
            Some(other) => Err(self.wrong_kind(name, other, "a list")),
        }
    }

    /// The messages in the first column of `names` that exists. The error for a message that is not an
    /// object names the `fields` that a message must have.
    pub(crate) fn turns(
        &self,
        names: [&'static str; 2],
        fields: [&str; 2],
    ) -> Result<Vec<Row<'a>>> {
        let name = names
            .into_iter()
            .find(|name| self.has(name))
            .ok_or_else(|| self.missing(names[0]))?;
        let Value::Array(turns) = self.value(name)? else {
            return Err(self.wrong_kind(name, self.value(name)?, "a list of messages"));
        };
        if turns.is_empty() {
            return Err(self.error(format!("`{name}` is empty: remove the row")));
        }
        turns
            .iter()
            .enumerate()
            .map(|(index, turn)| match turn {
                Value::Object(fields) => Ok(Row {
                    fields,
                    number: self.number,
                    format: self.format,
                    message: Some((name, index + 1)),
                }),
                other => Err(self.error(format!(
                    "message {} of `{name}` is {}, but must be an object with `{}` and `{}`",
                    index + 1,
                    kind(other),
                    fields[0],
                    fields[1],
                ))),
            })
            .collect()
    }

    /// The message in the column of this name.
    pub(crate) fn message(&self, name: &'static str) -> Result<Row<'a>> {
        match self.value(name)? {
            Value::Object(fields) => Ok(Row {
                fields,
                number: self.number,
                format: self.format,
                message: Some((name, 1)),
            }),
            other => Err(self.wrong_kind(name, other, "a message")),
        }
    }

    /// The `tools` column: a list, or a list written as JSON text.
    pub(crate) fn tools(&self) -> Result<Option<Vec<Value>>> {
        let tools = match self.optional("tools") {
            None => return Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
            Some(Value::String(text)) => serde_json::from_str(text).map_err(|error| {
                self.error(format!(
                    "`tools` is text, but not a JSON list of functions: {error}"
                ))
            })?,
            Some(value) => value.clone(),
        };
        match tools {
            Value::Array(tools) if tools.is_empty() => Ok(None),
            Value::Array(tools) => Ok(Some(tools)),
            other => Err(self.wrong_kind("tools", &other, "a list of functions")),
        }
    }

    fn wrong_kind(&self, name: &str, value: &Value, wanted: &str) -> Error {
        self.error(format!("`{name}` is {}, but must be {wanted}", kind(value)))
    }
}

/// The kind of a JSON value, for error messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
