//! Chat templates render as transformers renders them (golden/chat_templates.py).

use std::collections::BTreeMap;

use ft_core::{ChatTemplate, Error, Message};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    clock: i64,
    special_tokens: BTreeMap<String, String>,
    tools: Vec<serde_json::Value>,
    templates: BTreeMap<String, String>,
    chats: BTreeMap<String, Vec<Message>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    template: String,
    chat: String,
    tools: bool,
    add_generation_prompt: bool,
    text: Option<String>,
    error: Option<String>,
}

#[test]
fn templates_render_as_in_transformers() {
    let golden: Golden =
        serde_json::from_str(include_str!("../golden/chat_templates.json")).unwrap();
    let templates: BTreeMap<_, _> = golden
        .templates
        .iter()
        .map(|(name, source)| {
            let template = ChatTemplate::new(source).unwrap();
            (name, template.with_clock(golden.clock).unwrap())
        })
        .collect();
    let special: Vec<(&str, &str)> = golden
        .special_tokens
        .iter()
        .map(|(name, token)| (name.as_str(), token.as_str()))
        .collect();
    let mut wrong = Vec::new();
    for case in &golden.cases {
        let rendered = templates[&case.template].render(
            &golden.chats[&case.chat],
            &special,
            case.tools.then_some(&golden.tools),
            case.add_generation_prompt,
        );
        match (&case.text, &case.error, rendered) {
            (Some(expected), _, Ok(text)) if *expected == text => {}
            (None, Some(expected), Err(Error::ChatTemplate(message))) => {
                // What a template raises is told word for word; other errors are minijinja's.
                if let Some(raised) = expected.strip_prefix("TemplateError: ") {
                    assert!(message.ends_with(raised), "{}: {message}", case.name);
                }
            }
            (expected, error, rendered) => wrong.push(format!(
                "{}\n  expected {expected:?} {error:?}\n  rendered {rendered:?}",
                case.name
            )),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(golden.cases.len() > 100);
}
