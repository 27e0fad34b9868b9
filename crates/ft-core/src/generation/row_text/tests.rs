//! What is streamed against what is decoded, for three kinds of tokenizers.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use super::RowText;
use crate::Tokenizer;

/// A tokenizer whose ids are the places in `vocab`, with a special token after them.
fn tokenizer(vocab: &[String], decoder: &Value, byte_fallback: bool) -> Tokenizer {
    let vocab: Map<String, Value> = (vocab.iter().enumerate())
        .map(|(id, token)| (token.clone(), json!(id)))
        .collect();
    let special = json!({"id": vocab.len(), "content": "<|im_end|>", "special": true, "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false});
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": byte_fallback,
            "unk_token": null, "dropout": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "ignore_merges": false},
    });
    let folder = tempfile::TempDir::new().expect("temporary folder");
    std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).expect("writes");
    Tokenizer::from_pretrained(folder.path()).expect("loads")
}

const WORDS: [&str; 14] = [
    "▁", "▁▁", "a", "b", "x", "end", "▁end", "y", "▁the", "é", "。", ".", "\n", "▁<",
];

/// As in Llama 2: what the vocabulary lacks is bytes, a token each. Ids 0 to 255 are the bytes.
fn byte_fallback() -> Tokenizer {
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let vocab: Vec<String> = bytes.chain(WORDS.map(String::from)).collect();
    let decoder = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    tokenizer(&vocab, &decoder, true)
}

/// As in GPT-2: tokens are pieces of bytes. Ids 0 to 255 are the bytes, in the order of the characters that stand for them.
fn byte_level() -> (Tokenizer, Vec<String>) {
    let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
    let mut vocab: Vec<String> = alphabet.into_iter().map(String::from).collect();
    vocab.sort();
    vocab.extend(["Ġthe", "ĠĠ", "ðŁ", "¦Ģ", "¦Ģend", "end"].map(String::from));
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    (tokenizer(&vocab, &decoder, false), vocab)
}

/// Pieces of words with a sign for the space, and nothing for what the vocabulary lacks.
fn metaspace() -> Tokenizer {
    let decoder =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    tokenizer(&WORDS.map(String::from), &decoder, false)
}

/// What is streamed of `tokens`, and after how many of them it ended.
fn stream(tokenizer: &Tokenizer, tokens: &[u32], stops: &[&str]) -> (Vec<String>, usize) {
    let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_string()).collect();
    let mut row = RowText::new(&stops, tokenizer).expect("a tokenizer");
    let mut pieces = Vec::new();
    for (i, &token) in tokens.iter().enumerate() {
        let last = i + 1 == tokens.len();
        let (piece, stopped) = row.push(token, last, tokenizer).expect("decodes");
        pieces.push(piece);
        if stopped {
            return (pieces, i + 1);
        }
    }
    (pieces, tokens.len())
}

#[test]
fn what_is_streamed_adds_up_to_the_decoded_text() {
    let mut rng = StdRng::seed_from_u64(11);
    for (name, tokenizer) in [
        ("byte fallback", byte_fallback()),
        ("byte level", byte_level().0),
        ("metaspace", metaspace()),
    ] {
        // An id beyond the vocabulary too: models have rows that no token belongs to.
        let vocab = tokenizer.vocab_size() as u32 + 1;
        for case in 0..400 {
            let len = rng.random_range(1..40);
            // Many words, so that runs of bytes end, and valid characters among the bytes.
            let mut tokens: Vec<u32> = Vec::new();
            while tokens.len() < len {
                match rng.random_range(0..4) {
                    0 => tokens.push(rng.random_range(0..vocab)),
                    1 if name == "byte fallback" => tokens.extend("🦀".bytes().map(u32::from)),
                    _ => tokens.push(rng.random_range(vocab - 16.min(vocab)..vocab)),
                }
            }
            let expected = tokenizer.decode(&tokens, true).expect("decodes");
            let (pieces, _) = stream(&tokenizer, &tokens, &[]);
            assert_eq!(pieces.concat(), expected, "{name}, case {case}: {tokens:?}");
            // A stop string that never comes holds text back, but not for good.
            let (pieces, _) = stream(
                &tokenizer,
                &tokens,
                &[
                    "end\u{1}\u{2}\u{3}",
                    "\n\u{1}\u{2}\u{3}",
                    " the\u{1}\u{2}\u{3}",
                ],
            );
            assert_eq!(pieces.concat(), expected, "{name}, case {case}: {tokens:?}");
        }
    }
}

#[test]
fn text_comes_as_soon_as_it_is_final() {
    let tokenizer = byte_fallback();
    let word = |token: &str| tokenizer.token_to_id(token).expect("in the vocabulary");
    let mut tokens = vec![word("a")];
    tokens.extend("🦀é".bytes().map(u32::from));
    tokens.extend(["▁the", "▁end"].map(word));
    let (pieces, _) = stream(&tokenizer, &tokens, &[]);
    let expected = ["a", "", "", "", "", "", "", "🦀é the", " end"];
    assert_eq!(pieces, expected);

    let (tokenizer, vocab) = byte_level();
    let id = |token: &str| vocab.iter().position(|t| t == token).expect("known") as u32;
    let tokens = ["end", "ðŁ", "¦Ģ", "ðŁ", "¦Ģ", "Ġthe"].map(id);
    let (pieces, _) = stream(&tokenizer, &tokens, &[]);
    assert_eq!(pieces, ["end", "", "🦀", "", "🦀", " the"]);
}

/// A special token that is left out between two words does not cost the space of the second.
#[test]
fn a_space_after_a_special_token_stays() {
    let tokenizer = metaspace();
    let tokens: Vec<u32> = ["▁the", "<|im_end|>", "▁end"]
        .map(|token| tokenizer.token_to_id(token).expect("known"))
        .to_vec();
    let (pieces, _) = stream(&tokenizer, &tokens, &[]);
    assert_eq!(pieces, ["the", "", " end"]);
}

/// Words, the stop string, the text before it, and after how many tokens it ends.
type Case<'a> = (&'a [&'a str], &'a str, &'a str, usize);

#[test]
fn stop_strings_are_found_in_the_text_with_special_tokens() {
    let crab = ["<0xF0>", "<0x9F>", "<0xA6>", "<0x80>"];
    let after_bad = [&["a", "<0xFF>"][..], &crab, &["x", "y"]].concat();
    let cases: [Case<'_>; 9] = [
        (&["▁the", "<|im_end|>", "x"], "<|im_end|>", "the", 2),
        // Across the border of the special token, and within it.
        (&["▁the", "<|im_end|>", "\n", "x"], "im_end|>\n", "the", 3),
        (&["▁the", "a", "<|im_end|>"], "a<|im", "the", 3),
        // A special token that is not part of the string separates.
        (&["a", "<|im_end|>", "b", "a", "b"], "ab", "ab", 5),
        // A string that ends within a token, and one that begins in it.
        (&["a", "x", "▁end", "y"], "x e", "a", 3),
        (&["▁", "▁end", "x"], "dx", " en", 3),
        // The leading space is no part of the text, but of the token.
        (&["▁the", "x"], " the", "", 1),
        // As soon as the bytes are there, also in a run that is not text.
        (
            &["a", crab[0], crab[1], crab[2], crab[3], "x"],
            "🦀",
            "a",
            5,
        ),
        (&after_bad, "🦀x", "a\u{fffd}", 7),
    ];
    let tokenizer = byte_fallback();
    for (words, stop, expected, after) in cases {
        let tokens: Vec<u32> = (words.iter())
            .map(|word| tokenizer.token_to_id(word).expect("known"))
            .collect();
        let (pieces, end) = stream(&tokenizer, &tokens, &["never", stop]);
        let text = pieces.concat();
        assert_eq!(
            (text.as_str(), end),
            (expected, after),
            "{words:?}, {stop:?}"
        );
    }
}

#[test]
fn a_stop_string_of_a_byte_level_vocabulary_may_begin_within_a_token() {
    let (tokenizer, vocab) = byte_level();
    let id = |token: &str| vocab.iter().position(|t| t == token).expect("known") as u32;
    let tokens = ["Ġthe", "ðŁ", "¦Ģend", "x"].map(id);
    let (pieces, end) = stream(&tokenizer, &tokens, &["end"]);
    assert_eq!((pieces.concat().as_str(), end), (" the🦀", 3));
    let (pieces, end) = stream(&tokenizer, &tokens, &["🦀"]);
    assert_eq!((pieces.concat().as_str(), end), (" the", 3));
}

#[test]
fn text_that_may_begin_a_stop_string_is_held_back() {
    let tokenizer = byte_fallback();
    let tokens: Vec<u32> = ["a", "end", "▁<", "b"]
        .map(|token| tokenizer.token_to_id(token).expect("known"))
        .to_vec();
    let (pieces, _) = stream(&tokenizer, &tokens, &["d <|im_end|>"]);
    assert_eq!(pieces, ["a", "en", "", "d <b"]);
}
