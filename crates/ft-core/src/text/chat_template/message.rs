//! One message of a conversation, and what a template sees of it.

use minijinja::Value;
use serde::{Deserialize, Serialize};
use serde_json::Map;

/// Names under which a message may carry its reasoning, the preferred one first.
pub(super) const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// One message of a conversation.
///
/// ```
/// let message: ft_core::Message =
///     serde_json::from_str(r#"{"role": "user", "content": "Hello", "name": "Ada"}"#).unwrap();
/// assert_eq!(message.text(), Some("Hello"));
/// assert_eq!(message.extra["name"], "Ada");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`, or what the template knows beside these.
    pub role: String,
    /// What is said: a string, a list of content parts, or null next to `tool_calls`.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub content: serde_json::Value,
    /// Everything else that the template may ask for: `tool_calls`, `name`, `tool_call_id`, ...
    #[serde(flatten)]
    pub extra: Map<String, serde_json::Value>,
}

impl Message {
    /// A message that consists of text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: serde_json::Value::String(content.into()),
            extra: Map::new(),
        }
    }

    /// The content if it is plain text.
    pub fn text(&self) -> Option<&str> {
        self.content.as_str()
    }

    /// A field by its name in JSON; one whose value is null does not count.
    pub(super) fn field(&self, name: &str) -> Option<&serde_json::Value> {
        let value = match name {
            "content" => &self.content,
            name => self.extra.get(name)?,
        };
        (!value.is_null()).then_some(value)
    }

    /// The reasoning before the answer, under whichever of its names: `reasoning_content`, `thinking` or `reasoning`.
    pub fn reasoning(&self) -> Option<&serde_json::Value> {
        REASONING.iter().find_map(|name| self.field(name))
    }

    /// What the template sees.
    pub(super) fn to_value(&self) -> Value {
        let reasoning = self.reasoning().map(from_json);
        let mut fields: Vec<(&str, Value)> = Vec::with_capacity(self.extra.len() + 4);
        if let Some(reasoning) = &reasoning {
            fields.push(("thinking", reasoning.clone()));
        }
        fields.push(("role", Value::from(self.role.as_str())));
        if !self.content.is_null() {
            fields.push(("content", from_json(&self.content)));
        }
        for (name, value) in self.extra.iter().filter(|(_, value)| !value.is_null()) {
            fields.push((name, from_json(value)));
        }
        if let Some(reasoning) = reasoning {
            fields.push(("reasoning_content", reasoning));
        }
        Value::from_pairs(fields)
    }
}

/// JSON as the template sees it.
pub(super) fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => {
            if let Some(value) = number.as_i64() {
                Value::from(value)
            } else if let Some(value) = number.as_u64() {
                Value::from(value)
            } else {
                Value::from(number.as_f64().unwrap_or(f64::NAN))
            }
        }
        serde_json::Value::String(value) => Value::from(value.as_str()),
        serde_json::Value::Array(values) => values.iter().map(from_json).collect(),
        serde_json::Value::Object(fields) => Value::from_pairs(
            fields
                .iter()
                .map(|(name, value)| (name.as_str(), from_json(value))),
        ),
    }
}
