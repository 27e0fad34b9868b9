//! The configuration of a model: from the keys of a file to those of `config.json`, and back.

use serde_json::{Map, Value as Json, json};

use super::architecture::{Architecture, Heads};
use super::rope::{rope_scaling, write_rope_scaling};
use super::{GgufFile, Metadata};
use crate::{Error, Result};

/// The keys of an architecture: `llama.block_count`.
pub(super) struct Keys<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) architecture: &'a str,
}

impl Keys<'_> {
    pub(super) fn of(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<u64>> {
        self.metadata.integer(&self.of(key))
    }

    pub(super) fn float(&self, key: &str) -> Result<Option<f64>> {
        self.metadata.float(&self.of(key))
    }

    /// An integer that must be there.
    fn size(&self, key: &str) -> Result<u64> {
        self.metadata.required(&self.of(key), self.integer(key)?)
    }
}

/// The architecture of a file.
///
/// # Errors
///
/// If the file names none, or one that is not known here.
pub(super) fn architecture(file: &GgufFile) -> Result<&'static Architecture> {
    const KEY: &str = "general.architecture";
    let metadata = file.metadata();
    let name = metadata.required(KEY, metadata.string(KEY)?)?;
    let two_norms = file.find("blk.0.attn_norm_2.weight").is_some();
    Architecture::of_name(name, two_norms).ok_or_else(|| {
        let known = Architecture::names().join(", ");
        metadata.invalid(
            KEY,
            &format!("{name:?} is not among the architectures that are read here: {known}"),
        )
    })
}

/// `config.json` of a file.
///
/// # Errors
///
/// If a key is missing or has another type than it should.
pub(super) fn config(file: &GgufFile, architecture: &Architecture) -> Result<Json> {
    let keys = Keys {
        metadata: file.metadata(),
        architecture: architecture.name,
    };
    let has = |name: &str| file.find(name).is_some();
    let vocab = file.find("token_embd.weight").map(|one| one.shape[0]);
    let vocab = file.metadata().required("token_embd.weight", vocab)?;
    let hidden = keys.size("embedding_length")?;
    let heads = keys.size("attention.head_count")?;
    let tied = !has("output.weight");
    let mut map = Map::new();
    let mut set = |key: &str, value: Json| {
        map.insert(key.into(), value);
    };
    set("model_type", architecture.model_types[0].into());
    set("vocab_size", vocab.into());
    set("tie_word_embeddings", tied.into());
    for (ours, theirs) in [
        ("tokenizer.ggml.bos_token_id", "bos_token_id"),
        ("tokenizer.ggml.eos_token_id", "eos_token_id"),
        ("tokenizer.ggml.padding_token_id", "pad_token_id"),
    ] {
        set(theirs, file.metadata().integer(ours)?.into());
    }
    let layers = keys.size("block_count")?;
    let tensors = file.tensors().len();
    if layers > tensors as u64 {
        return Err(file.metadata().invalid(
            &keys.of("block_count"),
            &format!("{layers} blocks, and the file has {tensors} tensors"),
        ));
    }
    let context = keys.size("context_length")?;
    let inner = keys.size("feed_forward_length")?;
    let layer_norm_epsilon = || {
        let key = "attention.layer_norm_epsilon";
        file.metadata().required(&keys.of(key), keys.float(key)?)
    };
    if architecture.name == "gpt2" {
        set("n_embd", hidden.into());
        set("n_layer", layers.into());
        set("n_head", heads.into());
        set("n_positions", context.into());
        set("n_inner", inner.into());
        set("layer_norm_epsilon", layer_norm_epsilon()?.into());
        return Ok(map.into());
    }
    if architecture.is_encoder() {
        let types = file.find("token_types.weight").map(|one| one.shape[0]);
        let types = file.metadata().required("token_types.weight", types)?;
        set("hidden_size", hidden.into());
        set("num_hidden_layers", layers.into());
        set("num_attention_heads", heads.into());
        set("max_position_embeddings", context.into());
        set("intermediate_size", inner.into());
        set("type_vocab_size", types.into());
        set("layer_norm_eps", layer_norm_epsilon()?.into());
        set("hidden_act", "gelu".into());
        return Ok(map.into());
    }
    let kv_heads = keys.integer("attention.head_count_kv")?.unwrap_or(heads);
    let width = match keys.integer("attention.key_length")? {
        Some(width) => width,
        None if heads > 0 => hidden / heads,
        None => 0,
    };
    set("hidden_size", hidden.into());
    set("num_hidden_layers", layers.into());
    set("num_attention_heads", heads.into());
    set("max_position_embeddings", context.into());
    set(
        "rope_theta",
        keys.float("rope.freq_base")?.unwrap_or(10_000.0).into(),
    );
    set("rope_scaling", rope_scaling(file, &keys, width)?);
    let rotated = keys.integer("rope.dimension_count")?.unwrap_or(width);
    let part = rotated as f64 / (width as f64).max(1.0);
    match architecture.name {
        "falcon" => {
            let new = architecture
                .block
                .iter()
                .any(|(ours, _)| *ours == "attn_norm_2");
            let new = new || (kv_heads > 1 && kv_heads < heads);
            set("num_kv_heads", kv_heads.into());
            set("new_decoder_architecture", new.into());
            set("multi_query", (kv_heads == 1 && !new).into());
            if new && has("blk.0.attn_norm.weight") && !has("blk.0.attn_norm_2.weight") {
                set("num_ln_in_parallel_attn", 1.into());
            }
            set("parallel_attn", true.into());
            set("bias", has("blk.0.attn_qkv.bias").into());
            set("alibi", false.into());
            set("ffn_hidden_size", inner.into());
            set("layer_norm_epsilon", layer_norm_epsilon()?.into());
        }
        "phi2" | "gptneox" => {
            set("intermediate_size", inner.into());
            set("layer_norm_eps", layer_norm_epsilon()?.into());
            if architecture.name == "phi2" {
                set("partial_rotary_factor", part.into());
                set("num_key_value_heads", kv_heads.into());
            } else {
                set("rotary_pct", part.into());
                let base = keys.float("rope.freq_base")?.unwrap_or(10_000.0);
                set("rotary_emb_base", base.into());
                let key = keys.of("use_parallel_residual");
                let parallel = file.metadata().boolean(&key)?.unwrap_or(true);
                set("use_parallel_residual", parallel.into());
                set("attention_bias", has("blk.0.attn_qkv.bias").into());
                set("hidden_act", "gelu".into());
            }
        }
        name => {
            set("intermediate_size", inner.into());
            set("num_key_value_heads", kv_heads.into());
            let key = "attention.layer_norm_rms_epsilon";
            let epsilon = file.metadata().required(&keys.of(key), keys.float(key)?)?;
            set("rms_norm_eps", epsilon.into());
            set("attention_bias", has("blk.0.attn_q.bias").into());
            set("mlp_bias", has("blk.0.ffn_gate.bias").into());
            match name {
                "phi3" if part < 1.0 => set("partial_rotary_factor", part.into()),
                "phi3" => {}
                _ => set("head_dim", width.into()),
            }
            special(&keys, file, name, layers, &mut set)?;
        }
    }
    Ok(map.into())
}

/// What only some of the relatives of Llama have.
fn special(
    keys: &Keys<'_>,
    file: &GgufFile,
    name: &str,
    layers: u64,
    set: &mut impl FnMut(&str, Json),
) -> Result<()> {
    let window = keys.integer("attention.sliding_window")?;
    match name {
        "gemma" => set("hidden_act", "gelu_pytorch_tanh".into()),
        "gemma2" | "gemma3" => {
            set("hidden_activation", "gelu_pytorch_tanh".into());
            for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
                set(key, keys.float(key)?.into());
            }
            let hidden = keys.integer("embedding_length")?.unwrap_or(0);
            let heads = keys.integer("attention.head_count")?.unwrap_or(1).max(1);
            let width = keys
                .integer("attention.key_length")?
                .unwrap_or(hidden / heads);
            // llama.cpp knows the two models of 27B by their size.
            let large = (name == "gemma2" && layers == 46) || (name == "gemma3" && layers == 62);
            set(
                "query_pre_attn_scalar",
                if large { hidden / heads } else { width }.into(),
            );
            set("sliding_window", window.unwrap_or(4096).into());
        }
        "qwen2" | "qwen3" => set("use_sliding_window", false.into()),
        "phi3" => {
            set("sliding_window", window.filter(|window| *window > 0).into());
            let original = keys.integer("rope.scaling.original_context_length")?;
            if let Some(original) = original {
                set("original_max_position_embeddings", original.into());
            }
            set(
                "pad_token_id",
                file.metadata()
                    .integer("tokenizer.ggml.padding_token_id")?
                    .into(),
            );
        }
        "granite" => {
            for (ours, theirs) in GRANITE {
                set(theirs, keys.float(ours)?.unwrap_or(1.0).into());
            }
        }
        _ => {}
    }
    Ok(())
}

const GRANITE: [(&str, &str); 4] = [
    ("embedding_scale", "embedding_multiplier"),
    ("residual_scale", "residual_multiplier"),
    ("attention.scale", "attention_multiplier"),
    ("logit_scale", "logits_scaling"),
];

/// A setting of a model that llama.cpp has built in with another value.
fn not_there(config: &Json, name: &str, heads: Heads) -> Option<&'static str> {
    let size = |key: &str| config[key].as_u64().unwrap_or(0) as usize;
    let layers = size("num_hidden_layers");
    let every = |every: usize, last: &str, others: &str, key: &str| {
        let types = config[key].as_array().into_iter().flatten().enumerate();
        let mut types = types.map(|(i, kind)| (i % every == every - 1, kind));
        types.all(|(is_last, kind)| {
            let expected = if is_last { last } else { others };
            let number = kind.as_u64().map(|number| number.to_string());
            number.map_or(kind == expected, |number| number == expected)
        })
    };
    let full = "full_attention";
    let slides = "sliding_attention";
    let scalar = |large: usize| match layers == large {
        true => size("hidden_size") / heads.heads.max(1),
        false => heads.width,
    };
    match name {
        "gemma" | "gemma2" | "gemma3" if config["tie_word_embeddings"] != true => {
            Some("tie_word_embeddings")
        }
        "gemma2" if size("query_pre_attn_scalar") != scalar(46) => Some("query_pre_attn_scalar"),
        "gemma2" if !every(2, full, slides, "layer_types") => Some("layer_types"),
        "gemma3" if size("query_pre_attn_scalar") != scalar(62) => Some("query_pre_attn_scalar"),
        "gemma3" if !every(6, full, slides, "layer_types") => Some("layer_types"),
        "gemma3" if config["rope_local_base_freq"].as_f64() != Some(10_000.0) => {
            Some("rope_local_base_freq")
        }
        "gptneox" | "phi2" if config["tie_word_embeddings"] == true => Some("tie_word_embeddings"),
        "gptneox" if config["attention_bias"] != true => Some("attention_bias"),
        "smollm3" if !every(4, "0", "1", "no_rope_layers") => Some("no_rope_layers"),
        _ => None,
    }
}

/// The heads that a `config.json` describes.
pub(super) fn heads(config: &Json) -> Heads {
    let size = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| config[*key].as_u64());
        found.and_then(|size| usize::try_from(size).ok())
    };
    let heads = size(&["num_attention_heads", "n_head"]).unwrap_or(0);
    let hidden = size(&["hidden_size", "n_embd"]).unwrap_or(0);
    let one_key = config["multi_query"] == true && config["new_decoder_architecture"] != true;
    let kv_heads = size(&["num_key_value_heads", "num_kv_heads"]).unwrap_or(heads);
    Heads {
        heads,
        kv_heads: if one_key { 1 } else { kv_heads },
        width: size(&["head_dim"]).unwrap_or(hidden / heads.max(1)),
    }
}

/// The keys of the architecture that describe a model with this `config.json`.
///
/// # Errors
///
/// If llama.cpp has no such model.
pub(super) fn write_config(
    config: &Json,
    architecture: &Architecture,
    metadata: &mut Metadata,
) -> Result<()> {
    let name = architecture.name;
    let key = |key: &str| format!("{name}.{key}");
    let size = |keys: &[&str]| -> Result<u32> {
        let found = keys.iter().find_map(|key| config[*key].as_u64());
        let found = found.and_then(|size| u32::try_from(size).ok());
        found.ok_or_else(|| Error::Settings(format!("config.json: {} is missing", keys[0])))
    };
    let float = |key: &str| config[key].as_f64().map(|value| value as f32);
    let of = heads(config);
    let hidden = size(&["hidden_size", "n_embd"])?;
    let mut set = |name: &str, value: super::Value| metadata.set(key(name), value);
    // Where llama.cpp has no window, the model is the same up to its length.
    let context = size(&["max_position_embeddings", "n_positions"])?;
    let slides = config["use_sliding_window"] != false;
    let window = size(&["sliding_window"]).ok().filter(|_| slides);
    let window = window.filter(|_| !matches!(name, "gemma2" | "gemma3"));
    set(
        "context_length",
        window.map_or(context, |window| context.min(window)).into(),
    );
    set("embedding_length", hidden.into());
    set(
        "block_count",
        size(&["num_hidden_layers", "n_layer"])?.into(),
    );
    let inner = size(&["intermediate_size", "n_inner", "ffn_hidden_size"]).unwrap_or(4 * hidden);
    set("feed_forward_length", inner.into());
    set("attention.head_count", (of.heads as u32).into());
    set("attention.head_count_kv", (of.kv_heads as u32).into());
    set("vocab_size", size(&["vocab_size"])?.into());
    if let Some(epsilon) = float("rms_norm_eps") {
        set("attention.layer_norm_rms_epsilon", epsilon.into());
    }
    for epsilon in ["layer_norm_eps", "layer_norm_epsilon"] {
        if let Some(epsilon) = float(epsilon) {
            set("attention.layer_norm_epsilon", epsilon.into());
        }
    }
    if name == "gpt2" {
        return Ok(());
    }
    if architecture.is_encoder() {
        if config.get("hidden_act").is_some_and(|act| *act != "gelu") {
            return Err(Error::Settings(format!(
                "llama.cpp's architecture {name} has hidden_act gelu, and this model {}",
                config["hidden_act"]
            )));
        }
        set("attention.causal", false.into());
        let types = size(&["type_vocab_size"]).unwrap_or(2);
        metadata.set("tokenizer.ggml.token_type_count", types);
        return Ok(());
    }
    if let Some(wrong) = not_there(config, name, of) {
        return Err(Error::Settings(format!(
            "llama.cpp's architecture {name} has no setting for {wrong} of this model"
        )));
    }
    let part = ["partial_rotary_factor", "rotary_pct"];
    let part = part.iter().find_map(|key| config[*key].as_f64());
    let part = part.unwrap_or(1.0);
    let rotated = (of.width as f64 * part) as u32;
    set("rope.dimension_count", rotated.into());
    set(
        "rope.freq_base",
        (float("rope_theta").or(float("rotary_emb_base")))
            .unwrap_or(10_000.0)
            .into(),
    );
    if !config["head_dim"].is_null() {
        set("attention.key_length", (of.width as u32).into());
        set("attention.value_length", (of.width as u32).into());
    }
    match name {
        "gemma2" | "gemma3" => {
            for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
                if let Some(cap) = float(key).filter(|cap| *cap > 0.0) {
                    set(key, cap.into());
                }
            }
            set(
                "attention.sliding_window",
                size(&["sliding_window"])?.into(),
            );
        }
        "phi3" => {
            if let Ok(window) = size(&["sliding_window"]) {
                set("attention.sliding_window", window.into());
            }
        }
        "granite" => {
            for (ours, theirs) in GRANITE {
                set(ours, float(theirs).unwrap_or(1.0).into());
            }
        }
        "gptneox" => {
            let parallel = config["use_parallel_residual"].as_bool().unwrap_or(true);
            set("use_parallel_residual", parallel.into());
        }
        "falcon" => {
            if config["alibi"] == json!(true) || config["parallel_attn"] == json!(false) {
                return Err(Error::Settings(
                    "llama.cpp has no Falcon with alibi or without parallel_attn".into(),
                ));
            }
            set("tensor_data_layout", "jploski".into());
        }
        _ => {}
    }
    write_rope_scaling(config, name, metadata)
}
