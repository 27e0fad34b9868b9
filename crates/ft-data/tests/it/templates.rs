//! Built-in templates give the texts of LLaMA-Factory (`golden/templates.py`), and their answers are learnt with their end.

use std::collections::BTreeSet;

use ft_core::{ChatOptions, Message};
use ft_data::{Sample, built_in_template, tokenize};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::tiny;

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<Message>,
    text: String,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../golden/templates.json")).expect("is golden data")
}

const TOKENS: [(&str, &str); 2] = [("bos_token", "<s>"), ("eos_token", "</s>")];

#[test]
fn texts_are_those_of_llama_factory() {
    let cases = cases();
    assert_eq!(cases.len(), 34);
    for case in cases {
        let template = built_in_template(&case.template).expect("is built in");
        let text = template.render(&case.messages, &TOKENS, &ChatOptions::default());
        assert_eq!(text.expect("renders"), case.text, "{}", case.template);
    }
}

/// Without the last answer, and with the generation prompt, a text is the beginning of the whole.
#[test]
fn the_prompt_at_inference_is_the_beginning_of_the_training_text() {
    for case in cases() {
        let template = built_in_template(&case.template).expect("is built in");
        let options = ChatOptions {
            add_generation_prompt: true,
            ..ChatOptions::default()
        };
        let (_, before) = case.messages.split_last().expect("has messages");
        let prompt = template.render(before, &TOKENS, &options).expect("renders");
        let rest = case.text.strip_prefix(&prompt).expect("is the beginning");
        assert!(
            rest.trim_start().starts_with('2'),
            "{}: {rest:?}",
            case.template
        );
    }
}

#[test]
fn answers_and_their_end_are_learnt() {
    // The tiny tokenizer has the special tokens of ChatML's end and of text.
    for name in ["alpaca", "vicuna", "mistral", "zephyr"] {
        let tokenizer = tiny().with_chat_template(built_in_template(name).expect("is built in"));
        let messages = ["user", "assistant", "user", "assistant"];
        let messages = messages.map(|role| Message::new(role, "hello there"));
        let example =
            tokenize(&Sample::from(messages.to_vec()), &tokenizer, 512).expect("tokenizes");
        let eos = i64::from(tokenizer.eos_token_id().expect("has one"));
        assert_eq!(
            example.labels.iter().filter(|label| **label == eos).count(),
            2,
            "{name}"
        );
    }
}

#[test]
fn unknown_names_and_roles_are_errors() {
    let error = built_in_template("lama3")
        .expect_err("is unknown")
        .to_string();
    assert!(
        error.contains("`lama3`") && error.contains("llama3"),
        "{error}"
    );
    let template = built_in_template("qwen").expect("is built in");
    let rendered = template.render(&[Message::new("tool", "x")], &[], &ChatOptions::default());
    assert!(
        rendered
            .expect_err("has no tools")
            .to_string()
            .contains("role tool")
    );
}

/// What a template has no place for is an error. It would be left out, or learnt as `none`.
#[test]
fn nothing_of_a_conversation_is_left_out_in_silence() {
    let user = || Message::new("user", "Weather?");
    let message = |json: Value| -> Message { serde_json::from_value(json).expect("is a message") };
    let tools = [json!({"name": "get"})];
    let call = json!({"role": "assistant", "tool_calls": [{"function": {"name": "get"}}]});
    let empty = json!({"role": "assistant", "content": null});
    let parts = json!({"role": "user", "content": [{"type": "image"}]});
    let refused: [(Vec<Message>, &[Value], &str); 4] = [
        (vec![user(), message(call)], &[], "no place for functions"),
        (vec![user(), message(empty)], &[], "must be a text"),
        (vec![message(parts)], &[], "must be a text"),
        (vec![user()], &tools, "no place for functions"),
    ];
    let names = cases().into_iter().map(|case| case.template);
    let names: BTreeSet<String> = names.collect();
    assert_eq!(names.len(), 17);
    for name in &names {
        let template = built_in_template(name).expect("is built in");
        for (messages, tools, expected) in &refused {
            let options = ChatOptions {
                tools: (!tools.is_empty()).then_some(tools),
                ..ChatOptions::default()
            };
            let error = template.render(messages, &TOKENS, &options);
            let error = error.expect_err("has no place").to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
        // The system's text is there, or it is an error.
        let messages = ["system", "assistant"].map(|role| Message::new(role, format!("of {role}")));
        for messages in [&messages[..], &messages[..1]] {
            let rendered = template.render(messages, &TOKENS, &ChatOptions::default());
            match ["gemma", "llama2", "mistral"].contains(&name.as_str()) {
                true => assert!(rendered.is_err(), "{name}"),
                false => assert!(
                    rendered.is_ok_and(|text| text.contains("of system")),
                    "{name}"
                ),
            }
        }
    }
}
