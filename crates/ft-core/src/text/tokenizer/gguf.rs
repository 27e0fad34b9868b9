//! The tokenizer of a GGUF file: from its keys to `tokenizer.json`, and back.
//!
//! There are three kinds. `gpt2` is byte-pair encoding over bytes: tokens, merges, and the name of the rules that split texts. `llama`
//! is SentencePiece's: tokens with scores, from which the merges follow. `bert` is WordPiece.

mod write;

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::pre_tokenizer::{self, PreTokenizer};
use super::{NamedTemplate, Tokenizer, added_tokens, files, word_pieces};
use crate::gguf::Metadata;
use crate::{Error, Result};

pub(crate) use write::to_gguf;

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const PRE: &str = "tokenizer.ggml.pre";
const TEMPLATE: &str = "tokenizer.chat_template";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// The most bytes of a SentencePiece token.
const LONGEST: usize = 1024;

/// Types of tokens.
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;
const BYTE: i64 = 6;

/// Keys of special tokens, and their names.
const NAMED: [(&str, &str); 7] = [
    ("tokenizer.ggml.bos_token_id", "bos_token"),
    ("tokenizer.ggml.eos_token_id", "eos_token"),
    ("tokenizer.ggml.unknown_token_id", "unk_token"),
    ("tokenizer.ggml.seperator_token_id", "sep_token"),
    ("tokenizer.ggml.padding_token_id", "pad_token"),
    ("tokenizer.ggml.cls_token_id", "cls_token"),
    ("tokenizer.ggml.mask_token_id", "mask_token"),
];

/// Reads the tokenizer of a file.
///
/// # Errors
///
/// If a key is missing or wrong, or the kind of tokenizer or its rules of splitting are not known here.
pub(crate) fn from_gguf(path: &Path, metadata: &Metadata) -> Result<Tokenizer> {
    let kind = metadata.required(MODEL, metadata.string(MODEL)?)?;
    let tokens = metadata.required(TOKENS, metadata.strings(TOKENS)?)?;
    let types = metadata.integers(TYPES)?;
    let types = types.unwrap_or_else(|| vec![NORMAL; tokens.len()]);
    if types.len() != tokens.len() {
        return Err(metadata.invalid(
            TYPES,
            &format!("{} types for {} tokens", types.len(), tokens.len()),
        ));
    }
    let words: Vec<String>;
    let tokens = match kind {
        "bert" => {
            words = tokens
                .iter()
                .map(|token| word_pieces::from_gguf(token))
                .collect();
            &words[..]
        }
        _ => tokens,
    };
    let mut named = Vec::new();
    for (key, name) in NAMED {
        // llama.cpp has those of `cls_token` and `sep_token` there.
        if kind == "bert" && ["bos_token", "eos_token"].contains(&name) {
            continue;
        }
        if let Some(id) = metadata.integer(key)? {
            let token = usize::try_from(id).ok().and_then(|id| tokens.get(id));
            let token = token.ok_or_else(|| {
                metadata.invalid(key, &format!("{id}, and there are {} tokens", tokens.len()))
            })?;
            named.push((name, token.as_str()));
        }
    }
    let mut add_bos = kind == "llama";
    let mut json = match kind {
        "gpt2" => {
            let rules = rules(metadata)?;
            add_bos = rules.add_bos;
            byte_pairs(metadata, tokens, &rules)?
        }
        "llama" => sentence_pieces(metadata, tokens, &named)?,
        "bert" => word_pieces::json(vocabulary(tokens), |name, usual| {
            let token = named.iter().find(|(known, _)| *known == name);
            let token = token.map_or(usual, |(_, token)| token);
            let id = tokens.iter().position(|known| known == token);
            let id = id.ok_or_else(|| {
                metadata.invalid(TOKENS, &format!("there is no {token} ({name}) among them"))
            })?;
            Ok::<_, Error>((token.to_string(), id))
        })?,
        other => {
            return Err(metadata.invalid(
                MODEL,
                &format!("{other:?} is not read here; `gpt2`, `llama` and `bert` are"),
            ));
        }
    };
    json["version"] = "1.0".into();
    let added = tokens.iter().zip(&types).enumerate();
    let added = added.filter_map(|(id, (token, kind))| {
        let special = match *kind {
            CONTROL => true,
            UNKNOWN if json_is_sentence_pieces(&json) => true,
            USER_DEFINED => false,
            _ => return None,
        };
        Some(json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special,
        }))
    });
    let added: Vec<Value> = added.collect();
    json["added_tokens"] = added.into();
    let token = |name: &str| {
        named
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, token)| *token)
    };
    let add_bos = metadata.boolean(ADD_BOS)?.unwrap_or(add_bos);
    let add_eos = metadata.boolean(ADD_EOS)?.unwrap_or(false);
    json["post_processor"] = around(
        token("bos_token").filter(|_| add_bos),
        token("eos_token").filter(|_| add_eos),
        tokens,
        &json["post_processor"],
    );
    let bytes =
        serde_json::to_vec(&json).map_err(|error| Error::invalid(path, error.to_string()))?;
    drop(json);
    let inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| {
        Error::invalid(
            path,
            format!("the keys of the tokenizer make no tokenizer: {error}"),
        )
    })?;
    let mut config = Map::new();
    for (name, token) in named {
        config.insert(name.into(), token.into());
    }
    config.insert("add_bos_token".into(), add_bos.into());
    config.insert("clean_up_tokenization_spaces".into(), false.into());
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    let template = metadata.string(TEMPLATE)?;
    let templates = template.map(|source| NamedTemplate::new("default", source));
    let none = Map::new();
    let files = added_tokens::Files {
        config: &config,
        config_path: path,
        special_tokens_map: &none,
        added_tokens: &none,
        added_tokens_path: path,
    };
    files::assemble(inner, &files, templates.into_iter().collect())
}

/// Tokens that end a turn, a message or a text, by their names in llama.cpp.
const END_NAMES: [&str; 6] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
];

/// Ids of the tokens that end an answer, besides that of the end of a text.
///
/// # Errors
///
/// If a key has another type than it should.
pub(crate) fn end_tokens(metadata: &Metadata) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for key in [EOT, "tokenizer.ggml.eom_token_id"] {
        found.extend(metadata.integer(key)?.and_then(|id| u32::try_from(id).ok()));
    }
    let tokens = metadata.strings(TOKENS)?.unwrap_or_default();
    let types = metadata.integers(TYPES)?.unwrap_or_default();
    for (id, (token, kind)) in tokens.iter().zip(types).enumerate() {
        if kind == CONTROL && END_NAMES.contains(&token.as_str()) {
            found.extend(u32::try_from(id));
        }
    }
    Ok(found)
}

fn json_is_sentence_pieces(json: &Value) -> bool {
    json["model"]["byte_fallback"] == true
}

/// The rules of splitting that a file names.
fn rules(metadata: &Metadata) -> Result<PreTokenizer> {
    // Old files name none, and llama.cpp splits their texts by rules of no model, with a warning.
    let pre = metadata.required(PRE, metadata.string(PRE)?)?;
    let known = pre_tokenizer::all();
    let names: Vec<_> = known
        .iter()
        .flat_map(|rules| rules.names)
        .copied()
        .collect();
    let mut known = known.into_iter();
    known
        .find(|rules| rules.names.contains(&pre))
        .ok_or_else(|| {
            metadata.invalid(
                PRE,
                &format!(
                    "{pre:?} is not known here; these rules of splitting are: {}",
                    names.join(", ")
                ),
            )
        })
}

/// The model of byte-pair encoding and the rules around it.
fn byte_pairs(metadata: &Metadata, tokens: &[String], rules: &PreTokenizer) -> Result<Value> {
    let merges = metadata.required(MERGES, metadata.strings(MERGES)?)?;
    let mut pairs = Vec::with_capacity(merges.len());
    for (i, merge) in merges.iter().enumerate() {
        // A token may begin with a space.
        let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ');
        let (at, _) = at.ok_or_else(|| {
            metadata.invalid(
                MERGES,
                &format!("element {i}: {merge:?} is no pair of tokens"),
            )
        })?;
        pairs.push(json!([merge[..at], merge[at + 1..]]));
    }
    Ok(json!({
        "normalizer": rules.normalizer,
        "pre_tokenizer": rules.rules,
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": rules.ignore_merges, "vocab": vocabulary(tokens), "merges": pairs,
        },
    }))
}

/// The same for SentencePiece's: a merge is a token that is two others, in the order of scores, as transformers converts them.
fn sentence_pieces(
    metadata: &Metadata,
    tokens: &[String],
    named: &[(&str, &str)],
) -> Result<Value> {
    let scores = metadata.required(SCORES, metadata.floats(SCORES)?)?;
    if scores.len() != tokens.len() {
        return Err(metadata.invalid(
            SCORES,
            &format!("{} scores for {} tokens", scores.len(), tokens.len()),
        ));
    }
    // The time for a token grows with the square of its length.
    if let Some((i, token)) = (tokens.iter().enumerate()).find(|(_, token)| token.len() > LONGEST) {
        let size = token.len();
        return Err(metadata.invalid(
            TOKENS,
            &format!("element {i} has {size} bytes; pieces have at most {LONGEST}"),
        ));
    }
    let of: HashMap<&str, f32> = tokens
        .iter()
        .map(String::as_str)
        .zip(scores.iter().copied())
        .collect();
    let mut merges = Vec::new();
    for (token, score) in tokens.iter().zip(scores) {
        let mut here: Vec<_> = (token.char_indices().skip(1))
            .filter_map(|(at, _)| {
                let (left, right) = token.split_at(at);
                Some((left, right, *of.get(left)?, *of.get(right)?))
            })
            .collect();
        here.sort_by(|a, b| (b.2.total_cmp(&a.2)).then(b.3.total_cmp(&a.3)));
        merges.extend(
            here.into_iter()
                .map(|(left, right, ..)| (left, right, *score)),
        );
    }
    merges.sort_by(|a, b| b.2.total_cmp(&a.2));
    let merges: Vec<Value> = merges
        .iter()
        .map(|(left, right, _)| json!([left, right]))
        .collect();
    let prefix = metadata.boolean(SPACE_PREFIX)?.unwrap_or(true);
    let unknown = named
        .iter()
        .find(|(name, _)| *name == "unk_token")
        .map(|(_, token)| *token);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let mut normalizers = vec![replace];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary(tokens), "merges": merges,
        },
    }))
}

/// Tokens and their ids. Of tokens that are there twice the first one counts.
fn vocabulary(tokens: &[String]) -> Value {
    let mut map = Map::new();
    for (id, token) in tokens.iter().enumerate() {
        map.entry(token.as_str()).or_insert_with(|| id.into());
    }
    map.into()
}

/// The post-processor that puts tokens around a text; `otherwise` if there are none.
fn around(bos: Option<&str>, eos: Option<&str>, tokens: &[String], otherwise: &Value) -> Value {
    if bos.is_none() && eos.is_none() {
        return otherwise.clone();
    }
    let special = |token: &str, pair: u8| json!({"SpecialToken": {"id": token, "type_id": pair}});
    let sequence = |id: &str, pair: u8| {
        let bos = bos.map(|token| special(token, pair));
        let eos = eos.map(|token| special(token, pair));
        let text = json!({"Sequence": {"id": id, "type_id": pair}});
        bos.into_iter().chain([text]).chain(eos).collect::<Vec<_>>()
    };
    let (single, second) = (sequence("A", 0), sequence("B", 1));
    let pair: Vec<Value> = single.iter().cloned().chain(second).collect();
    let mut map = Map::new();
    for token in bos.into_iter().chain(eos) {
        let id = tokens.iter().position(|known| known == token);
        map.insert(
            token.into(),
            json!({"id": token, "ids": [id], "tokens": [token]}),
        );
    }
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": map})
}
