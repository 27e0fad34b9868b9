//! The keys of a tokenizer in a GGUF file.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    ADD_BOS, ADD_EOS, BYTE, CONTROL, EOT, MERGES, MODEL, NAMED, NORMAL, PRE, SCORES, SPACE_PREFIX,
    TEMPLATE, TOKENS, TYPES, UNKNOWN, UNUSED, USER_DEFINED,
};
use crate::gguf::Metadata;
use crate::text::tokenizer::pre_tokenizer::{self, PreTokenizer};
use crate::text::tokenizer::{Tokenizer, word_pieces};
use crate::{Error, Result};

/// Writes the keys of a tokenizer. A model with more rows than tokens gets tokens that are not used.
///
/// # Errors
///
/// If llama.cpp has no such tokenizer, or no name for its rules of splitting.
pub(crate) fn to_gguf(tokenizer: &Tokenizer, rows: usize, metadata: &mut Metadata) -> Result<()> {
    let json = serde_json::to_value(&*tokenizer.inner)
        .map_err(|error| Error::Tokenizer(error.to_string()))?;
    let model = &json["model"];
    let unsupported = |reason: String| {
        Err(Error::Tokenizer(format!(
            "it cannot be written into a GGUF file: {reason}"
        )))
    };
    let words = model["type"] == "WordPiece";
    if model["type"] != "BPE" && !words {
        return unsupported(format!(
            "its model is {}, and BPE and WordPiece are written",
            model["type"]
        ));
    }
    if let Some(reason) = word_pieces::unsupported(&json).filter(|_| words) {
        return unsupported(reason.into());
    }
    let pieces = model["byte_fallback"] == true;
    let mut tokens = vec![String::new(); rows];
    let mut types = vec![UNUSED; rows];
    let vocab = tokenizer.inner.get_vocab(true);
    for (token, id) in &vocab {
        let Some(place) = tokens.get_mut(*id as usize) else {
            return unsupported(format!(
                "token {token:?} has id {id}, and the model has {rows} rows"
            ));
        };
        *place = token.clone();
        types[*id as usize] = match token
            .strip_prefix("<0x")
            .and_then(|rest| rest.strip_suffix('>'))
        {
            Some(hex) if pieces && hex.len() == 2 && u8::from_str_radix(hex, 16).is_ok() => BYTE,
            _ => NORMAL,
        };
    }
    for (id, token) in tokenizer.inner.get_added_tokens_decoder() {
        if let Some(kind) = types.get_mut(id as usize) {
            *kind = if token.special { CONTROL } else { USER_DEFINED };
        }
    }
    for (id, token) in tokens.iter_mut().enumerate() {
        if types[id] == UNUSED {
            *token = format!("[PAD{id}]");
        }
    }
    let merges: Vec<(String, String)> = (model["merges"].as_array().into_iter().flatten())
        .filter_map(|merge| match merge {
            Value::String(pair) => pair.split_once(' ').map(|(a, b)| (a.into(), b.into())),
            pair => Some((pair[0].as_str()?.into(), pair[1].as_str()?.into())),
        })
        .collect();
    if words {
        for token in &mut tokens {
            *token = word_pieces::to_gguf(token);
        }
        metadata.set(MODEL, "bert");
    } else if pieces {
        metadata.set(MODEL, "llama");
        metadata.set(PRE, "default");
        if let Some(unknown) = tokenizer.unk_token_id() {
            types[unknown as usize] = UNKNOWN;
        }
        metadata.set(SCORES, scores(&tokens, &types, &merges));
        let prefix = json["normalizer"].to_string().contains("Prepend")
            || json["pre_tokenizer"]["prepend_scheme"] == "first"
            || json["pre_tokenizer"]["prepend_scheme"] == "always";
        metadata.set(SPACE_PREFIX, prefix);
    } else {
        let known = pre_tokenizer::all();
        let found = known.iter().find(|rules| is_of(rules, &json));
        let Some(found) = found else {
            return unsupported(format!(
                "llama.cpp splits texts by rules that have names, and none of those known here has these: {}",
                json["pre_tokenizer"]
            ));
        };
        metadata.set(MODEL, "gpt2");
        metadata.set(PRE, found.names[0]);
        let merges: Vec<String> = merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
        metadata.set(MERGES, merges);
    }
    metadata.set(TOKENS, tokens);
    let types: Vec<i32> = types.into_iter().map(|kind| kind as i32).collect();
    metadata.set(TYPES, types);
    for (key, name) in NAMED {
        let token = tokenizer
            .named(name)
            .and_then(|token| tokenizer.token_to_id(token));
        if let Some(id) = token {
            metadata.set(key, id);
        }
    }
    // The end of a turn, where it is another token than that of a text.
    let turns = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"];
    let turn = turns.iter().find_map(|name| tokenizer.token_to_id(name));
    if let Some(id) = turn.filter(|id| Some(*id) != tokenizer.eos_token_id()) {
        metadata.set(EOT, id);
    }
    if words {
        let cls = tokenizer.named("cls_token");
        let Some(cls) = cls.and_then(|token| tokenizer.token_to_id(token)) else {
            return unsupported("it has no cls_token".into());
        };
        metadata.set(NAMED[0].0, cls);
        metadata.set(ADD_BOS, true);
        metadata.set("tokenizer.ggml.add_sep_token", true);
        return Ok(());
    }
    let ids = tokenizer.encode("a", true)?;
    metadata.set(
        ADD_BOS,
        tokenizer.bos_token_id().is_some() && ids.first().copied() == tokenizer.bos_token_id(),
    );
    let ends =
        tokenizer.eos_token_id().is_some() && ids.last().copied() == tokenizer.eos_token_id();
    if ends {
        metadata.set(ADD_EOS, true);
    }
    if let Some(template) = tokenizer.template("default") {
        metadata.set(TEMPLATE, template.source.as_str());
    }
    Ok(())
}

fn is_of(rules: &PreTokenizer, json: &Value) -> bool {
    pre_tokenizer::same(&rules.rules, &json["pre_tokenizer"])
        && (rules.normalizer == json["normalizer"] || json["normalizer"] == Value::Null)
        && (rules.ignore_merges == (json["model"]["ignore_merges"] == true))
}

/// Scores in the order of the merges: SentencePiece merges the pair with the highest score first. Pieces that no merge makes get
/// the score of the first.
fn scores(tokens: &[String], types: &[i64], merges: &[(String, String)]) -> Vec<f32> {
    let mut order: HashMap<String, f32> = HashMap::new();
    for (i, (left, right)) in merges.iter().enumerate() {
        order.entry(format!("{left}{right}")).or_insert(-(i as f32));
    }
    let last = -(merges.len() as f32);
    let score = |(token, kind): (&String, &i64)| match *kind {
        NORMAL => order.get(token).copied().unwrap_or(last),
        _ => 0.0,
    };
    tokens.iter().zip(types).map(score).collect()
}
