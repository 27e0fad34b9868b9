//! Conversations to text, rendered as transformers renders them.
//!
//! A chat template is a Jinja2 program that a model brings along. transformers runs it in an
//! environment of its own (`trim_blocks`, `lstrip_blocks`, loop controls, a `tojson` without HTML
//! escapes, `raise_exception`, `strftime_now`, a `{% generation %}` block), and models are trained on
//! exactly what comes out, so the same environment is set up here on minijinja, with Python's
//! methods on strings, lists and dictionaries.
//!
//! Two habits of transformers 5 are kept: keys of a message whose value is null are dropped before
//! rendering, and a message's reasoning is given under `reasoning_content` and `thinking`, whichever
//! of its names (`reasoning_content`, `thinking`, `reasoning`) the message uses. One thing of Python
//! is missing: `%` does not format strings; a template that uses it so is an error, not another text.

mod generation_tag;
mod to_json;

use std::error::Error as _;
use std::fmt;

use chrono::{DateTime, Local, Utc};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::{Error, Result};

/// The name under which minijinja speaks of the template in its messages.
const NAME: &str = "chat_template";

/// Names under which a message may carry its reasoning, the preferred one first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

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

    /// What the template sees.
    fn to_value(&self) -> Value {
        let reasoning = REASONING
            .iter()
            .find_map(|&name| self.extra.get(name).filter(|value| !value.is_null()));
        let mut fields: Vec<(&str, Value)> = Vec::with_capacity(self.extra.len() + 4);
        if let Some(reasoning) = reasoning {
            fields.push(("thinking", from_json(reasoning)));
        }
        fields.push(("role", Value::from(self.role.as_str())));
        if !self.content.is_null() {
            fields.push(("content", from_json(&self.content)));
        }
        for (name, value) in self.extra.iter().filter(|(_, value)| !value.is_null()) {
            fields.push((name, from_json(value)));
        }
        if let Some(reasoning) = reasoning {
            fields.push(("reasoning_content", from_json(reasoning)));
        }
        Value::from_pairs(fields)
    }
}

/// A parsed chat template.
///
/// ```
/// use ft_core::{ChatTemplate, Message};
///
/// let template = ChatTemplate::new(
///     "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}\
///      {% if add_generation_prompt %}<|assistant|>{% endif %}",
/// )?;
/// let text = template.render(&[Message::new("user", " Hi ")], &[("eos_token", "</s>")], None, true)?;
/// assert_eq!(text, "<|user|>Hi</s><|assistant|>");
/// # Ok::<(), ft_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Parses a template.
    ///
    /// # Errors
    ///
    /// If it is not valid Jinja, with the line.
    pub fn new(template: &str) -> Result<Self> {
        let mut environment = environment()?;
        // Jinja2 reads every kind of line end as `\n`.
        let unix = template.replace("\r\n", "\n").replace('\r', "\n");
        environment
            .add_template_owned(NAME, generation_tag::neutralize(&unix))
            .map_err(|error| Error::ChatTemplate(format!("it does not parse: {error}")))?;
        Ok(Self {
            source: template.to_string(),
            environment,
        })
    }

    /// Makes `strftime_now` tell this instant, in UTC, instead of the present.
    ///
    /// Some templates write today's date into the system prompt; with a fixed clock the same data
    /// gives the same tokens tomorrow.
    ///
    /// # Errors
    ///
    /// If the instant is out of the calendar's range.
    pub fn with_clock(mut self, unix_seconds: i64) -> Result<Self> {
        let instant = DateTime::<Utc>::from_timestamp(unix_seconds, 0).ok_or_else(|| {
            Error::Settings(format!(
                "the clock {unix_seconds} is not a date: give seconds since 1970"
            ))
        })?;
        self.environment
            .add_function("strftime_now", move |format: String| {
                strftime(instant.format(&format))
            });
        Ok(self)
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation.
    ///
    /// `special_tokens` are pairs as `("bos_token", "<s>")` that the template may print, `tools` are
    /// JSON schemas of functions, and `add_generation_prompt` asks for the header that makes the
    /// model answer as the assistant.
    ///
    /// # Errors
    ///
    /// If there are no messages, if the template raises an exception (roles that do not alternate,
    /// for example), or if it uses something that is not there.
    pub fn render(
        &self,
        messages: &[Message],
        special_tokens: &[(&str, &str)],
        tools: Option<&[serde_json::Value]>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        if messages.is_empty() {
            return Err(Error::ChatTemplate(
                "the conversation is empty: give at least one message".to_string(),
            ));
        }
        let names = Value::from_pairs(special_tokens.iter().copied());
        let values = context! {
            messages => messages.iter().map(Message::to_value).collect::<Value>(),
            tools => tools.map(|tools| tools.iter().map(from_json).collect::<Value>()),
            documents => (),
            add_generation_prompt,
            ..names
        };
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(values))
            .map_err(|error| Error::ChatTemplate(explain(&error)))
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl PartialEq for ChatTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// The environment in which transformers runs templates.
fn environment() -> Result<Environment<'static>> {
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|error| Error::ChatTemplate(error.to_string()))?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    minijinja_contrib::add_to_environment(&mut environment);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json::to_json);
    environment.add_function("raise_exception", |message: Value| {
        Err::<Value, _>(
            minijinja::Error::new(ErrorKind::InvalidOperation, message.to_string())
                .with_source(Raised(message.to_string())),
        )
    });
    environment.add_function("strftime_now", |format: String| {
        strftime(Local::now().format(&format))
    });
    Ok(environment)
}

/// What a template said through `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// An error of minijinja in words, with the template's own where it has raised one.
fn explain(error: &minijinja::Error) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return format!("the template refuses this conversation: {message}");
        }
        cause = inner.source();
    }
    let mut text = format!("it does not render this conversation: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

/// A date as text; chrono reports an unknown `%` letter only while it writes.
fn strftime(date: impl fmt::Display) -> Result<String, minijinja::Error> {
    use fmt::Write as _;
    let mut text = String::new();
    write!(text, "{date}").map_err(|_| {
        minijinja::Error::new(
            ErrorKind::InvalidOperation,
            "strftime_now: the format has an unknown % directive",
        )
    })?;
    Ok(text)
}

/// JSON as the template sees it.
fn from_json(value: &serde_json::Value) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, messages: &[Message]) -> Result<String> {
        ChatTemplate::new(template)?.render(messages, &[("bos_token", "<s>")], None, false)
    }

    fn hello() -> Vec<Message> {
        vec![Message::new("user", "Hello")]
    }

    #[test]
    fn one_newline_at_the_end_is_dropped_and_block_lines_leave_no_trace() {
        let template = "{{ bos_token }}\n  {% for m in messages %}\n{{ m['content'] }}\n  {% endfor %}\nend\n\n";
        assert_eq!(render(template, &hello()).unwrap(), "<s>\nHello\nend\n");
    }

    #[test]
    fn windows_line_ends_are_read_as_newlines() {
        let template = "{% if true %}\r\na\r\n{% endif %}\r\nb\r\n";
        assert_eq!(render(template, &hello()).unwrap(), "a\nb");
    }

    #[test]
    fn generation_blocks_print_their_body() {
        let template = "{% for m in messages %}[{%- generation -%}\n {{ m.content }} {% endgeneration %}\n]{% endfor %}";
        assert_eq!(render(template, &hello()).unwrap(), "[Hello ]");
    }

    #[test]
    fn an_exception_of_the_template_is_told_in_its_own_words() {
        let error = render("{{ raise_exception('roles must alternate') }}", &hello()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "chat template: the template refuses this conversation: roles must alternate"
        );
    }

    #[test]
    fn a_syntax_error_names_the_line() {
        let error = ChatTemplate::new("a\n{% if %}").unwrap_err().to_string();
        assert!(error.contains("chat_template:2"), "{error}");
    }

    #[test]
    fn an_empty_conversation_is_an_error() {
        assert!(render("x", &[]).is_err());
    }

    #[test]
    fn null_fields_are_dropped_and_reasoning_has_both_names() {
        let message: Message = serde_json::from_str(
            r#"{"role": "assistant", "content": null, "tool_calls": null, "reasoning": "hm"}"#,
        )
        .unwrap();
        let template = "{% for m in messages %}{{ m.keys() | list }}{{ m.thinking }}{{ m.reasoning_content }}{% endfor %}";
        assert_eq!(
            render(template, &[message]).unwrap(),
            "['thinking', 'role', 'reasoning', 'reasoning_content']hmhm"
        );
    }

    #[test]
    fn the_clock_can_be_fixed() {
        let template = ChatTemplate::new("{{ strftime_now('%d %b %Y %H:%M') }}")
            .unwrap()
            .with_clock(1_721_995_200)
            .unwrap();
        let text = template.render(&hello(), &[], None, false).unwrap();
        assert_eq!(text, "26 Jul 2024 12:00");
        let broken = ChatTemplate::new("{{ strftime_now('%Q') }}").unwrap();
        assert!(broken.render(&hello(), &[], None, false).is_err());
    }

    #[test]
    fn methods_win_over_keys_of_the_same_name_as_in_python() {
        let message: Message =
            serde_json::from_str(r#"{"role": "user", "content": {"items": 1}}"#).unwrap();
        let template = "{% for k, v in messages[0].content.items() %}{{ k }}={{ v }}{% endfor %}";
        assert_eq!(render(template, &[message]).unwrap(), "items=1");
    }
}
