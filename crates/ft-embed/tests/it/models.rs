//! Folders of sentence-transformers, and their embeddings; made by `golden/models.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use ft_core::{AutoBackbone, SaveOptions, Tokenizer};
use ft_embed::quantize::{Ranges, binary};
use ft_embed::{
    Dense, DenseActivation, EmbeddingModel, Embeddings, EncodeOptions, Pooling, PoolingMode,
    Prompt, TextBatch,
};
use serde_json::Value;

pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

pub(crate) fn json(name: &str) -> Value {
    let bytes = std::fs::read(folder(name)).expect("reads");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn texts() -> Vec<String> {
    serde_json::from_value(json("golden.json")["texts"].clone()).expect("texts")
}

pub(crate) fn rows(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).expect("rows of numbers")
}

pub(crate) fn assert_rows(what: &str, found: &Embeddings, expected: &[Vec<f32>], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.rows().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= tolerance, "{what}, text {i}: {a}, not {b}");
        }
    }
}

pub(crate) fn load(name: &str) -> EmbeddingModel {
    EmbeddingModel::from_pretrained(&folder(name), &Device::default()).expect("loads")
}

#[test]
fn both_forms_of_a_folder_give_the_embeddings_of_sentence_transformers() {
    let golden = json("golden.json");
    for name in ["tiny", "tiny_legacy"] {
        let model = load(name);
        assert_eq!((model.dims(), model.max_seq_length()), (10, 16));
        assert!(model.normalizes());
        let texts = texts();
        for (kind, found) in [
            ("plain", model.encode(&texts)),
            ("queries", model.encode_queries(&texts)),
            ("documents", model.encode_documents(&texts)),
        ] {
            assert_rows(kind, &found.expect("encodes"), &rows(&golden[kind]), 1e-5);
        }
    }
}

fn body() -> (AutoBackbone, Tokenizer) {
    let device = Device::default();
    let body = AutoBackbone::from_pretrained(&folder("tiny"), &device).expect("loads");
    (
        body,
        Tokenizer::from_pretrained(&folder("tiny")).expect("loads"),
    )
}

#[test]
fn every_pooling_is_that_of_sentence_transformers() {
    let golden: BTreeMap<String, Value> =
        serde_json::from_value(json("poolings.json")).expect("by mode");
    assert_eq!(golden.len(), 7);
    for (name, expected) in &golden {
        let modes = name
            .split(',')
            .map(|mode| serde_json::from_value::<PoolingMode>(mode.into()).expect("a mode"));
        let pooling = Pooling {
            modes: modes.collect(),
            include_prompt: true,
        };
        let (body, tokenizer) = body();
        let model = EmbeddingModel::new(body, tokenizer, pooling, false).expect("fits");
        let found = model.encode(&texts()).expect("encodes");
        assert_rows(name, &found, &rows(expected), 2e-5);
    }
}

#[test]
fn a_prompt_is_left_out_of_pooling() {
    let (body, tokenizer) = body();
    let pooling = Pooling {
        modes: vec![PoolingMode::WeightedMean],
        include_prompt: false,
    };
    let model = EmbeddingModel::new(body, tokenizer, pooling, false).expect("fits");
    let model = model.with_prompt("query", "query : ");
    let found = model.encode_queries(&texts()).expect("encodes");
    let expected = rows(&json("golden.json")["prompt_left_out"]);
    assert_rows("prompt left out", &found, &expected, 2e-5);
    let options = EncodeOptions {
        prompt: Prompt::Named("title"),
        ..EncodeOptions::default()
    };
    let error = model.encode_with(&["a"], &options, &mut |_, _| {});
    let error = error.expect_err("no such prompt").to_string();
    assert!(
        error.contains("title") && error.contains("query"),
        "{error}"
    );
}

/// The layout changes what is computed, not the result.
#[test]
fn packed_and_padded_batches_give_the_same_states() {
    let model = load("tiny");
    let device = Device::default();
    let tokens = model.tokenize(&texts(), None).expect("tokenizes");
    let tokens: Vec<_> = tokens.iter().collect();
    let of = |batch: TextBatch| {
        let hidden = model.hidden(&batch, &device);
        let pooled = model.pool(hidden, &batch).into_data();
        pooled.try_to_vec::<f32>().expect("f32")
    };
    let packed = of(TextBatch::packed(&tokens));
    let padded = of(TextBatch::padded(&tokens, 0));
    for (a, b) in packed.iter().zip(&padded) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn small_batches_truncation_and_progress() {
    let model = load("tiny");
    let texts = texts();
    let whole = model.encode(&texts).expect("encodes");
    let options = EncodeOptions {
        batch_tokens: 1,
        dims: Some(4),
        ..EncodeOptions::default()
    };
    let mut calls = Vec::new();
    let cut = model.encode_with(&texts, &options, &mut |done, of| calls.push((done, of)));
    let cut = cut.expect("encodes");
    assert_eq!(calls.last(), Some(&(texts.len(), texts.len())));
    assert_eq!(calls.len(), texts.len());
    let expected = whole.truncated(4).expect("four of ten").normalized();
    let expected: Vec<Vec<f32>> = expected.rows().map(<[f32]>::to_vec).collect();
    assert_rows("cut", &cut, &expected, 1e-6);
    let options = EncodeOptions {
        dims: Some(11),
        ..EncodeOptions::default()
    };
    assert!(model.encode_with(&texts, &options, &mut |_, _| {}).is_err());
    assert_eq!(model.encode::<&str>(&[]).expect("encodes").len(), 0);
}

#[test]
fn a_saved_model_is_the_same_model() {
    let (body, tokenizer) = body();
    let dense = Dense::new(16, 7, true, DenseActivation::Gelu, 0.5, &Device::default());
    let model = EmbeddingModel::new(body, tokenizer, PoolingMode::MeanSqrtLen, true)
        .and_then(|model| model.with_dense(dense))
        .and_then(|model| model.with_max_seq_length(9))
        .expect("fits")
        .with_prompt("query", "query : ");
    for model in [model, load("tiny"), load("tiny_legacy")] {
        let folder = tempfile::TempDir::new().expect("temporary folder");
        let options = SaveOptions::default();
        model
            .save_pretrained(folder.path(), &options)
            .expect("saves");
        let again = EmbeddingModel::from_pretrained(folder.path(), &Device::default());
        let again = again.expect("loads");
        assert_eq!(again.max_seq_length(), model.max_seq_length());
        assert_eq!(again.prompts(), model.prompts());
        let texts = texts();
        assert_eq!(
            again.encode_queries(&texts).expect("encodes"),
            model.encode_queries(&texts).expect("encodes")
        );
    }
}

#[test]
fn a_static_model_has_the_embeddings_of_sentence_transformers() {
    let model = load("tiny_static");
    assert_eq!((model.dims(), model.num_layers()), (12, 0));
    let texts: Vec<String> = texts()
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    let copy = tempfile::TempDir::new().expect("temporary folder");
    model
        .save_pretrained(copy.path(), &SaveOptions::default())
        .expect("saves");
    let again = EmbeddingModel::from_pretrained(copy.path(), &Device::default()).expect("loads");
    for model in [model, again] {
        let found = model.encode(&texts).expect("encodes");
        assert_rows("static", &found, &rows(&json("static.json")), 1e-6);
    }
}

#[test]
fn what_cannot_be_loaded_is_named() {
    let copy = || {
        let copy = tempfile::TempDir::new().expect("temporary folder");
        let model = load("tiny");
        model
            .save_pretrained(copy.path(), &SaveOptions::default())
            .expect("saves");
        copy
    };
    for (file, text, part) in [
        (
            "modules.json",
            r#"[{"idx": 0, "path": "", "type": "sentence_transformers.models.CLIPModel"}]"#,
            "CLIPModel",
        ),
        (
            "modules.json",
            r#"[{"path": "../x", "type": "a.Transformer"}]"#,
            "leads out",
        ),
        (
            "modules.json",
            r#"[{"path": "1_Pooling", "type": "a.Pooling"}]"#,
            "first module",
        ),
        (
            "1_Pooling/config.json",
            r#"{"pooling_mode": "median"}"#,
            "median",
        ),
        (
            "2_Dense/config.json",
            r#"{"in_features": 0, "out_features": 4}"#,
            "in_features",
        ),
        (
            "2_Dense/config.json",
            r#"{"in_features": 16, "out_features": 10, "bias": false, "activation_function": "torch.nn.modules.activation.SELU"}"#,
            "SELU",
        ),
        (
            "config_sentence_transformers.json",
            r#"{"default_prompt_name": "x"}"#,
            "default_prompt_name",
        ),
    ] {
        let copy = copy();
        std::fs::write(copy.path().join(file), text).expect("writes");
        let error = EmbeddingModel::from_pretrained(copy.path(), &Device::default());
        let error = error.expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn codes_are_those_of_sentence_transformers() {
    let golden = json("quantized.json");
    let values: Vec<Vec<f32>> = rows(&golden["embeddings"]);
    let embeddings = Embeddings::new(values.concat(), 19).expect("rows");
    let codes: Vec<Vec<i8>> = serde_json::from_value(golden["int8"].clone()).expect("codes");
    let ranges = Ranges::of(&embeddings).expect("many rows");
    assert_eq!(ranges.int8(&embeddings).expect("fits"), codes.concat());
    let bits: Vec<Vec<u8>> = serde_json::from_value(golden["ubinary"].clone()).expect("bits");
    assert_eq!(binary(&embeddings), bits.concat());
}
