//! Where in a rendered conversation the assistant's responses are.
//!
//! The response of message `i` begins where the rendering of the messages before it ends, with the
//! template's generation prompt: exactly the text that the model is given at inference. It ends where
//! the rendering of the messages up to and with it ends. Templates that render a turn otherwise once
//! another follows (Qwen3 takes the reasoning out of earlier turns) only allow the beginning to be
//! found so; the end is then the first token of the kind that closes the turn.
//!
//! Some generation prompts end in what no rendered turn has: that of DeepSeek-R1-Distill ends in `<think>`, and the
//! turns are rendered without reasoning. There the response begins where the message's content does, which shows when
//! another content is rendered in its place. The part of the prompt that is missing is reported, and so is reasoning
//! that the template leaves out.

use ft_core::{Message, Tokenizer};
use serde_json::Value;

use crate::sample::check_roles;
use crate::tokenize::{byte_ranges, closing_token};
use crate::{Conversation, Error, Result};

/// A response within the rendered text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its first byte.
    pub(crate) start: usize,
    /// Where to look for its last token.
    pub(crate) end: End,
    /// The end of the generation prompt that the rendered conversation does not have before the response.
    pub(crate) missing_prompt: Option<String>,
    /// Whether the message has reasoning that the template does not render.
    pub(crate) reasoning_left_out: bool,
}

/// Stands for a message's content to find its place; no template has a reason to look into it.
const PROBE: &str = "contentprobe";

/// How the end of a response is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The turn ends at this byte, closed by its last special token.
    At(usize),
    /// The turn ends with the first of these tokens.
    AtFirst(u32),
    /// The turn is masked: nothing of it is learnt, but the turn before it ends before it.
    Masked,
}

/// The rendered conversation and its responses, in order.
pub(crate) fn response_spans(
    conversation: &Conversation,
    tokenizer: &Tokenizer,
) -> Result<(String, Vec<Span>)> {
    let Conversation {
        messages, tools, ..
    } = conversation;
    check_roles(&conversation.messages)?;
    check_tools(conversation, tokenizer)?;
    let render = |messages: &[Message], prompt: bool| {
        tokenizer
            .apply_chat_template(messages, tools.as_deref(), prompt)
            .map_err(|error| with_fix(error, tokenizer))
    };
    let text = render(messages, false)?;
    // Where the response begins, and what is missing of its generation prompt.
    let start_of = |index: usize| -> Result<(usize, String)> {
        let prompt = render(&messages[..index], true)?;
        if text.starts_with(&prompt) {
            return Ok((prompt.len(), String::new()));
        }
        let history = render(&messages[..index], false)?;
        let probed = render(&with_probe(messages, index), false).ok();
        let start = probed.and_then(|probed| content_start(&text, &prompt, &history, &probed));
        let start = start.ok_or_else(|| no_prefix(&text, &prompt, index))?;
        Ok((start, prompt[start..].to_string()))
    };
    let mut spans = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        if message.role != "assistant" {
            continue;
        }
        if !conversation.learns(index) {
            if !spans.is_empty()
                && let Ok((start, _)) = start_of(index)
            {
                spans.push(Span {
                    start,
                    end: End::Masked,
                    missing_prompt: None,
                    reasoning_left_out: false,
                });
            }
            continue;
        }
        if index == 0 {
            return Err(Error::Sample(
                "the conversation begins with the assistant, so nothing prompts its first message: \
                 remove that message or put a user's message before it"
                    .to_string(),
            ));
        }
        let (start, missing) = start_of(index)?;
        let end = if index + 1 == messages.len() {
            End::At(text.len())
        } else {
            let turn = render(&messages[..=index], false)?;
            if turn.len() >= start && text.starts_with(&turn) {
                End::At(turn.len())
            } else {
                End::AtFirst(
                    closing_id(&turn, start, tokenizer)?
                        .ok_or_else(|| no_prefix(&text, &turn, index + 1))?,
                )
            }
        };
        let response = match end {
            End::At(end) => &text[start..end],
            _ => &text[start..],
        };
        spans.push(Span {
            start,
            end,
            missing_prompt: Some(missing).filter(|missing| !missing.is_empty()),
            reasoning_left_out: reasoning(message).is_some_and(|text| !response.contains(text)),
        });
    }
    Ok((text, spans))
}

/// The conversation with another content, and no reasoning, in the message at `index`.
fn with_probe(messages: &[Message], index: usize) -> Vec<Message> {
    let mut probed = messages.to_vec();
    probed[index].content = PROBE.into();
    for name in ["reasoning_content", "thinking", "reasoning"] {
        probed[index].extra.remove(name);
    }
    probed
}

/// Where a response begins whose generation prompt is not in `text` as a whole: where the probe stands in the
/// conversation that has it as content. The template must put a header between the history and the response, and the
/// generation prompt must begin with it.
fn content_start(text: &str, prompt: &str, history: &str, probed: &str) -> Option<usize> {
    let before = &probed[..probed.find(PROBE)?];
    let has_header = before.len() > history.len() && before.starts_with(history);
    (has_header && text.starts_with(before) && prompt.starts_with(before)).then_some(before.len())
}

/// The reasoning of a message: a field of its own, or what is before `</think>` in its content.
fn reasoning(message: &Message) -> Option<&str> {
    let of_content = || {
        let (before, _) = message.text()?.rsplit_once("</think>")?;
        Some(
            before
                .split_once("<think>")
                .map_or(before, |(_, reasoning)| reasoning),
        )
    };
    let reasoning = message
        .reasoning()
        .and_then(Value::as_str)
        .or_else(of_content)?;
    Some(reasoning.trim()).filter(|reasoning| !reasoning.is_empty())
}

/// The special token that closes the last turn of a rendered conversation, which begins at `start`: the
/// first of those at its end, since a template may close the whole conversation after the turn.
fn closing_id(text: &str, start: usize, tokenizer: &Tokenizer) -> Result<Option<u32>> {
    let (ids, offsets) = tokenizer.encode_with_offsets(text, false)?;
    let ranges = byte_ranges(&offsets);
    let Some(mut first) = closing_token(text, &ids, &ranges, &(0..text.len()), tokenizer) else {
        return Ok(None);
    };
    let special = |i: &usize| tokenizer.is_special(ids[*i]) && ranges[*i].start >= start;
    while let Some(before) = (0..first).rev().find(special)
        && text[ranges[before].end..ranges[first].start]
            .trim()
            .is_empty()
    {
        first = before;
    }
    Ok(Some(ids[first]))
}

/// A template that knows nothing of tools would leave them out without a word.
fn check_tools(conversation: &Conversation, tokenizer: &Tokenizer) -> Result<()> {
    let template = match conversation.tools {
        Some(_) => tokenizer.tool_template(),
        None => tokenizer.chat_template(),
    };
    let Some(template) = template else {
        return Ok(());
    };
    let knows = |name: &str| template.source().contains(name);
    if conversation.tools.is_some() && !knows("tools") {
        return Err(Error::Sample(
            "the row has tools, which the chat template would leave out: use a template that renders `tools`, \
             or remove the column"
                .to_string(),
        ));
    }
    let calls = |message: &Message| {
        let calls = message.extra.get("tool_calls").and_then(Value::as_array);
        calls.is_some_and(|calls| !calls.is_empty())
    };
    match conversation.messages.iter().position(calls) {
        Some(index) if !knows("tool_calls") => Err(Error::Sample(format!(
            "message {} calls tools, which the chat template would leave out: use a template that renders \
             `tool_calls`, or write the call into the message's content",
            index + 1
        ))),
        _ => Ok(()),
    }
}

fn with_fix(error: ft_core::Error, tokenizer: &Tokenizer) -> Error {
    if tokenizer.chat_template().is_some() {
        return error.into();
    }
    Error::Sample(format!(
        "{error}; or give the data as prompt and completion (--format prompt_completion), which needs no \
         chat template"
    ))
}

fn no_prefix(text: &str, prefix: &str, messages: usize) -> Error {
    let common = text
        .char_indices()
        .zip(prefix.chars())
        .find(|((_, a), b)| a != b)
        .map_or(text.len().min(prefix.len()), |((at, _), _)| at);
    let excerpt =
        |text: &str| -> String { text.get(common..).unwrap_or("").chars().take(30).collect() };
    Error::Sample(format!(
        "the chat template renders the first {messages} message(s) alone otherwise than within the whole \
         conversation (alone: {:?}, within: {:?}, after {common} equal bytes), so the response cannot be \
         separated from its prompt: use a template that only appends, or end each row with its last response",
        excerpt(prefix),
        excerpt(text),
    ))
}
