//! A conversation whose final message is left open, so that the model goes on with it.
//!
//! As in transformers: a marker is appended to the message, the conversation is rendered, and everything from the
//! marker on is cut off, whatever the template puts there.

use serde_json::Value;

use super::Message;
use super::message::REASONING;
use super::python_strings::strip;
use crate::{Error, Result};

const MARKER: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// A final message with the marker, and its text without.
pub(super) struct Open {
    pub(super) message: Message,
    text: String,
}

/// Marks `field` of a message, in a template that is to read it.
pub(super) fn open(message: &Message, field: &str, template: &str) -> Result<Open> {
    let is_reasoning = REASONING.contains(&field);
    // The template sees reasoning under `reasoning_content` and `thinking` too, whatever its name in the message.
    let given = match field {
        "reasoning_content" => message.reasoning(),
        "thinking" => message.field(field).or_else(|| message.reasoning()),
        _ => message.field(field),
    };
    let Some(given) = given.cloned() else {
        return Err(refused(format!("the final message has no `{field}`")));
    };
    let mut marked = message.clone();
    if is_reasoning && let Some(reasoning) = message.reasoning().cloned() {
        marked
            .extra
            .insert("reasoning_content".to_string(), reasoning.clone());
        marked.extra.entry("thinking").or_insert(reasoning);
    }
    let fields: Vec<&str> = match is_reasoning {
        true => REASONING
            .into_iter()
            .filter(|name| marked.field(name) == Some(&given))
            .collect(),
        false => vec![field],
    };
    if !fields.iter().any(|field| template.contains(field)) {
        return Err(refused(format!("the template does not read `{field}`")));
    }
    let mut text = None;
    for name in fields {
        let value = match name {
            "content" => Some(&mut marked.content),
            name => marked.extra.get_mut(name),
        };
        text = value.and_then(mark);
    }
    let text =
        text.ok_or_else(|| refused(format!("`{field}` of the final message has no text")))?;
    Ok(Open {
        message: marked,
        text,
    })
}

/// Appends the marker to a text, or to the last text of content parts, and returns the text as it was.
fn mark(value: &mut Value) -> Option<String> {
    let text = match value {
        Value::Array(parts) => parts
            .iter_mut()
            .rev()
            .find_map(|part| part.get_mut("text"))?,
        value => value,
    };
    let before = text.as_str()?.to_string();
    *text = Value::String(before.clone() + MARKER);
    Some(before)
}

impl Open {
    /// Cuts a rendered conversation where the marked message ends.
    pub(super) fn cut(&self, mut rendered: String) -> Result<String> {
        let marker = MARKER.trim_end();
        let Some(at) = rendered
            .rfind(marker)
            .filter(|_| rendered.contains(strip(&self.text, None, true, true)))
        else {
            return Err(refused(
                "the final message does not appear in what the template renders; some templates leave parts of a \
                 message out",
            ));
        };
        let kept = rendered[at..].starts_with(MARKER);
        rendered.truncate(at);
        if !kept {
            // The template has trimmed the message, so its end is trimmed here too.
            rendered.truncate(strip(&rendered, None, false, true).len());
        }
        Ok(rendered)
    }
}

fn refused(reason: impl Into<String>) -> Error {
    Error::ChatTemplate(format!(
        "the final message cannot be continued: {}",
        reason.into()
    ))
}
