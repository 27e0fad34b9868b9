//! Pieces of long texts: none is longer than allowed, and nothing is lost.

use ft_data::Chunking;

use crate::tiny;

fn text() -> String {
    let sentence = |i: usize| {
        format!(
            "Sentence number {i} says that the answer is {} – ünïcödé included.",
            i * i
        )
    };
    let paragraphs = (0..12).map(|p| {
        (0..p % 4 + 1)
            .map(|s| sentence(10 * p + s))
            .collect::<Vec<_>>()
            .join(" ")
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

fn without_space(text: &str) -> String {
    text.split_whitespace().collect()
}

#[test]
fn pieces_fit_and_together_are_the_text() {
    let (tokenizer, text) = (tiny(), text());
    for max_tokens in [7, 40, 100, 100_000] {
        for chunking in [
            Chunking::Paragraphs { max_tokens },
            Chunking::Structure { max_tokens },
            Chunking::Tokens {
                size: max_tokens,
                overlap: 0,
            },
        ] {
            let pieces = chunking.chunks(&text, &tokenizer).expect("cuts");
            for piece in &pieces {
                let length = tokenizer.encode(piece, false).expect("encodes").len();
                // The text of a window may have some tokens more than it had within the whole.
                assert!(length <= max_tokens + 3, "{chunking:?}: {length}");
            }
            assert_eq!(
                without_space(&pieces.concat()),
                without_space(&text),
                "{chunking:?}"
            );
        }
    }
}

#[test]
fn headings_that_are_too_long_to_repeat_are_not_lost() {
    let tokenizer = tiny();
    let text = "# A heading of very many words that fills a piece of few tokens on its own\n\nThe text below it.\n";
    for max_tokens in [12, 30, 200] {
        let chunking = Chunking::Structure { max_tokens };
        let pieces = chunking.chunks(text, &tokenizer).expect("cuts");
        assert_eq!(
            without_space(&pieces.concat()),
            without_space(text),
            "{max_tokens}"
        );
    }
}

#[test]
fn windows_overlap_by_as_many_tokens_as_asked_for() {
    let (tokenizer, text) = (
        tiny(),
        "one two three four five six seven eight nine ten ".repeat(8),
    );
    let pieces = Chunking::Tokens {
        size: 30,
        overlap: 10,
    }
    .chunks(&text, &tokenizer)
    .expect("cuts");
    assert!(pieces.len() > 3);
    for pair in pieces.windows(2) {
        let common = (1..pair[0].len())
            .filter(|n| pair[0].is_char_boundary(*n))
            .map(|n| pair[0][n..].trim());
        let common = common
            .filter(|end| !end.is_empty() && pair[1].starts_with(end))
            .map(str::len)
            .max();
        assert!(common.is_some_and(|len| len >= 8), "{pair:?}");
    }
    assert!(
        Chunking::Tokens {
            size: 5,
            overlap: 5
        }
        .chunks(&text, &tokenizer)
        .is_err()
    );
}

#[test]
fn a_piece_begins_with_its_headings_and_does_not_cross_one() {
    let markdown =
        "# Manual\nIntro text.\n\n## Setup\nStep one.\n\nStep two.\n# Index\nLast words.\n";
    let pieces = Chunking::Structure { max_tokens: 200 }
        .chunks(markdown, &tiny())
        .expect("cuts");
    assert_eq!(
        pieces,
        [
            "# Manual\n\nIntro text.",
            "# Manual\n## Setup\n\nStep one.\n\nStep two.",
            "# Index\n\nLast words."
        ]
    );
}
