//! Conversations to text, rendered as transformers renders them.
//!
//! A chat template is a Jinja2 program that a model brings along. transformers runs it in an environment of its own,
//! and models are trained on exactly what comes out, so the same environment is set up here on minijinja, with Python's
//! methods, operators and texts of values.
//!
//! Two habits of transformers 5 are kept: keys of a message whose value is null are dropped before
//! rendering, and a message's reasoning is given under `reasoning_content` and `thinking`, whichever
//! of its names (`reasoning_content`, `thinking`, `reasoning`) the message uses.

mod continuation;
mod dialect;
mod dict_views;
mod environment;
mod filters;
mod message;
mod operators;
mod percent;
mod python_strings;
mod python_text;
mod string_methods;
mod to_json;

use std::fmt;

use chrono::{DateTime, Utc};
use minijinja::{Environment, Value};
use serde_json::Map;

pub use message::Message;

use environment::{environment, explain, fuel, strftime};
use message::from_json;

use crate::{Error, Result};

/// The name under which minijinja speaks of the template in its messages.
const NAME: &str = "chat_template";

/// What `apply_chat_template` of transformers takes beside the messages.
///
/// ```
/// use ft_core::{ChatOptions, ChatTemplate, Message};
/// use serde_json::{Map, json};
///
/// let template = ChatTemplate::new(
///     "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}\
///      {% if add_generation_prompt %}<|assistant|>{% if not enable_thinking %}<think></think>{% endif %}{% endif %}",
/// )?;
/// let mut messages = vec![Message::new("user", "Hi")];
/// let options = ChatOptions {
///     add_generation_prompt: true,
///     arguments: Map::from_iter([("enable_thinking".to_string(), json!(false))]),
///     ..ChatOptions::default()
/// };
/// let text = template.render(&messages, &[], &options)?;
/// assert_eq!(text, "<|user|>Hi</s><|assistant|><think></think>");
///
/// messages.push(Message::new("assistant", "Hello, my"));
/// let options = ChatOptions {
///     continue_final_message: Some("content"),
///     ..ChatOptions::default()
/// };
/// let text = template.render(&messages, &[], &options)?;
/// assert_eq!(text, "<|user|>Hi</s><|assistant|>Hello, my");
/// # Ok::<(), ft_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatOptions<'a> {
    /// JSON schemas of functions that the model may call.
    pub tools: Option<&'a [serde_json::Value]>,
    /// Whether the header that makes the model answer as the assistant ends the text.
    pub add_generation_prompt: bool,
    /// The field of the final message that the model is to go on with: `content`, or `reasoning_content` for
    /// reasoning. The text ends where that field ends. It excludes `add_generation_prompt`.
    pub continue_final_message: Option<&'a str>,
    /// Variables of the template: `enable_thinking`, `date_string`, `documents`, or what else it reads. They win over
    /// special tokens of the same name.
    pub arguments: Map<String, serde_json::Value>,
}

/// Variables that are not arguments, and where they come from.
const RESERVED: [(&str, &str); 3] = [
    ("messages", "the messages"),
    ("tools", "ChatOptions::tools"),
    (
        "add_generation_prompt",
        "ChatOptions::add_generation_prompt",
    ),
];

/// A parsed chat template.
///
/// ```
/// use ft_core::{ChatOptions, ChatTemplate, Message};
///
/// let template = ChatTemplate::new(
///     "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}\
///      {% if add_generation_prompt %}<|assistant|>{% endif %}",
/// )?;
/// let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
/// let text = template.render(&[Message::new("user", " Hi ")], &[("eos_token", "</s>")], &options)?;
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
            .add_template_owned(NAME, dialect::translate(&unix))
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
    /// `special_tokens` are pairs as `("bos_token", "<s>")` that the template may print.
    ///
    /// # Errors
    ///
    /// If there are no messages, if the template raises an exception (roles that do not alternate,
    /// for example), if it uses something that is not there, if it does more work than any conversation
    /// needs, or if the options contradict each other.
    pub fn render(
        &self,
        messages: &[Message],
        special_tokens: &[(&str, &str)],
        options: &ChatOptions<'_>,
    ) -> Result<String> {
        let Some((last, before)) = messages.split_last() else {
            return Err(Error::ChatTemplate(
                "the conversation is empty: give at least one message".to_string(),
            ));
        };
        for (name, source) in RESERVED {
            if options.arguments.contains_key(name) {
                return Err(Error::Settings(format!(
                    "`{name}` cannot be an argument of a chat template: it comes from {source}"
                )));
            }
        }
        let open = match options.continue_final_message {
            Some(_) if options.add_generation_prompt => {
                return Err(Error::Settings(
                    "continue_final_message and add_generation_prompt exclude each other: the first goes on with the \
                     final message, the second begins a new one"
                        .to_string(),
                ));
            }
            Some(field) => Some(continuation::open(last, field, &self.source)?),
            None => None,
        };
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel(messages.len())));
        let last = open.as_ref().map_or(last, |open| &open.message);
        let messages: Value = before.iter().chain([last]).map(Message::to_value).collect();
        let tools = options
            .tools
            .map(|tools| tools.iter().map(from_json).collect::<Value>());
        let mut values: Vec<(&str, Value)> = vec![
            ("messages", messages),
            ("tools", tools.unwrap_or_else(|| Value::from(()))),
            ("documents", Value::from(())),
            (
                "add_generation_prompt",
                Value::from(options.add_generation_prompt),
            ),
        ];
        values.extend(
            special_tokens
                .iter()
                .map(|&(name, token)| (name, Value::from(token))),
        );
        values.extend(
            options
                .arguments
                .iter()
                .map(|(name, value)| (name.as_str(), from_json(value))),
        );
        let rendered = environment
            .get_template(NAME)
            .and_then(|template| template.render(Value::from_pairs(values)))
            .map_err(|error| Error::ChatTemplate(explain(&error)))?;
        match open {
            Some(open) => open.cut(rendered),
            None => Ok(rendered),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, messages: &[Message]) -> Result<String> {
        ChatTemplate::new(template)?.render(
            messages,
            &[("bos_token", "<s>")],
            &ChatOptions::default(),
        )
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
        let text = template
            .render(&hello(), &[], &ChatOptions::default())
            .unwrap();
        assert_eq!(text, "26 Jul 2024 12:00");
        let broken = ChatTemplate::new("{{ strftime_now('%Q') }}").unwrap();
        assert!(
            broken
                .render(&hello(), &[], &ChatOptions::default())
                .is_err()
        );
    }

    #[test]
    fn methods_win_over_keys_of_the_same_name_as_in_python() {
        let message: Message =
            serde_json::from_str(r#"{"role": "user", "content": {"items": 1}}"#).unwrap();
        let template = "{% for k, v in messages[0].content.items() %}{{ k }}={{ v }}{% endfor %}";
        assert_eq!(render(template, &[message]).unwrap(), "items=1");
    }
}
