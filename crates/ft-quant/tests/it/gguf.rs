//! Models written as GGUF files and read again: every architecture, and the mixes.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor};
use ft_core::gguf::{GgufFile, GgufModel};
use ft_core::safetensors_folder::{module_tensors, read_tensors, write_tensors};
use ft_core::{
    AutoCausalLm, CausalLm, ModelConfig, SaveOptions, TokenBatch, Tokenizer, Weights, dequantize,
    open_weights,
};
use ft_quant::{GgufOptions, Mix, ModelWeights, write_gguf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../ft-core/tests/golden")
        .join(name)
}

/// The tokenizer of the small model, whose vocabulary is cut to that of a golden model where it is read only for its form.
pub(crate) fn tokenizer() -> Tokenizer {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tiny-llama");
    Tokenizer::from_pretrained(&assets).unwrap()
}

fn logits(model: &AutoCausalLm, ids: &Tensor<2, Int>) -> Vec<f32> {
    let hidden = model.hidden_states(&TokenBatch::new(ids.clone()), None);
    model
        .head()
        .forward(hidden)
        .into_data()
        .iter::<f32>()
        .collect()
}

/// The largest difference, relative to the largest number.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let size = b.iter().fold(1e-3f32, |most, x| most.max(x.abs()));
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
        / size
}

/// A model of a golden configuration, with the vocabulary of the tokenizer, and with settings that llama.cpp has.
pub(crate) fn model_of(name: &str, device: &Device) -> AutoCausalLm {
    let text = std::fs::read(golden(name).join("config.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    json["vocab_size"] = tokenizer().vocab_size().into();
    match name {
        "gemma2" => {
            json["query_pre_attn_scalar"] = 12.into();
            json["tie_word_embeddings"] = true.into();
        }
        "llama_yarn" => {
            json["rope_parameters"]["beta_fast"] = 32.0.into();
            json["rope_parameters"]["beta_slow"] = 1.0.into();
        }
        "gpt_neox_sequential" => {
            json["attention_bias"] = true.into();
            json["tie_word_embeddings"] = false.into();
        }
        "gemma3" => {
            json["query_pre_attn_scalar"] = 8.into();
            json["layer_types"] = ["sliding_attention"; 2].into();
            json["rope_parameters"]["sliding_attention"]["rope_theta"] = 10_000.0.into();
        }
        "smollm3" => {
            json["num_hidden_layers"] = 4.into();
            json["no_rope_layers"] = [1, 1, 1, 0].into();
            json["layer_types"] = ["full_attention"; 4].into();
        }
        _ => {}
    }
    json["initializer_range"] = 0.2.into();
    let config = ModelConfig::from_json(json).unwrap();
    device.seed(7);
    AutoCausalLm::from_config(&config, device).unwrap()
}

/// What differs between a model of a golden configuration and what its file gives.
fn difference(name: &str, folder: &Path) -> Result<(), String> {
    let device = Device::default();
    let model = model_of(name, &device);
    let config = model.config().to_json();
    let path = folder.join(format!("{name}.gguf"));
    let options = GgufOptions::new(Mix::F32);
    let written = write_gguf(
        &ModelWeights::new(&model).expect("no adapters"),
        &config,
        &tokenizer(),
        &path,
        &options,
    )
    .map_err(|error| error.to_string())?;
    assert_eq!(
        written.bytes as u64,
        std::fs::metadata(&path).unwrap().len()
    );
    assert_eq!(written.mean_error(), 0.0);
    let again = AutoCausalLm::from_pretrained(&path, &device).map_err(|error| error.to_string())?;
    let ids: Vec<i64> = (0..24).map(|i| (i * 37 + 5) % 500).collect();
    let ids_tensor = Tensor::<1, Int>::from_data(ids.as_slice(), &device).unsqueeze::<2>();
    let (found, expected) = (logits(&again, &ids_tensor), logits(&model, &ids_tensor));
    // For tests/reference/gguf_logits.py, which compares them with llama.cpp's.
    if let Some(folder) = std::env::var_os("FT_TEST_GGUF_DIR").map(PathBuf::from) {
        std::fs::copy(&path, folder.join(format!("{name}.gguf"))).unwrap();
        let json = serde_json::json!({"ids": ids, "logits": expected}).to_string();
        std::fs::write(folder.join(format!("{name}.json")), json).unwrap();
    }
    let far = distance(&found, &expected);
    if far > 1e-5 {
        let (found, expected) = (again.config().to_json(), model.config().to_json());
        return Err(format!(
            "logits differ by {far}: {found} in place of {expected}"
        ));
    }
    let (found, expected) = (module_tensors(&again), module_tensors(&model));
    for ((path, found), (_, expected)) in found.iter().zip(&expected) {
        let pairs = found.iter::<f32>().zip(expected.iter::<f32>());
        // Norms of Gemma are one larger in the file.
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if worst > 1e-6 {
            return Err(format!("{path} differs by {worst}"));
        }
    }
    Ok(())
}

#[test]
fn every_architecture_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let names = [
        "llama",
        "llama3_rope",
        "llama_linear_rope",
        "llama_yarn",
        "llama_untied_bias",
        "qwen2",
        "qwen3",
        "gemma",
        "gemma2",
        "gemma3",
        "smollm3",
        "olmo2",
        "granite",
        "phi",
        "phi3",
        "phi3_longrope",
        "gpt2",
        "gpt_neox",
        "gpt_neox_sequential",
        "falcon_7b",
        "falcon_11b",
        "falcon_40b",
    ];
    let wrong = names
        .iter()
        .filter_map(|name| Some((name, difference(name, folder.path()).err()?)));
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// GPT-2's own checkpoints name the tensors of the body without `transformer.`, embedding models theirs without `model.`.
#[test]
fn a_checkpoint_of_the_bare_body_gives_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    for (name, body) in [("gpt2", "transformer."), ("qwen3", "model.")] {
        let model = model_of(name, &Device::default());
        let (whole, bare) = (folder.path().join(name), folder.path().join("bare"));
        model
            .save_pretrained(&whole, &SaveOptions::default())
            .unwrap();
        let tensors = read_tensors(&whole.join("model.safetensors")).unwrap();
        let without = |name: &str| name.strip_prefix(body).unwrap_or(name).to_string();
        let tensors: Vec<_> = (tensors.into_iter())
            .map(|(name, data)| (without(&name), data))
            .collect();
        std::fs::create_dir_all(&bare).unwrap();
        let none = std::collections::HashMap::new();
        write_tensors(&bare.join("model.safetensors"), &tensors, &none).unwrap();
        std::fs::copy(whole.join("config.json"), bare.join("config.json")).unwrap();
        let [whole, bare] = [whole, bare].map(|from| {
            let to = from.with_extension("gguf");
            let weights = open_weights(&from).unwrap();
            let config = model.config().to_json();
            let options = GgufOptions::new(Mix::Q8_0);
            write_gguf(&*weights, &config, &tokenizer(), &to, &options).unwrap();
            std::fs::read(to).unwrap()
        });
        assert!(whole == bare, "{name}");
    }
}

#[test]
fn mixes_are_read_as_blocks_and_close_to_the_model() {
    let device = Device::default();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tiny-llama");
    let tokenizer = tokenizer();
    let config = ModelConfig::from_pretrained(&assets).unwrap().to_json();
    let weights = open_weights(&assets).unwrap();
    let model = AutoCausalLm::from_pretrained(&assets, &device).unwrap();
    let ids: Vec<i64> = (0..64).map(|i| i * 31 % 500).collect();
    let ids = Tensor::<1, Int>::from_data(ids.as_slice(), &device).unsqueeze::<2>();
    let expected = logits(&model, &ids);
    let folder = tempfile::tempdir().unwrap();
    for mix in Mix::all() {
        let path = folder.path().join(format!("{mix}.gguf"));
        let written = write_gguf(
            &*weights,
            &config,
            &tokenizer,
            &path,
            &GgufOptions::new(mix),
        )
        .unwrap();
        let file = GgufFile::open(&path).unwrap();
        assert_eq!(
            file.metadata().integer("general.file_type").unwrap(),
            Some(mix.file_type().into())
        );
        assert_eq!(file.tensors().len(), written.tensors.len());
        for (found, said) in file.tensors().iter().zip(&written.tensors) {
            assert_eq!((&found.name, found.kind), (&said.name, said.kind));
        }
        let mut packed =
            AutoCausalLm::from_pretrained_with(&path, &device, Weights::Stored).unwrap();
        let found = logits(&packed, &ids);
        let blocks = dequantize(&mut packed);
        assert_eq!(blocks > 0, !matches!(mix, Mix::F32 | Mix::F16 | Mix::BF16));
        // Blocks and their decoded numbers differ by the rounding of activations.
        assert!(distance(&found, &logits(&packed, &ids)) < 0.05, "{mix}");
        let limit = match written.bits_per_weight() {
            bits if bits > 15.0 => 0.01,
            bits if bits > 8.0 => 0.05,
            bits if bits > 4.9 => 0.3,
            _ => 0.8,
        };
        assert!(
            distance(&found, &expected) < limit,
            "{mix}: {}",
            distance(&found, &expected)
        );
    }
}

#[test]
fn the_tokenizer_comes_back() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tiny-llama");
    let tokenizer = tokenizer();
    let config = ModelConfig::from_pretrained(&assets).unwrap().to_json();
    let weights = open_weights(&assets).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write_gguf(
        &*weights,
        &config,
        &tokenizer,
        &path,
        &GgufOptions::new(Mix::Q8_0),
    )
    .unwrap();
    let again = GgufModel::open(&path).unwrap().tokenizer().unwrap();
    assert_eq!(again.special_tokens(), tokenizer.special_tokens());
    for text in [
        "A kite is a toy.",
        "12345 and\n\n\ttabs  ",
        "Ünïcödé 日本語 🙂",
        "<|im_start|>user\nHi<|im_end|>",
    ] {
        let ids = again.encode(text, true).unwrap();
        assert_eq!(ids, tokenizer.encode(text, true).unwrap(), "{text:?}");
        assert_eq!(
            again.decode(&ids, false).unwrap(),
            tokenizer.decode(&ids, false).unwrap()
        );
    }
}

#[test]
fn numbers_that_are_not_finite_are_not_written() {
    let device = Device::default();
    let mut model = model_of("llama", &device);
    ft_core::Parts::for_each_linear_mut(&mut model, &mut |path, linear| {
        if path.ends_with("0.mlp.up_proj") {
            linear.weight = burn::module::Param::from_tensor(linear.weight.val() * f32::NAN).into();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    for mix in [Mix::F16, Mix::Q8_0] {
        let path = folder.path().join("model.gguf");
        let config = model.config().to_json();
        let error = write_gguf(
            &ModelWeights::new(&model).expect("no adapters"),
            &config,
            &tokenizer(),
            &path,
            &GgufOptions::new(mix),
        );
        let error = error.expect_err("refused").to_string();
        assert!(error.contains("blk.0.ffn_up.weight"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

/// A tokenizer of WordPiece in a folder.
fn word_pieces(folder: &Path) -> Tokenizer {
    let tokens = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "kite", "is", "toy", "##s", ".", "##y",
        "to", "u", "##n",
    ];
    let vocab: serde_json::Map<String, serde_json::Value> = (tokens.iter().enumerate())
        .map(|(id, token)| (token.to_string(), id.into()))
        .collect();
    let added = tokens[..5].iter().enumerate().map(|(id, token)| {
        serde_json::json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true,
        })
    });
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    });
    let config = serde_json::json!({
        "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]",
        "tokenizer_class": "BertTokenizer",
    });
    std::fs::write(folder.join("tokenizer.json"), json.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::from_pretrained(folder).unwrap()
}

#[test]
fn an_encoder_comes_back_with_its_tokenizer() {
    let device = Device::default();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bert.gguf");
    let tokenizer = word_pieces(folder.path());
    let source = open_weights(&golden("bert")).unwrap();
    let text = std::fs::read(golden("bert").join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap();
    write_gguf(
        &*source,
        &config,
        &tokenizer,
        &path,
        &GgufOptions::new(Mix::F32),
    )
    .unwrap();
    let load = |path: &Path| {
        let model =
            ft_core::AutoBackbone::from_pretrained_with(path, &device, Weights::F32).unwrap();
        module_tensors(&model)
    };
    assert_eq!(load(&path), load(&golden("bert")));
    let again = Tokenizer::from_pretrained(&path).unwrap();
    for text in ["A kite is a toy.", "Kites: Tóys, unseen!", "[MASK] 日本"] {
        let ids = again.encode(text, true).unwrap();
        assert_eq!(ids, tokenizer.encode(text, true).unwrap(), "{text:?}");
        assert_eq!(
            again.decode(&ids, false).unwrap(),
            tokenizer.decode(&ids, false).unwrap()
        );
    }
}
