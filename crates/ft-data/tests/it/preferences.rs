//! Rows of preferences that cannot be learned, with the tokenizer of the shipped model.

use std::path::Path;

use ft_core::Tokenizer;
use ft_data::{PreferenceDataset, UnpairedDataset};
use serde_json::{Value, json};

use super::file;

fn shipped() -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tiny-llama");
    Tokenizer::from_pretrained(&folder).unwrap()
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[test]
fn pairs_that_teach_nothing_or_do_not_fit_are_dropped_and_counted_and_never_cut() {
    let long = "a long answer ".repeat(40);
    let rows = [
        json!({"prompt": "Why?", "chosen": "Since.", "rejected": "No."}),
        json!({"prompt": "Why?", "chosen": "Since.", "rejected": "Since."}),
        json!({"prompt": "Why?", "chosen": "", "rejected": "No."}),
        json!({"prompt": "Why?", "chosen": long, "rejected": "No."}),
        json!({"prompt": "Why?", "chosen": "Since.", "rejected": long}),
    ];
    let at = file("pairs.jsonl", &lines(&rows));
    let whole = PreferenceDataset::load(&at.path, &shipped(), 10_000).unwrap();
    assert_eq!(whole.report.too_long, 0);
    // An answer without text is its end: to say nothing may be right.
    assert_eq!(whole.examples[1].chosen.label_count(), 1);
    let longest = whole.examples[2].chosen.len();
    let dataset = PreferenceDataset::load(&at.path, &shipped(), longest - 1).unwrap();
    let report = dataset.report;
    assert_eq!(
        [report.rows, report.kept, report.ties, report.too_long],
        [5, 2, 1, 2]
    );
    assert_eq!(dataset.examples, whole.examples[..2]);
    let text = report.to_string();
    for part in [
        "2 of 5 rows",
        "1 dropped with twice the same answer",
        "2 dropped that are too long",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // A limit of exactly the length keeps the row whole.
    let exact = PreferenceDataset::load(&at.path, &shipped(), longest).unwrap();
    assert_eq!(exact.examples, whole.examples);
    let none = PreferenceDataset::load(&at.path, &shipped(), 2).unwrap_err();
    assert!(none.to_string().contains("no row is left of 5"), "{none}");
}

#[test]
fn single_answers_that_do_not_fit_are_dropped_and_counted_and_never_cut() {
    let long = "a long answer ".repeat(40);
    let rows = [
        json!({"prompt": "Why?", "completion": "Since.", "label": true}),
        json!({"prompt": "Why?", "completion": "", "label": false}),
        json!({"prompt": "Why?", "completion": long, "label": false}),
    ];
    let at = file("answers.jsonl", &lines(&rows));
    let whole = UnpairedDataset::load(&at.path, &shipped(), 10_000).unwrap();
    assert_eq!(whole.counts(), (1, 2));
    let longest = whole.examples[2].tokens.len();
    let dataset = UnpairedDataset::load(&at.path, &shipped(), longest - 1).unwrap();
    let report = dataset.report;
    assert_eq!([report.rows, report.kept, report.too_long], [3, 2, 1]);
    assert_eq!(dataset.examples, whole.examples[..2]);
}

/// The forms of LLaMA-Factory's example files, of HH-RLHF and of UltraFeedback.
#[test]
fn forms_of_public_datasets_load_unchanged() {
    let message = |role: &str, text: &str| json!({"role": role, "content": text});
    let rows = [
        json!({
            "conversations": [{"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": "Since."}, "rejected": {"from": "gpt", "value": "No."},
        }),
        json!({
            "chosen": "\n\nHuman: Why?\n\nAssistant: Since.", "rejected": "\n\nHuman: Why?\n\nAssistant: No.",
        }),
        json!({
            "prompt": "Why?", "prompt_id": "x", "score_chosen": 8.0, "score_rejected": 3.0,
            "messages": [message("user", "Why?"), message("assistant", "Since.")],
            "chosen": [message("user", "Why?"), message("assistant", "Since.")],
            "rejected": [message("user", "Why?"), message("assistant", "No.")],
        }),
    ];
    let tokenizer = shipped();
    let mut texts = Vec::new();
    for row in rows {
        let at = file("pairs.jsonl", &lines(&[row]));
        let found = PreferenceDataset::load(&at.path, &tokenizer, 1000).unwrap();
        let pair = &found.examples[0];
        texts.push(
            [&pair.chosen, &pair.rejected]
                .map(|side| tokenizer.decode(&side.input_ids, false).unwrap()),
        );
    }
    assert!(
        texts[0][0].contains("Since.") && texts[0][1].contains("No."),
        "{texts:?}"
    );
    assert_eq!(texts[0], texts[1]);
    assert_eq!(texts[0], texts[2]);
    let kto = json!({"messages": [message("user", "Why?"), message("assistant", "Since.")], "label": false});
    let at = file("answers.jsonl", &lines(&[kto]));
    let found = UnpairedDataset::load(&at.path, &tokenizer, 1000).unwrap();
    assert_eq!(found.counts(), (0, 1));
}
