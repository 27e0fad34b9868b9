//! What the data says about who speaks and what is to be learnt: masks, system messages, roles.

use ft_data::{Format, Sample, SftDataset, tokenize};
use serde_json::{Value, json};

use super::{learnt, learnt_of, load, tiny, with_template};

fn error_of(row: Value, format: Format) -> String {
    load(&json!([row]).to_string(), format, 64).unwrap_err()
}

fn rendered(row: &Value, format: Format) -> String {
    let sample = format.parse(row, 1).unwrap();
    let tokenizer = tiny();
    let example = tokenize(&sample, &tokenizer, 512).unwrap();
    tokenizer.decode(&example.input_ids, false).unwrap()
}

/// Two answers, of which the first has another field.
fn first_answer_with(name: &str, value: Value) -> Value {
    json!({"messages": [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two", name: value},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
    ]})
}

#[test]
fn messages_of_weight_0_or_train_false_are_not_learnt() {
    for (name, value) in [
        ("weight", json!(0)),
        ("weight", json!(0.0)),
        ("train", json!(false)),
        ("training", json!(false)),
    ] {
        let row = first_answer_with(name, value);
        let dataset = load(&json!([row]).to_string(), Format::Messages, 64).unwrap();
        assert_eq!(
            learnt(&dataset.examples[0], &tiny()),
            ["four<|im_end|>"],
            "{name}"
        );
        assert_eq!(dataset.report.masked_messages, 1);
        let shown = dataset.report.to_string();
        assert!(shown.contains("1 assistant message masked"), "{shown}");
    }
    for (name, value) in [
        ("weight", json!(1)),
        ("weight", json!(null)),
        ("train", json!(true)),
        ("train_detail", json!(null)),
    ] {
        let row = first_answer_with(name, value);
        let dataset = load(&json!([row]).to_string(), Format::Messages, 64).unwrap();
        assert_eq!(
            learnt(&dataset.examples[0], &tiny()),
            ["two<|im_end|>", "four<|im_end|>"]
        );
        assert_eq!(dataset.report.masked_messages, 0);
    }
}

#[test]
fn masks_are_read_in_sharegpt_and_in_completions_too() {
    let row = json!({"conversations": [
        {"from": "human", "value": "one", "train": false},
        {"from": "gpt", "value": "two", "train": false},
        {"from": "human", "value": "three", "weight": 0},
        {"from": "gpt", "value": "four", "train": true},
    ]});
    let sample = Format::ShareGpt.parse(&row, 1).unwrap();
    assert_eq!(learnt_of(&sample, &tiny()), ["four<|im_end|>"]);
    let row = json!({
        "prompt": [{"role": "user", "content": "one"}],
        "completion": [
            {"role": "assistant", "content": "two", "weight": 0},
            {"role": "user", "content": "three"},
            {"role": "assistant", "content": "four", "weight": 1},
        ],
    });
    let sample = Format::PromptCompletion.parse(&row, 1).unwrap();
    assert_eq!(learnt_of(&sample, &tiny()), ["four<|im_end|>"]);
}

#[test]
fn masks_do_not_reach_the_template() {
    let template = "{% for m in messages %}{{ m | tojson }}<|im_end|>{% endfor %}";
    let row = first_answer_with("weight", json!(0));
    let sample = Format::Messages.parse(&row, 1).unwrap();
    let tokenizer = with_template(template);
    let example = tokenize(&sample, &tokenizer, 512).unwrap();
    let text = tokenizer.decode(&example.input_ids, false).unwrap();
    assert!(!text.contains("weight"), "{text}");
}

#[test]
fn a_row_whose_messages_are_all_masked_is_dropped_and_counted() {
    let rows = json!([
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]},
    ]);
    let report = load(&rows.to_string(), Format::Messages, 64)
        .unwrap()
        .report;
    assert_eq!((report.kept, report.dropped_all_masked), (1, 1));
    let error = load(&json!([rows[1]]).to_string(), Format::Messages, 64).unwrap_err();
    assert!(error.contains("`weight` 0"), "{error}");
}

#[test]
fn a_masked_first_message_needs_no_prompt() {
    let row = json!({"messages": [
        {"role": "assistant", "content": "Welcome!", "train": false},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
    ]});
    let sample = Format::Messages.parse(&row, 1).unwrap();
    assert_eq!(learnt_of(&sample, &tiny()), ["two<|im_end|>"]);
}

/// The answer before a masked one must not run into it.
#[test]
fn a_masked_message_ends_the_answer_before_it() {
    let row = json!({"messages": [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four", "weight": 0},
    ]});
    let sample = Format::Messages.parse(&row, 1).unwrap();
    assert_eq!(learnt_of(&sample, &tiny()), ["two<|im_end|>"]);
    let unclosed = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
        {% if add_generation_prompt %}assistant: {% else %}<|endoftext|>{% endif %}";
    let error = tokenize(&sample, &with_template(unclosed), 512).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("does not close an answer"), "{error}");
}

#[test]
fn masks_with_other_values_are_errors_that_name_the_message() {
    for (name, value, what) in [
        ("weight", json!(0.5), "`weight` is 0.5, but must be 0"),
        ("weight", json!("0"), "`weight` is \"0\", but must be 0"),
        ("train", json!(0), "`train` is 0, but must be false"),
        (
            "train_detail",
            json!([{"begin_offset": 0, "end_offset": 1, "train": false}]),
            "`train_detail`",
        ),
        ("training_detail", json!([]), "`training_detail`"),
    ] {
        let error = error_of(first_answer_with(name, value), Format::Messages);
        assert!(
            error.contains("row 1: message 2 of `messages`: "),
            "{error}"
        );
        assert!(error.contains(what), "{error}");
    }
    let mut both = first_answer_with("weight", json!(0));
    both["messages"][1]["train"] = json!(true);
    let error = error_of(both, Format::Messages);
    assert!(error.contains("`weight` and `train` disagree"), "{error}");

    let mut parts = first_answer_with("name", json!("x"));
    parts["messages"][1]["content"] = json!([{"type": "text", "text": "two", "weight": 0}]);
    let error = error_of(parts, Format::Messages);
    assert!(error.contains("a part of a message"), "{error}");

    let row = json!({"messages": [
        {"role": "user", "content": "one", "train": true},
        {"role": "assistant", "content": "two"},
    ]});
    let error = error_of(row, Format::Messages);
    assert!(
        error.contains("only messages of the role `assistant` are learnt"),
        "{error}"
    );
}

#[test]
fn the_system_column_comes_first_and_never_beside_another_system_message() {
    for (format, name, turn) in [
        (Format::Messages, "messages", ["role", "content"]),
        (Format::ShareGpt, "conversations", ["from", "value"]),
    ] {
        let user = |text: &str| json!({turn[0]: "user", turn[1]: text});
        let answer = json!({turn[0]: "assistant", turn[1]: "b"});
        let system = |text: &str| json!({turn[0]: "system", turn[1]: text});
        let once = "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\na<|im_end|>\n\
                    <|im_start|>assistant\nb<|im_end|>\n";
        let row = json!({"system": "Be brief", name: [user("a"), answer]});
        assert_eq!(rendered(&row, format), once);
        let row = json!({"system": "Be brief", name: [system("Be brief"), user("a"), answer]});
        assert_eq!(rendered(&row, format), once);
        let row = json!({"system": "", name: [system("Be brief"), user("a"), answer]});
        assert_eq!(rendered(&row, format), once);

        let row = json!({"system": "Be kind", name: [system("Be brief"), user("a"), answer]});
        let error = error_of(row, format);
        assert!(error.contains("row 1: "), "{error}");
        assert!(error.contains("two different system messages"), "{error}");
    }
}

#[test]
fn an_unknown_role_is_an_error_that_names_row_role_and_known_roles() {
    let rows = json!([
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"messages": [
            {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"}, {"role": "model", "content": "d"},
        ]},
    ]);
    let error = load(&rows.to_string(), Format::Messages, 64).unwrap_err();
    assert!(
        error.contains("row 2: message 4 has the role `model`"),
        "{error}"
    );
    assert!(
        error.contains("system, developer, user, assistant, tool"),
        "{error}"
    );

    let samples: [Sample; 1] = [super::conversation(&[("user", "a"), ("bot", "b")])];
    let error = SftDataset::from_samples(&samples, &tiny(), 64).unwrap_err();
    assert!(error.to_string().contains("row 1: message 2"), "{error}");
}
