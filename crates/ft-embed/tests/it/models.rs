//! Folders of sentence-transformers, and their embeddings; made by `golden/models.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use ft_core::{AutoBackbone, BackboneConfig, SaveOptions, Tokenizer};
use ft_embed::quantize::{Ranges, binary};
use ft_embed::{
    Dense, DenseActivation, EmbeddingModel, Embeddings, EncodeOptions, Pooling, PoolingMode,
    Prompt, Similarity, TextBatch, TextDataset, TextRow, retrieval_ndcg, search_run,
    similarity_spearman,
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

/// Attention of MPNet does not work in tiles, so its batches are padded, on the CPU too.
#[test]
fn batches_of_padded_rows_count_padding() {
    let config = BackboneConfig::from_json(serde_json::json!({
        "model_type": "mpnet", "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 20,
    }));
    let body = AutoBackbone::from_config(&config.expect("reads"), &Device::default());
    let tokenizer = Tokenizer::from_pretrained(&folder("tiny")).expect("loads");
    let model = EmbeddingModel::new(body.expect("starts"), tokenizer, PoolingMode::Mean, false);
    let model = model.expect("fits");
    let device = Device::default();
    // One text of 16 tokens and 20 of 3.
    let mut texts = vec!["cat dog ".repeat(8)];
    texts.resize(21, "cat".to_string());
    let tokens = model.tokenize(&texts, None).expect("tokenizes");
    let mut done = vec![0];
    let options = EncodeOptions {
        batch_tokens: 32,
        ..EncodeOptions::default()
    };
    let found = model.encode_with(&texts, &options, &mut |count, _| done.push(count));
    let found = found.expect("encodes");
    let longest_first: Vec<_> = tokens.iter().collect();
    for two in done.windows(2) {
        let batch = model.batch(&longest_first[two[0]..two[1]], &device);
        assert!(batch.slots() <= 32, "{} slots", batch.slots());
    }
    assert_eq!(done.len() - 1, 3, "{done:?}");
    let alone = model.encode(&texts[..1]).expect("encodes");
    assert_rows("alone", &alone, &[found.row(0).to_vec()], 1e-6);
}

/// As in sentence-transformers, whose default modules depend on the architecture.
#[test]
fn a_plain_folder_of_a_causal_language_model_is_pooled_at_its_last_token() {
    let decoder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tiny-llama");
    let model = EmbeddingModel::from_pretrained(&decoder, &Device::default()).expect("loads");
    assert_eq!(model.pooling().modes, [PoolingMode::LastToken]);
    let copy = tempfile::TempDir::new().expect("temporary folder");
    load("tiny")
        .save_pretrained(copy.path(), &SaveOptions::default())
        .expect("saves");
    std::fs::remove_file(copy.path().join("modules.json")).expect("removes");
    let model = EmbeddingModel::from_pretrained(copy.path(), &Device::default()).expect("loads");
    assert_eq!(model.pooling().modes, [PoolingMode::Mean]);
}

#[test]
fn the_number_of_dimensions_of_a_folder_is_kept() {
    let texts = texts();
    let whole = load("tiny").encode(&texts).expect("encodes");
    let model = load("tiny").with_truncate_dim(Some(4)).expect("fewer");
    let copy = tempfile::TempDir::new().expect("temporary folder");
    model
        .save_pretrained(copy.path(), &SaveOptions::default())
        .expect("saves");
    let model = EmbeddingModel::from_pretrained(copy.path(), &Device::default()).expect("loads");
    assert_eq!((model.truncate_dim(), model.dims()), (Some(4), 10));
    // sentence-transformers does not normalize what is left.
    let cut = model.encode(&texts).expect("encodes");
    assert_eq!(cut, whole.truncated(4).expect("fewer"));
    let options = EncodeOptions {
        dims: Some(10),
        ..EncodeOptions::default()
    };
    let all = model.encode_with(&texts, &options, &mut |_, _| {});
    assert_eq!(all.expect("encodes"), whole);
    assert!(load("tiny").with_truncate_dim(Some(11)).is_err());
}

/// The document of the same direction is shorter than another one.
#[test]
fn documents_are_ranked_by_the_similarity_of_the_model() {
    let names = |names: [&str; 2]| names.map(str::to_string);
    let queries = Embeddings::new(vec![1.0, 0.0], 2).expect("a row");
    let documents = Embeddings::new(vec![1.0, 0.0, 3.0, 3.0], 2).expect("rows");
    let best = |similarity| -> Result<String, ft_embed::Error> {
        let query = ["q".to_string()];
        let names = names(["alike", "long"]);
        let run = search_run((&query, &queries), (&names, &documents), similarity, 1)?;
        Ok(run.to_trec("x", Default::default()))
    };
    assert!(best(Similarity::Cosine).expect("ranks").contains("alike"));
    assert!(best(Similarity::Dot).expect("ranks").contains("long"));
    let error = best(Similarity::Euclidean).expect_err("no index");
    assert!(error.to_string().contains("similarity_fn_name"), "{error}");
}

#[test]
fn pairs_that_do_not_belong_together_are_not_counted_as_found() {
    let model = load("tiny");
    let row = |a: &str, b: &str, label: f32| TextRow {
        texts: vec![a.into(), b.into()],
        labels: vec![label],
    };
    let rows = vec![
        row("the cat", "the cat sat", 1.0),
        row("A dog ran!", "mat", 0.0),
        row("dog", "dog ran", 0.5),
    ];
    let error = retrieval_ndcg(&model, &rows, &[], 10, &[10]).expect_err("labels");
    assert!(error.to_string().contains("row 1 has a label"), "{error}");
    let all = TextDataset::new(rows.clone()).expect("rows");
    let positives = all.positives(1.0).expect("one").rows;
    let ndcg = retrieval_ndcg(&model, &positives, &[], 10, &[10, 4]).expect("measures");
    assert_eq!(ndcg, [1.0, 1.0]);
    // Labels that are the similarities themselves agree with them.
    let (first, second) = (
        model
            .encode(&["the cat", "A dog ran!", "dog"])
            .expect("encodes"),
        model
            .encode(&["the cat sat", "mat", "dog ran"])
            .expect("encodes"),
    );
    let own: Vec<TextRow> = (rows.iter().enumerate())
        .map(|(i, row)| TextRow {
            texts: row.texts.clone(),
            labels: vec![-Similarity::Cosine.of(first.row(i), second.row(i))],
        })
        .collect();
    let found = similarity_spearman(&model, &own, &[10]).expect("measures");
    assert_eq!(found, [-1.0]);
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
