//! Prompts from files to tokens, with the tokenizer of the shipped model.

use std::path::Path;

use ft_core::{Message, Tokenizer};
use ft_data::{Prompt, PromptDataset, PromptSample};
use serde_json::{Value, json};

use super::{bare, file};

fn shipped() -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tiny-llama");
    Tokenizer::from_pretrained(&folder).unwrap()
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn load(rows: &[Value], max_prompt_len: usize) -> Result<PromptDataset, String> {
    let file = file("prompts.jsonl", &lines(rows));
    PromptDataset::load(&file.path, &shipped(), max_prompt_len).map_err(|error| error.to_string())
}

#[test]
fn messages_end_with_the_generation_prompt() {
    let dataset = load(
        &[json!({"question": "Who are you?", "answer": "#### 7", "id": 3})],
        100,
    )
    .unwrap();
    let example = &dataset.examples[0];
    assert_eq!(
        shipped().decode(&example.input_ids, false).unwrap(),
        "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        Value::Object(example.sample.columns.clone()),
        json!({"answer": "#### 7", "id": 3})
    );
}

#[test]
fn plain_text_is_encoded_as_it_is() {
    let tokenizer = shipped();
    for text in ["Once upon a time ", "One.\n", "\n", "a <|im_end|>"] {
        let dataset = load(&[json!({ "prompt": text })], 100).unwrap();
        let ids = &dataset.examples[0].input_ids;
        assert_eq!(ids, &tokenizer.encode(text, true).unwrap());
        let decoded = tokenizer.decode(ids, false).unwrap();
        assert_eq!(decoded, format!("<|im_start|>{text}"));
    }
}

/// A tokenizer that puts tokens on both sides of a text, as BERT's does.
#[test]
fn tokens_are_put_in_front_of_plain_text_and_not_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    shipped().save_pretrained(folder.path()).unwrap();
    let path = folder.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let special = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let token = |id: &str| {
        let number = shipped().token_to_id(id).unwrap();
        json!({"id": id, "ids": [number], "tokens": [id]})
    };
    json["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [special("<|im_start|>"), text, special("<|im_end|>")],
        "pair": [text],
        "special_tokens": {
            "<|im_start|>": token("<|im_start|>"), "<|im_end|>": token("<|im_end|>"),
        },
    });
    std::fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::from_pretrained(folder.path()).unwrap();
    let both = tokenizer.encode("One\n", true).unwrap();
    assert_eq!(
        tokenizer.decode(&both, false).unwrap(),
        "<|im_start|>One\n<|im_end|>"
    );

    let sample = |text: &str| PromptSample::from(Prompt::Text(text.to_string()));
    let dataset =
        PromptDataset::from_samples(vec![sample("One\n"), sample("")], &tokenizer, 10).unwrap();
    assert_eq!(dataset.examples[0].input_ids, both[..both.len() - 1]);
    assert_eq!((dataset.report.kept, dataset.report.empty), (1, 1));
}

#[test]
fn long_prompts_are_dropped_and_counted_and_never_cut() {
    let rows = [
        json!({"prompt": "a b c d e f"}),
        json!({"prompt": "a b"}),
        json!({"prompt": ""}),
        json!({"prompt": "c"}),
    ];
    let whole = load(&rows, 100).unwrap();
    let lengths: Vec<usize> = (whole.examples.iter())
        .map(|example| example.input_ids.len())
        .collect();
    let dataset = load(&rows, lengths[1]).unwrap();
    assert_eq!(dataset.examples, whole.examples[1..]);
    assert_eq!(dataset.len(), 2);
    let report = dataset.report;
    assert_eq!(
        (report.rows, report.kept, report.too_long, report.empty),
        (4, 2, 1, 1)
    );
    assert_eq!(report.longest, lengths[1]);
    assert_eq!(report.tokens, lengths[1] + lengths[2]);
    assert_eq!(
        report.to_string(),
        format!(
            "2 of 4 prompts, {} tokens, {} in the longest; 1 dropped that are too long; 1 dropped that are empty",
            report.tokens, report.longest
        )
    );
}

#[test]
fn what_cannot_be_prompted_is_an_error_that_names_the_file_and_the_row() {
    let turn = |role: &str| json!({"role": role, "content": "a"});
    let good = json!({"question": "a"});
    for (rows, max, part) in [
        (vec![], 10, "the dataset is empty"),
        (
            vec![good.clone()],
            3,
            "no prompt is left of 1: 1 are longer than 3",
        ),
        (vec![good.clone(), json!({"answer": 1})], 10, "row 2"),
        (
            vec![
                good.clone(),
                json!({"messages": [turn("user"), turn("assistant")]}),
            ],
            99,
            "row 2: the prompt ends with a message of the assistant",
        ),
        (
            vec![json!({"messages": [turn("user"), turn("asistant"), turn("user")]})],
            99,
            "`asistant`",
        ),
    ] {
        let error = load(&rows, max).unwrap_err();
        assert!(
            error.contains("prompts.jsonl") && error.contains(part),
            "{part}: {error}"
        );
    }
    let sample = PromptSample::from(Prompt::Messages(vec![Message::new("user", "a")]));
    let error = PromptDataset::from_samples(vec![sample], &bare(true), 9).unwrap_err();
    assert!(error.to_string().contains("row 1"), "{error}");
    let empty = PromptSample::from(Prompt::Messages(Vec::new()));
    let error = PromptDataset::from_samples(vec![empty], &shipped(), 9).unwrap_err();
    assert!(error.to_string().contains("no messages"), "{error}");
}

#[test]
fn parts_keep_the_order_and_fingerprints_see_ids_and_columns() {
    let rows: Vec<Value> = (0..10)
        .map(|i| json!({"question": format!("{i}"), "answer": i}))
        .collect();
    let dataset = load(&rows, 99).unwrap();
    let (train, eval) = dataset.clone().split(0.3, 7).unwrap();
    assert_eq!((train.len(), eval.len()), (7, 3));
    let answers = |dataset: &PromptDataset| -> Vec<i64> {
        let examples = dataset.examples.iter();
        examples
            .map(|example| example.sample.columns["answer"].as_i64().unwrap())
            .collect()
    };
    assert!(answers(&train).is_sorted() && answers(&eval).is_sorted());
    let mut all = [answers(&train), answers(&eval)].concat();
    all.sort_unstable();
    assert_eq!(all, (0..10).collect::<Vec<_>>());
    assert_eq!(
        dataset.clone().split(0.3, 7).unwrap().1.examples,
        eval.examples
    );

    let fingerprint = dataset.fingerprint();
    assert_eq!(load(&rows, 99).unwrap().fingerprint(), fingerprint);
    let mut other = dataset.clone();
    other.examples[3]
        .sample
        .columns
        .insert("answer".into(), json!(4));
    assert_ne!(other.fingerprint(), fingerprint);
    let mut other = dataset;
    other.examples[3].input_ids[0] += 1;
    assert_ne!(other.fingerprint(), fingerprint);
}
