//! Cleaning: every filter in turn, and what the report says of it.

use ft_data::{Cleaning, Contamination, MinHash, Reason, Table};
use serde_json::json;

fn english(n: usize) -> String {
    let topics = [
        "the harbour",
        "our garden",
        "a library",
        "the railway",
        "this museum",
        "the market",
    ];
    let verbs = [
        "was opened",
        "had been painted",
        "is described",
        "will be closed",
        "was visited",
    ];
    (0..12)
        .map(|i| {
            format!(
                "In the year {} {} {} by people who lived near the river.",
                1800 + n * 13 + i,
                topics[(n + i) % 6],
                verbs[(n * i) % 5]
            )
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn each_filter_removes_its_rows_and_names_the_reason() {
    let question =
        "What is the largest planet of the solar system that has more than eighty known moons";
    let texts = [
        english(1),
        "Too short".to_string(),
        english(1).to_uppercase(),
        english(2),
        english(2).replace("1830", "eighteen thirty"),
        "Der schnelle braune Fuchs springt über den faulen Hund, und alle Kinder freuen sich sehr darüber und lachen.".to_string(),
        format!("{} And so: {question}?", english(3)),
        "word ".repeat(500),
    ];
    let rows = texts
        .iter()
        .map(|text| json!({"messages": [{"role": "user", "content": text}]}));
    let cleaning = Cleaning {
        min_words: 5,
        max_words: 400,
        languages: vec!["eng".into()],
        contamination: Some(Contamination::new(13, [question])),
        exact_duplicates: true,
        near_duplicates: Some(MinHash::default()),
    };
    let (kept, report) = cleaning.apply(Table::from_rows(rows.collect()));
    let reasons: Vec<(usize, Reason)> = report
        .removed
        .iter()
        .map(|r| (r.row, r.reason.clone()))
        .collect();
    let ngram = "what is the largest planet of the solar system that has more than";
    assert_eq!(
        reasons,
        [
            (2, Reason::TooShort(2)),
            (3, Reason::Duplicate(1)),
            (5, Reason::NearDuplicate(4)),
            (6, Reason::Language("deu".into())),
            (7, Reason::Contaminated(ngram.into())),
            (8, Reason::TooLong(500)),
        ]
    );
    assert_eq!((kept.len(), report.kept), (2, 2));
    assert_eq!(
        report.lengths.iter().map(|(_, count)| count).sum::<usize>(),
        2
    );
    let markdown = report.to_markdown();
    assert!(
        markdown.contains("| read | 8 | 100.0% |") && markdown.contains("| **kept** | 2 | 25.0% |"),
        "{markdown}"
    );
    assert!(
        markdown.contains("- row 5: nearly the same as row 4"),
        "{markdown}"
    );
}

#[test]
fn names_of_rows_do_not_hide_duplicates() {
    let rows = ["a", "b"].map(|id| json!({"id": id, "conversation_id": id, "text": english(1)}));
    let (kept, report) = Cleaning::default().apply(Table::from_rows(rows.to_vec()));
    assert_eq!(kept.len(), 1);
    assert_eq!(report.removed[0].reason, Reason::Duplicate(1));
}

/// The planted copies of `shared/peers/minhash.py`, in small: recall follows the formula.
#[test]
fn near_duplicates_are_found_with_the_probability_of_their_similarity() {
    let minhash = MinHash::default();
    let word = |seed: u64, i: u64| format!("w{}", ft_core::mix_seed(seed, i) % 20_000);
    let mut texts = Vec::new();
    for seed in 0..300 {
        texts.push(
            (0..100)
                .map(|i| word(seed, i))
                .collect::<Vec<_>>()
                .join(" "),
        );
    }
    for seed in 0..300 {
        // Two words changed of 100: up to 10 of 96 n-grams, similarity 0.81.
        let changed = |i: u64| {
            if i == 30 || i == 70 {
                "changed".into()
            } else {
                word(seed, i)
            }
        };
        texts.push((0..100).map(changed).collect::<Vec<_>>().join(" "));
    }
    let first = minhash.clusters(&texts);
    assert!((0..300).all(|text| first[text] == text));
    let found = (300..600).filter(|text| first[*text] == text - 300).count() as f64 / 300.0;
    let expected = minhash.probability(86.0 / 106.0);
    // The standard deviation of a share of 300 is below 0.015.
    assert!((found - expected).abs() < 0.05, "{found} {expected}");
}
