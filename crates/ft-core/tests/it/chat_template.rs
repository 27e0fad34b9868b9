//! Chat templates render as transformers renders them (golden/chat_templates.py, and
//! tests/reference/chat_templates.py for the templates of other packages).

use std::collections::BTreeMap;

use ft_core::{ChatOptions, ChatTemplate, Error, Message};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Golden {
    clock: i64,
    special_tokens: BTreeMap<String, String>,
    tools: Vec<Value>,
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
    continue_final_message: Option<String>,
    #[serde(default)]
    arguments: Map<String, Value>,
    text: Option<String>,
    error: Option<String>,
}

/// Renders all cases and returns those that came out otherwise.
fn differences(golden: &Golden) -> Vec<String> {
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
        let options = ChatOptions {
            tools: case.tools.then_some(&golden.tools),
            add_generation_prompt: case.add_generation_prompt,
            continue_final_message: case.continue_final_message.as_deref(),
            arguments: case.arguments.clone(),
        };
        let rendered =
            templates[&case.template].render(&golden.chats[&case.chat], &special, &options);
        match (&case.text, &case.error, rendered) {
            (Some(expected), _, Ok(text)) if *expected == text => {}
            (None, Some(expected), Err(Error::ChatTemplate(message))) => {
                // What a template raises is reported word for word; other errors are minijinja's.
                if let Some(raised) = expected.strip_prefix("TemplateError: ") {
                    assert!(message.ends_with(raised), "{}: {message}", case.name);
                }
            }
            (expected, error, rendered) => wrong.push(format!(
                "{}, prompt {}, continues {:?}, {:?}\n  expected {expected:?} {error:?}\n  rendered {rendered:?}",
                case.name,
                case.add_generation_prompt,
                case.continue_final_message,
                case.arguments.keys().collect::<Vec<_>>(),
            )),
        }
    }
    wrong
}

#[test]
fn templates_render_as_in_transformers() {
    let golden: Golden =
        serde_json::from_str(include_str!("../golden/chat_templates.json")).unwrap();
    let wrong = differences(&golden);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(golden.cases.len() > 300);
}

#[test]
fn renderings_of_other_packages_are_those_of_transformers() {
    let Some(file) = std::env::var_os("FT_TEST_CHAT_CASES").filter(|file| !file.is_empty()) else {
        eprintln!("skipped: FT_TEST_CHAT_CASES names no file of tests/reference/chat_templates.py");
        return;
    };
    let golden: Golden = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let wrong = differences(&golden);
    println!("{} of {} cases differ", wrong.len(), golden.cases.len());
    let first: Vec<_> = wrong.iter().take(20).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{}", first.join("\n"));
}

fn render(template: &str, options: &ChatOptions<'_>) -> ft_core::Result<String> {
    let messages = [
        Message::new("user", "Hi"),
        Message::new("assistant", "Hello"),
    ];
    ChatTemplate::new(template)?.render(&messages, &[], options)
}

#[test]
fn a_template_that_does_not_end_or_fills_the_memory_is_stopped() {
    let grow = |step: &str| {
        format!(
            "{{% set ns = namespace(x='xxxxxxxx') %}}{{% for a in range(99) %}}{{% set ns.x = {step} %}}{{% endfor %}}"
        )
    };
    let nest = |end: &str| {
        format!(
            "{{% set ns = namespace(x=['x']) %}}{{% for a in range(99) %}}{{% set ns.x = [ns.x, ns.x] %}}{{% endfor %}}{end}"
        )
    };
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let mut hostile = vec![
        loops.to_string(),
        grow("ns.x + ns.x"),
        grow("ns.x ~ ns.x"),
        grow("ns.x.replace('x', ns.x)"),
        grow("ns.x | join(ns.x)"),
        nest("{{ ns.x }}"),
        nest("{{ ns.x | tojson }}"),
    ];
    hostile.extend(
        [
            "{{ 'x'.ljust(99999999999) }}",
            "{{ 'x'.zfill(99999999999) }}",
            "{{ 'x' | center(99999999999) }}",
            "{{ 'x' | indent(99999999999) }}",
            "{{ '%99999999999d' % 1 }}",
            "{{ '%*d' % (99999999999, 1) }}",
            "{{ '%.99999999999f' % 1.0 }}",
            "{{ '{:99999999999}'.format(1) }}",
            "{{ 'x' * 99999999999 }}",
            "{{ [1] | tojson(indent=99999999999) }}",
            "{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}",
        ]
        .map(String::from),
    );
    for template in hostile {
        let error = render(&template, &ChatOptions::default()).unwrap_err();
        assert!(
            matches!(error, Error::ChatTemplate(_)),
            "{template}: {error}"
        );
    }
    let error = render(loops, &ChatOptions::default()).unwrap_err();
    assert!(error.to_string().contains("more work"), "{error}");
}

#[test]
fn a_long_conversation_may_be_searched_for_each_of_its_messages() {
    let template = "{% for a in messages %}{% for b in messages %}{% endfor %}{% endfor %}{{ messages | length }}";
    let messages = vec![Message::new("user", "Hi"); 2000];
    let template = ChatTemplate::new(template).unwrap();
    let text = template.render(&messages, &[], &ChatOptions::default());
    assert_eq!(text.unwrap(), "2000");
}

#[test]
fn options_that_contradict_each_other_are_settings_errors() {
    for name in ["messages", "tools", "add_generation_prompt"] {
        let options = ChatOptions {
            arguments: Map::from_iter([(name.to_string(), json!([]))]),
            ..ChatOptions::default()
        };
        let error = render("x", &options).unwrap_err();
        assert!(matches!(error, Error::Settings(_)), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let options = ChatOptions {
        add_generation_prompt: true,
        continue_final_message: Some("content"),
        ..ChatOptions::default()
    };
    let error = render("{{ messages[-1].content }}", &options).unwrap_err();
    assert!(matches!(error, Error::Settings(_)), "{error}");
}

#[test]
fn a_message_that_cannot_be_continued_is_reported() {
    for (template, field, reason) in [
        (
            "{{ messages[-1].content }}",
            "reasoning_content",
            "has no `reasoning_content`",
        ),
        (
            "{{ messages[-1]['con' + 'tent'] }}",
            "content",
            "does not read `content`",
        ),
        ("{{ messages[0].content }}", "content", "does not appear"),
    ] {
        let options = ChatOptions {
            continue_final_message: Some(field),
            ..ChatOptions::default()
        };
        let error = render(template, &options).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
