//! Files in, labelled examples and batches out, on the tiny tokenizer of ft-core's tests.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use ft_core::{ChatTemplate, IGNORE_INDEX, Message, Tokenizer};
use ft_data::{
    Batches, Collation, Conversation, Format, Sample, SftDataset, Tokenized, read_rows, tokenize,
};
use serde_json::{Value, json};

mod chunks;
mod fuzz;
mod hostile_data;
#[cfg(feature = "documents")]
mod hostile_documents;
mod loader;
mod masked_messages;
mod memory;
mod preferences;
mod prompts;
mod quality;
#[cfg(feature = "arrow")]
mod saved;
mod streams;
mod templates;

fn tiny() -> Tokenizer {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../ft-core/tests/golden/tiny_tokenizer");
    Tokenizer::from_pretrained(&folder).unwrap()
}

/// The tiny tokenizer with another chat template.
fn with_template(template: &str) -> Tokenizer {
    tiny().with_chat_template(ChatTemplate::new(template).unwrap())
}

/// The tiny tokenizer without chat template, and without eos token if asked for.
fn bare(eos: bool) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../ft-core/tests/golden/tiny_tokenizer");
    std::fs::copy(
        source.join("tokenizer.json"),
        folder.path().join("tokenizer.json"),
    )
    .unwrap();
    if eos {
        let config = json!({"eos_token": "<|endoftext|>"}).to_string();
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    }
    Tokenizer::from_pretrained(folder.path()).unwrap()
}

struct File {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

fn file(name: &str, text: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    File {
        path,
        _folder: folder,
    }
}

fn load(text: &str, format: Format, max_len: usize) -> Result<SftDataset, String> {
    let file = file("rows.json", text);
    SftDataset::load(&file.path, format, &tiny(), max_len).map_err(|error| error.to_string())
}

fn conversation(turns: &[(&str, &str)]) -> Sample {
    let messages: Vec<Message> = turns
        .iter()
        .map(|&(role, content)| Message::new(role, content))
        .collect();
    messages.into()
}

/// The runs of labelled tokens, as text.
fn learnt(example: &Tokenized, tokenizer: &Tokenizer) -> Vec<String> {
    let mut runs: Vec<Vec<u32>> = Vec::new();
    let mut open = false;
    for (&id, &label) in example.input_ids.iter().zip(&example.labels) {
        if label == IGNORE_INDEX {
            open = false;
            continue;
        }
        assert_eq!(label, i64::from(id));
        if !open {
            runs.push(Vec::new());
            open = true;
        }
        runs.last_mut().unwrap().push(id);
    }
    runs.iter()
        .map(|run| tokenizer.decode(run, false).unwrap())
        .collect()
}

fn learnt_of(sample: &Sample, tokenizer: &Tokenizer) -> Vec<String> {
    learnt(&tokenize(sample, tokenizer, 512).unwrap(), tokenizer)
}

const ALPACA: &str = r#"[
  {"instruction": "What is the capital of France?", "input": "", "output": "Paris."},
  {"instruction": "Name three colours.", "output": "Red, green and blue."},
  {"instruction": "Count", "input": "to three", "output": "one, two, three"}
]"#;

#[test]
fn responses_are_learnt_with_their_stop_token_and_nothing_else_is() {
    let dataset = load(ALPACA, Format::Alpaca, 512).unwrap();
    let tokenizer = tiny();
    assert_eq!(
        learnt(&dataset.examples[0], &tokenizer),
        ["Paris.<|im_end|>"]
    );
    let text = tokenizer
        .decode(&dataset.examples[2].input_ids, false)
        .unwrap();
    assert_eq!(
        text,
        "<|im_start|>user\nCount\nto three<|im_end|>\n<|im_start|>assistant\none, two, three<|im_end|>\n"
    );
    let report = &dataset.report;
    assert_eq!((report.rows, report.kept, report.truncated), (3, 3, 0));
    assert_eq!(report.stop_tokens["<|im_end|>"], 3);
    assert_eq!(report.unlearnt_eos, None);
    let shown = report.to_string();
    assert!(shown.contains("3 of 3 rows"), "{shown}");
}

#[test]
fn every_assistant_turn_is_learnt() {
    let sample = conversation(&[
        ("system", "You are a helpful assistant."),
        ("user", "Hello! How are you today?"),
        ("assistant", " I am well, thank you.\n"),
        ("user", "Is water wet?"),
        ("assistant", "Yes, 東."),
        ("user", "Thanks"),
    ]);
    assert_eq!(
        learnt_of(&sample, &tiny()),
        [" I am well, thank you.\n<|im_end|>", "Yes, 東.<|im_end|>"]
    );
}

#[test]
fn turns_of_the_prompt_are_not_learnt() {
    let turns = json!([
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]);
    let row = json!({"prompt": turns, "completion": [{"role": "assistant", "content": "four"}]});
    let sample = Format::PromptCompletion.parse(&row, 1).unwrap();
    assert_eq!(learnt_of(&sample, &tiny()), ["four<|im_end|>"]);
}

#[test]
fn a_completion_in_plain_text_ends_with_the_eos_token_and_needs_no_template() {
    let tokenizer = bare(true);
    let sample = Sample::PromptCompletion {
        prompt: "Count: one,".to_string(),
        completion: " two".to_string(),
    };
    let example = tokenize(&sample, &tokenizer, 512).unwrap();
    assert_eq!(
        tokenizer.decode(&example.input_ids, false).unwrap(),
        "Count: one, two<|endoftext|>"
    );
    assert_eq!(learnt(&example, &tokenizer), [" two<|endoftext|>"]);

    let error = tokenize(&sample, &bare(false), 512)
        .unwrap_err()
        .to_string();
    assert!(error.contains("eos_token"), "{error}");
    let error = tokenize(
        &conversation(&[("user", "a"), ("assistant", "b")]),
        &bare(true),
        512,
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("--format prompt_completion"), "{error}");
}

#[test]
fn an_eos_token_in_the_completion_is_not_doubled() {
    let tokenizer = bare(true);
    let sample = Sample::PromptCompletion {
        prompt: "a".to_string(),
        completion: "b<|endoftext|>".to_string(),
    };
    assert_eq!(learnt_of(&sample, &tokenizer), ["b<|endoftext|>"]);
}

#[test]
fn a_template_that_rewrites_earlier_turns_still_shows_where_each_response_ends() {
    // As Qwen3: only the last answer carries a thinking block.
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
        {% if m.role == 'assistant' and loop.last %}<think>\n</think>\n{% endif %}\
        {{ m.content }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let tokenizer = with_template(template);
    let sample = conversation(&[
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
        ("assistant", "four"),
    ]);
    assert_eq!(
        learnt_of(&sample, &tokenizer),
        ["two<|im_end|>", "<think>\n</think>\nfour<|im_end|>"]
    );
}

/// As Phi-3: the whole conversation has an end of its own after the last turn's.
#[test]
fn a_token_that_ends_the_conversation_does_not_make_users_turns_answers() {
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|endoftext|>{% endif %}";
    let sample = conversation(&[
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
        ("assistant", "four"),
    ]);
    assert_eq!(
        learnt_of(&sample, &with_template(template)),
        ["two<|im_end|>", "four<|im_end|>\n<|endoftext|>"]
    );
    let unclosed = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
        {% if add_generation_prompt %}assistant: {% else %}<|endoftext|>{% endif %}";
    let error = tokenize(&sample, &with_template(unclosed), 512).unwrap_err();
    assert!(
        error.to_string().contains("does not close an answer"),
        "{error}"
    );
}

/// As DeepSeek-R1-Distill: the generation prompt opens the reasoning, the turns are rendered without it.
const THINKING: &str = "{% for m in messages %}{% if m.role == 'user' %}<pad>{{ m.content }}{% else %}\
    <|im_start|>{{ m.content.split('</think>')[-1] }}<|im_end|>{% endif %}{% endfor %}\
    {% if add_generation_prompt %}<|im_start|><think>\n{% endif %}";

#[test]
fn answers_are_learnt_where_the_generation_prompt_opens_a_reasoning_that_is_left_out() {
    let tokenizer = with_template(THINKING);
    let rows = [
        conversation(&[
            ("user", "One and one?"),
            ("assistant", "<think>\nOne, then one.\n</think>\n\nTwo."),
            ("user", "And in tags?"),
            ("assistant", "<two> or <think"),
        ]),
        conversation(&[("user", "Is water wet?"), ("assistant", "Yes.")]),
    ];
    // The second answer begins as the rest of the generation prompt does.
    assert_eq!(
        learnt_of(&rows[0], &tokenizer),
        ["\n\nTwo.<|im_end|>", "<two> or <think<|im_end|>"]
    );
    assert_eq!(learnt_of(&rows[1], &tokenizer), ["Yes.<|im_end|>"]);
    let report = SftDataset::from_samples(&rows, &tokenizer, 512)
        .unwrap()
        .report;
    assert_eq!(report.missing_prompts["<think>\n"], 3);
    assert_eq!(report.reasoning_left_out, 1);
    let shown = report.to_string();
    assert!(
        shown.contains(r#"3 responses are learnt without "<think>\n""#),
        "{shown}"
    );
    assert!(shown.contains("the reasoning of 1 responses"), "{shown}");
}

#[test]
fn reasoning_that_is_rendered_is_not_reported() {
    let tokenizer = with_template(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n\
         {% if m.role == 'assistant' %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}\
         {{ m.content }}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
    );
    let mut answer = Message::new("assistant", "Two.");
    answer
        .extra
        .insert("thinking".to_string(), json!("One, then one."));
    let row: Sample = vec![Message::new("user", "One and one?"), answer].into();
    assert_eq!(
        learnt_of(&row, &tokenizer),
        ["One, then one.\n</think>\nTwo.<|im_end|>"]
    );
    let report = SftDataset::from_samples(&[row], &tokenizer, 512)
        .unwrap()
        .report;
    assert!(report.missing_prompts.is_empty());
    assert_eq!(report.reasoning_left_out, 0);
}

#[test]
fn a_template_without_generation_prompt_ends_its_answers_with_eos_and_no_newline() {
    // As Mistral.
    let template = "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]\
        {% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";
    let sample = conversation(&[
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
        ("assistant", "four"),
    ]);
    assert_eq!(
        learnt_of(&sample, &with_template(template)),
        [" two<|im_end|>", " four<|im_end|>"]
    );
}

#[test]
fn a_template_whose_prompts_do_not_begin_the_whole_text_is_explained() {
    let template =
        "{{ messages | length }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}";
    let sample = conversation(&[("user", "one"), ("assistant", "two")]);
    let error = tokenize(&sample, &with_template(template), 512).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("cannot be separated from its prompt"),
        "{error}"
    );
    assert!(error.contains("\"1one"), "{error}");
}

#[test]
fn a_conversation_that_the_assistant_begins_is_explained() {
    let error = tokenize(&conversation(&[("assistant", "Hi")]), &tiny(), 512).unwrap_err();
    assert!(error.to_string().contains("begins with the assistant"));
}

#[test]
fn tool_calls_that_the_template_would_leave_out_are_an_error() {
    let row = json!({"conversations": [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": "{\"name\": \"get\", \"arguments\": {}}"},
    ]});
    let sample = Format::ShareGpt.parse(&row, 1).unwrap();
    let error = tokenize(&sample, &tiny(), 512).unwrap_err().to_string();
    assert!(error.contains("tool_calls"), "{error}");

    let row = json!({"tools": [{"name": "get"}], "messages": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
    ]});
    let tools = Format::Messages.parse(&row, 1).unwrap();
    let error = tokenize(&tools, &tiny(), 512).unwrap_err().to_string();
    assert!(error.contains("the row has tools"), "{error}");

    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
        {% for c in m.tool_calls %}<tool_call>{{ c.function.name }}</tool_call>{% endfor %}<|im_end|>\n\
        {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    assert_eq!(
        learnt_of(&sample, &with_template(template)),
        ["<tool_call>get</tool_call><|im_end|>"]
    );
}

#[test]
fn rows_that_are_too_long_are_cut_and_counted_and_dropped_when_nothing_is_left() {
    let long = "the cat sat on the mat and ".repeat(20);
    let rows = json!([
        {"instruction": "Hello!", "output": "Hello!"},
        {"instruction": "Hello!", "output": long},
        {"instruction": long, "output": "Yes"},
    ]);
    let dataset = load(&rows.to_string(), Format::Alpaca, 40).unwrap();
    let report = &dataset.report;
    assert_eq!((report.rows, report.kept), (3, 2));
    assert_eq!((report.truncated, report.dropped_all_masked), (2, 1));
    assert_eq!(dataset.examples[1].len(), 40);
    assert_eq!(report.stop_tokens["<|im_end|>"], 1);
    let tokens: usize = dataset.examples.iter().map(Tokenized::len).sum();
    assert_eq!(report.tokens, tokens);
    let shown = report.to_string();
    assert!(shown.contains("2 truncated; 1 dropped"), "{shown}");
}

#[test]
fn a_dataset_with_nothing_to_learn_is_an_error() {
    let rows = json!([{"messages": [{"role": "user", "content": "Hello"}]}]);
    let error = load(&rows.to_string(), Format::Messages, 64).unwrap_err();
    assert!(error.contains("all labels are masked"), "{error}");
    assert!(error.contains("rows.json"), "{error}");
    let error = load(ALPACA, Format::Alpaca, 4).unwrap_err();
    assert!(error.contains("raise the maximum length"), "{error}");
    let error = load(ALPACA, Format::Alpaca, 1).unwrap_err();
    assert!(error.contains("make it 2 or more"), "{error}");
}

#[test]
fn a_stop_token_that_is_always_cut_off_is_an_error_that_names_it() {
    let long = "the cat sat on the mat and ".repeat(20);
    let rows = json!([{"instruction": "Hello!", "output": long}]);
    let error = load(&rows.to_string(), Format::Alpaca, 40).unwrap_err();
    assert!(error.contains("<|im_end|> never receives loss"), "{error}");
    assert!(error.contains("1 of 1 rows were truncated"), "{error}");
}

#[test]
fn a_template_without_a_stop_token_is_an_error() {
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
        {% if add_generation_prompt %}assistant: {% endif %}";
    let samples = [conversation(&[("user", "one"), ("assistant", "two")])];
    let error = SftDataset::from_samples(&samples, &with_template(template), 64).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("no stop token ever receives loss"),
        "{error}"
    );
    assert!(error.contains("<|im_end|>"), "{error}");
}

#[test]
fn a_stop_token_other_than_eos_is_reported() {
    let template = "{% for m in messages %}{{ m.content }}<|endoftext|>\n{% endfor %}";
    let samples = [conversation(&[("user", "one"), ("assistant", "two")])];
    let dataset = SftDataset::from_samples(&samples, &with_template(template), 64).unwrap();
    assert_eq!(dataset.report.stop_tokens["<|endoftext|>"], 1);
    assert_eq!(dataset.report.unlearnt_eos.as_deref(), Some("<|im_end|>"));
    assert!(dataset.report.to_string().contains("ends no response"));
}

#[test]
fn errors_of_files_name_file_line_and_row() {
    let error = load(
        "{\"instruction\": \"a\", \"output\": \"b\"}\n{oops}\n",
        Format::Alpaca,
        64,
    );
    let error = error.unwrap_err();
    assert!(error.contains("rows.json: line 2: "), "{error}");

    let error = load(
        "[{\"instruction\": \"a\", \"output\": \"b\"}, {\"output\": \"b\"}]",
        Format::Alpaca,
        64,
    );
    let error = error.unwrap_err();
    assert!(
        error.contains(
            "rows.json: row 2: there is no column `instruction`; the columns are: output"
        ),
        "{error}"
    );

    for empty in ["", "[]", "\n \n"] {
        let error = load(empty, Format::Alpaca, 64).unwrap_err();
        assert!(error.contains("empty"), "{error}");
    }
    let error = read_rows("/no/such/file.json").unwrap_err().to_string();
    assert!(error.contains("/no/such/file.json"), "{error}");

    let rows = json!([
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"messages": [{"role": "assistant", "content": "b"}]},
    ]);
    let error = load(&rows.to_string(), Format::Messages, 64).unwrap_err();
    assert!(error.contains("rows.json: row 2: "), "{error}");
}

#[test]
fn content_that_the_template_cannot_render_is_an_error_with_its_row() {
    let rows = json!([{"messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": "b"},
    ]}]);
    let error = load(&rows.to_string(), Format::Messages, 64).unwrap_err();
    assert!(error.contains("row 1: chat template: "), "{error}");
}

#[test]
fn the_split_is_the_same_for_the_same_seed_and_loses_nothing() {
    let examples: Vec<Tokenized> = (0..20)
        .map(|i| Tokenized {
            input_ids: vec![i, i],
            labels: vec![i64::from(i); 2],
        })
        .collect();
    let dataset = SftDataset::from_examples(examples.clone());
    let (train, eval) = dataset.clone().split(0.1, 5).unwrap();
    let (again, _) = dataset.clone().split(0.1, 5).unwrap();
    assert_eq!((train.len(), eval.len()), (18, 2));
    assert_eq!(train.examples, again.examples);
    let mut all = [train.examples, eval.examples].concat();
    all.sort_by_key(|example| example.input_ids[0]);
    assert_eq!(all, examples);
    assert_eq!(dataset.clone().split(0.001, 5).unwrap().1.len(), 1);
    assert_eq!(dataset.clone().split(0.0, 5).unwrap().1.len(), 0);
    for fraction in [1.0, -0.1, f64::NAN, 0.99] {
        assert!(dataset.clone().split(fraction, 5).is_err());
    }
}

#[test]
fn packed_and_padded_batches_hold_the_same_documents_and_become_tensors() {
    let dataset = load(ALPACA, Format::Alpaca, 64).unwrap();
    let labels = dataset.report.label_tokens;
    let batches = |collation| {
        let dataset = dataset.clone();
        dataset.into_batches(8, collation, Some(1), 3).unwrap()
    };
    let padded = batches(Collation::Padded { multiple: 8 }).batch(0, 0);
    let packed = batches(Collation::Packed { seq_len: 128 }).batch(0, 0);
    assert_eq!(padded.batch, 3);
    assert!(packed.batch < 3);
    for batch in [&padded, &packed] {
        assert_eq!(batch.token_count(), dataset.report.tokens);
        assert_eq!(batch.label_count(), labels);
        let device = Device::default();
        let tokens = batch.tokens(&device);
        assert_eq!(tokens.input_ids.dims(), [batch.batch, batch.seq]);
        assert_eq!(tokens.segment_ids.is_some(), batch.segment_ids.is_some());
        assert_eq!(batch.labels.len(), batch.batch * batch.seq);
    }
}

#[test]
fn a_real_tokenizer_labels_a_real_dataset() {
    let Some(models) = std::env::var_os("FT_TEST_MODELS").filter(|f| !f.is_empty()) else {
        eprintln!("skipped: FT_TEST_MODELS names no folder of models");
        return;
    };
    let tokenizer =
        Tokenizer::from_pretrained(&Path::new(&models).join("smollm2-135m-instruct")).unwrap();
    let conversation = Conversation::from(vec![
        Message::new("user", "What is the capital of France?"),
        Message::new("assistant", "The capital of France is Paris."),
        Message::new("user", "Et l'Italie ? 東京"),
        Message::new("assistant", " Rome 東京\n\n"),
    ]);
    assert_eq!(
        learnt_of(&Sample::Conversation(conversation), &tokenizer),
        [
            "The capital of France is Paris.<|im_end|>",
            " Rome 東京\n\n<|im_end|>"
        ]
    );
}

#[test]
fn no_row_panics_whatever_it_holds() {
    let texts = [
        "",
        " ",
        "\n",
        "<|im_end|>",
        "<|im_start|>assistant\n",
        "é\u{0}東\u{200d}",
        "{{ x }}",
    ];
    let tokenizer = tiny();
    for first in texts {
        for second in texts {
            let row: Value = json!({"instruction": first, "output": second, "prompt": first, "completion": second});
            for format in [Format::Alpaca, Format::PromptCompletion] {
                let sample = format.parse(&row, 1).unwrap();
                for max_len in [0, 1, 5, 512] {
                    let example = tokenize(&sample, &tokenizer, max_len).unwrap();
                    assert_eq!(example.input_ids.len(), example.labels.len());
                    assert!(example.len() <= max_len);
                }
            }
        }
    }
}
