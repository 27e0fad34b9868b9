//! How texts are split before byte-pair encoding, by llama.cpp's names: `tokenizer.ggml.pre`.
//!
//! A line of the table serves reading and writing. `tokenizer.json` has the rules themselves, a GGUF file only their name.

use serde_json::{Value, json};

/// Rules of splitting, and what llama.cpp calls them.
pub(super) struct PreTokenizer {
    /// The first name is written.
    pub(super) names: &'static [&'static str],
    /// `pre_tokenizer` of `tokenizer.json`.
    pub(super) rules: Value,
    /// `normalizer` of `tokenizer.json`.
    pub(super) normalizer: Value,
    /// Whether a word that is a token is not made of others.
    pub(super) ignore_merges: bool,
    /// Whether a text begins with the token for that if a file has no setting.
    pub(super) add_bos: bool,
}

/// Words of GPT-4, with numbers of up to three digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same, with single digits.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// GPT-2's splitting, which is part of the conversion to bytes.
fn gpt2() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
}

fn split(pattern: &str) -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    ]})
}

/// All of them.
pub(super) fn all() -> Vec<PreTokenizer> {
    let of = |names, rules| PreTokenizer {
        names,
        rules,
        normalizer: Value::Null,
        ignore_merges: false,
        add_bos: false,
    };
    vec![
        of(
            &["gpt-2", "phi-2", "olmo", "mpt", "jais", "roberta-bpe"],
            gpt2(),
        ),
        of(
            &[
                "smollm",
                "starcoder",
                "refact",
                "command-r",
                "codeshell",
                "exaone",
            ],
            json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, gpt2()]}),
        ),
        PreTokenizer {
            normalizer: json!({"type": "NFC"}),
            ..of(&["qwen2", "deepseek-r1-qwen"], split(QWEN2))
        },
        PreTokenizer {
            ignore_merges: true,
            add_bos: true,
            ..of(
                &["llama-bpe", "llama3", "llama-v3", "falcon3"],
                split(LLAMA3),
            )
        },
        PreTokenizer {
            ignore_merges: true,
            ..of(&["smaug-bpe"], split(LLAMA3))
        },
        of(&["dbrx", "olmo2"], split(LLAMA3)),
        of(
            &["falcon"],
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Punctuation", "behavior": "Contiguous"},
                gpt2(),
                {"type": "Digits", "individual_digits": false},
                {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": false},
            ]}),
        ),
    ]
}

/// Whether two rules of splitting are the same. Offsets are not part of it, nor are settings that say the same in other words.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    plain(a) == plain(b)
}

/// A list of steps without what does not change the split.
fn plain(rules: &Value) -> Vec<Value> {
    if rules["type"] == "Sequence" {
        let steps = rules["pretokenizers"].as_array().into_iter().flatten();
        return steps.flat_map(plain).collect();
    }
    let mut rules = rules.clone();
    if let Some(map) = rules.as_object_mut() {
        map.remove("trim_offsets");
        if map.get("type") == Some(&"ByteLevel".into()) {
            map.entry("use_regex").or_insert(true.into());
        }
        // A match that is set apart is the same as what is left when all else is removed.
        if map.get("type") == Some(&"Split".into())
            && map.get("behavior") == Some(&"Removed".into())
            && map.get("invert") == Some(&true.into())
        {
            map.insert("behavior".into(), "Isolated".into());
            map.insert("invert".into(), false.into());
        }
    }
    vec![rules]
}
