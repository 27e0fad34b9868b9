//! WordPiece in GGUF files, as BERT has it. A token that begins a word has a sign before it there, `▁kite`, and one that continues a
//! word none, `s`; in `tokenizer.json` they are `kite` and `##s`. Tokens in brackets, `[CLS]`, are the same in both.

use serde_json::{Value, json};

const BEGINS: char = '▁';
const CONTINUES: &str = "##";

fn in_brackets(token: &str) -> bool {
    token.starts_with('[') && token.ends_with(']')
}

/// A token of a GGUF file as `tokenizer.json` has it.
pub(super) fn from_gguf(token: &str) -> String {
    match token.strip_prefix(BEGINS) {
        Some(word) => word.to_string(),
        None if in_brackets(token) => token.to_string(),
        None => format!("{CONTINUES}{token}"),
    }
}

/// The other way.
pub(super) fn to_gguf(token: &str) -> String {
    match token.strip_prefix(CONTINUES) {
        Some(rest) => rest.to_string(),
        None if in_brackets(token) => token.to_string(),
        None => format!("{BEGINS}{token}"),
    }
}

/// `tokenizer.json` of BERT without case. `id` is that of a special token by its name and the token that is usual.
pub(super) fn json<E>(
    vocabulary: Value,
    id: impl Fn(&str, &str) -> Result<(String, usize), E>,
) -> Result<Value, E> {
    let (sep, cls) = (id("sep_token", "[SEP]")?, id("cls_token", "[CLS]")?);
    let (unknown, _) = id("unk_token", "[UNK]")?;
    Ok(json!({
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": sep, "cls": cls},
        "decoder": {"type": "WordPiece", "prefix": CONTINUES, "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": CONTINUES, "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }))
}

/// What llama.cpp does not do with a text before it looks for pieces.
pub(super) fn unsupported(tokenizer: &Value) -> Option<&'static str> {
    let normalizer = &tokenizer["normalizer"];
    if normalizer["lowercase"] != true || normalizer["strip_accents"] == false {
        return Some("it keeps upper case or accents, and llama.cpp keeps neither in WordPiece");
    }
    if normalizer["handle_chinese_chars"] == false {
        return Some("it keeps Chinese characters together, and llama.cpp splits them");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_both_ways() {
        for (hf, gguf) in [
            ("kite", "▁kite"),
            ("##s", "s"),
            ("[CLS]", "[CLS]"),
            ("[", "▁["),
            ("##]", "]"),
        ] {
            assert_eq!(
                (to_gguf(hf), from_gguf(gguf)),
                (gguf.to_string(), hf.to_string())
            );
        }
    }
}
