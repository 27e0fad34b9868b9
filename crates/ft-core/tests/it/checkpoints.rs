//! Model folders: what is saved loads again, and what is broken explains itself.

use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, FloatDType, TensorData};
use ft_core::safetensors_folder::{INDEX, WEIGHTS, module_tensors, read_tensors, write_tensors};
use ft_core::{AutoCausalLm, CausalLm, ModelConfig, PartMut, Parts, SaveOptions, TokenBatch};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::models::golden;

fn load(folder: &Path) -> Result<AutoCausalLm, String> {
    AutoCausalLm::from_pretrained(folder, &Device::default()).map_err(|e| e.to_string())
}

/// A copy of a golden model to break.
fn copy(name: &str) -> TempDir {
    let folder = TempDir::new().expect("temporary folder");
    for entry in std::fs::read_dir(golden(name)).expect("golden") {
        let path = entry.expect("entry").path();
        if path
            .file_name()
            .is_some_and(|name| name != "golden.safetensors")
        {
            std::fs::copy(&path, folder.path().join(path.file_name().expect("name")))
                .expect("copies");
        }
    }
    folder
}

fn change_config(folder: &TempDir, change: impl FnOnce(&mut Value)) {
    let path = folder.path().join("config.json");
    let mut json = serde_json::from_slice(&std::fs::read(&path).expect("reads")).expect("json");
    change(&mut json);
    std::fs::write(&path, json.to_string()).expect("writes");
}

#[track_caller]
fn explains(folder: &TempDir, expected: &[&str]) {
    let message = load(folder.path()).expect_err("must not load");
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn a_saved_model_loads_with_the_same_numbers_whole_and_sharded() {
    for name in [
        "llama",
        "llama_untied_bias",
        "llama_longrope",
        "qwen3",
        "gpt2",
        "mistral",
        "phi",
        "phi3_longrope",
        "gpt_neox",
        "gpt_neox_sequential",
        "falcon_rw",
        "falcon_11b",
        "gemma",
        "gemma2",
        "gemma3",
        "smollm3_window",
        "olmo2",
        "granite",
    ] {
        let model = load(&golden(name)).expect("loads");
        for max_shard_size in [usize::MAX, 10_000] {
            let folder = TempDir::new().expect("temporary folder");
            let options = SaveOptions {
                max_shard_size,
                ..SaveOptions::default()
            };
            model
                .save_pretrained(folder.path(), &options)
                .expect("saves");
            assert_eq!(folder.path().join(INDEX).exists(), max_shard_size == 10_000);
            let again = load(folder.path()).expect("loads again");
            assert_eq!(module_tensors(&again), module_tensors(&model), "{name}");
            let logits = |model: &AutoCausalLm| {
                let ids: Vec<u32> = (1..13).collect();
                let tokens = TokenBatch::from_ids(&ids, &Device::default());
                model.logits(&tokens, None).into_data()
            };
            assert_eq!(logits(&again), logits(&model), "{name}");
        }
    }
}

#[test]
fn saving_whole_over_shards_leaves_no_stale_shard() {
    let model = load(&golden("llama")).expect("loads");
    let folder = TempDir::new().expect("temporary folder");
    let sharded = SaveOptions {
        max_shard_size: 10_000,
        ..SaveOptions::default()
    };
    model
        .save_pretrained(folder.path(), &sharded)
        .expect("saves");
    // Not a shard, although its name begins like one.
    std::fs::write(folder.path().join("model-best.safetensors"), "kept").expect("writes");
    model
        .save_pretrained(folder.path(), &SaveOptions::default())
        .expect("saves");
    let mut names: Vec<String> = std::fs::read_dir(folder.path())
        .expect("reads")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into())
        .collect();
    names.sort();
    assert_eq!(names, ["config.json", "model-best.safetensors", WEIGHTS]);
}

/// Shards take the place of shards of the same names; nothing else stays in the folder.
#[test]
fn shards_over_shards_are_the_new_model() {
    let [old, mut new] = [(); 2].map(|()| load(&golden("llama")).expect("loads"));
    let folder = TempDir::new().expect("temporary folder");
    let sharded = SaveOptions {
        max_shard_size: 10_000,
        ..SaveOptions::default()
    };
    let names = || {
        let entries = std::fs::read_dir(folder.path()).expect("reads");
        let mut names: Vec<_> = entries.map(|e| e.expect("entry").file_name()).collect();
        names.sort();
        names
    };
    old.save_pretrained(folder.path(), &sharded).expect("saves");
    let before = names();
    new.for_each_linear_mut(&mut |_, linear| {
        linear.weight = Param::from_tensor(linear.weight.val() + 1.0).into();
    });
    new.save_pretrained(folder.path(), &sharded).expect("saves");
    assert_eq!(names(), before);
    let again = load(folder.path()).expect("loads");
    assert_eq!(module_tensors(&again), module_tensors(&new));
}

/// A key that is written as absent would be read as the reader's default: a window of 4096.
#[test]
fn a_mistral_without_window_stays_without() {
    let folder = copy("mistral");
    change_config(&folder, |config| config["sliding_window"] = Value::Null);
    let model = load(folder.path()).expect("loads");
    let saved = TempDir::new().expect("temporary folder");
    model
        .save_pretrained(saved.path(), &SaveOptions::default())
        .expect("saves");
    let again = load(saved.path()).expect("loads again");
    assert_eq!(
        again.config().to_json().get("sliding_window"),
        Some(&Value::Null)
    );
    let written = std::fs::read_to_string(saved.path().join("config.json")).expect("reads");
    let written: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(written.get("sliding_window"), Some(&Value::Null));
}

/// Qwen's window is 4096 too when its use is said and its size is not.
#[test]
fn a_qwen_that_uses_a_window_without_saying_which_has_that_of_transformers() {
    let folder = copy("qwen2_window");
    let window = || match load(folder.path()).expect("loads").config() {
        ModelConfig::Llama(config) => (config.window(0), config.window(1)),
        other => panic!("{other:?}"),
    };
    change_config(&folder, |config| {
        let keys = config.as_object_mut().expect("an object");
        keys.remove("sliding_window");
    });
    assert_eq!(window(), (None, Some(4096)));
    change_config(&folder, |config| config["sliding_window"] = Value::Null);
    assert_eq!(window(), (None, None));
    let saved = load(folder.path()).expect("loads").config().to_json();
    assert_eq!(saved.get("sliding_window"), Some(&Value::Null));
}

#[test]
fn settings_that_a_family_does_not_have_are_refused() {
    for (name, settings, expected) in [
        (
            "phi",
            json!({"tie_word_embeddings": true}),
            "tie_word_embeddings true",
        ),
        (
            "phi",
            json!({"num_key_value_heads": 3}),
            "num_key_value_heads 3",
        ),
        (
            "phi3",
            json!({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": null}),
            "longrope",
        ),
        ("gpt_neox", json!({"hidden_act": "mish"}), "mish"),
        ("falcon_7b", json!({"alibi": true}), "multi_query"),
        (
            "falcon_7b",
            json!({"num_ln_in_parallel_attn": 2}),
            "new_decoder_architecture",
        ),
        (
            "falcon_40b",
            json!({"parallel_attn": false}),
            "parallel_attn",
        ),
        (
            "falcon_7b",
            json!({"multi_query": false, "num_kv_heads": 2}),
            "num_kv_heads 2 needs new_decoder_architecture",
        ),
    ] {
        let folder = copy(name);
        change_config(&folder, |config| {
            for (key, value) in settings.as_object().expect("an object") {
                config[key] = value.clone();
            }
        });
        explains(&folder, &[expected]);
    }
}

/// A head that is stored beside a tied embedding must be the embedding, whatever the family calls it.
#[test]
fn a_tied_head_of_gpt_neox_that_is_no_embedding_is_refused() {
    let folder = copy("gpt_neox");
    change_config(&folder, |config| {
        config["tie_word_embeddings"] = true.into()
    });
    explains(
        &folder,
        &["embed_out.weight differs", "gpt_neox.embed_in.weight"],
    );
}

/// Pythia's files hold the causal mask of each layer.
#[test]
fn masks_that_old_checkpoints_of_gpt_neox_hold_are_ignored() {
    let folder = copy("gpt_neox");
    let path = folder.path().join(WEIGHTS);
    let tensors = read_tensors(&path).expect("reads");
    let mask = TensorData::new(vec![1.0f32], [1, 1, 1, 1]);
    let masks = ["bias", "masked_bias"]
        .map(|name| (format!("gpt_neox.layers.0.attention.{name}"), mask.clone()));
    let tensors: Vec<_> = tensors.into_iter().chain(masks).collect();
    write_tensors(&path, &tensors, &Default::default()).expect("writes");
    load(folder.path()).expect("loads");
}

#[test]
fn rope_settings_that_make_no_frequencies_are_refused() {
    let folder = copy("llama3_rope");
    let set = |scaling: Value| {
        change_config(&folder, |config| {
            let keys = config.as_object_mut().expect("an object");
            keys.remove("rope_parameters");
            keys.insert("rope_scaling".into(), scaling);
        });
    };
    set(json!({"rope_type": "linear", "factor": 0.0}));
    explains(&folder, &["factor must be above 0"]);
    set(
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
        "high_freq_factor": 1.0, "original_max_position_embeddings": 0}),
    );
    explains(
        &folder,
        &["original_max_position_embeddings", "high_freq_factor 1"],
    );
    change_config(&folder, |config| {
        config["rope_scaling"] = json!({"rope_type": "linear", "factor": 2.0});
        config["rope_parameters"] = json!({"rope_type": "default"});
    });
    explains(&folder, &["rope_parameters and rope_scaling"]);
    change_config(&folder, |config| config["rope_parameters"] = Value::Null);
    let model = load(folder.path()).expect("null is absent");
    assert_eq!(model.config().to_json()["rope_scaling"]["factor"], 2.0);
}

#[test]
fn sixteen_bit_saves_are_rounded_once() {
    let model = load(&golden("llama")).expect("loads");
    let folder = TempDir::new().expect("temporary folder");
    for dtype in [FloatDType::F16, FloatDType::BF16] {
        let options = SaveOptions {
            dtype,
            ..SaveOptions::default()
        };
        model
            .save_pretrained(folder.path(), &options)
            .expect("saves");
        let first = load(folder.path()).expect("loads");
        first
            .save_pretrained(folder.path(), &options)
            .expect("saves");
        let second = load(folder.path()).expect("loads");
        assert_eq!(module_tensors(&first), module_tensors(&second));
        // 8 bits of mantissa: relative error of at most 2⁻⁹
        for ((name, a), (_, b)) in module_tensors(&first).iter().zip(module_tensors(&model)) {
            for (a, b) in a.iter::<f32>().zip(b.iter::<f32>()) {
                assert!((a - b).abs() <= b.abs() / 256.0 + 1e-7, "{name}: {a} {b}");
            }
        }
    }
}

/// Names and bytes of the files of a folder.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).expect("there");
    let read = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().to_string();
        (name, std::fs::read(entry.path()).expect("reads"))
    };
    let mut files: Vec<_> = entries.map(|entry| read(entry.expect("reads"))).collect();
    files.sort();
    files
}

/// Whole or in shards, a failed save changes nothing on the disk.
#[test]
fn numbers_that_the_file_cannot_hold_are_refused_before_anything_is_written() {
    let with = |number: f32| {
        let mut model = load(&golden("llama")).expect("loads");
        model.for_each_part_mut(&mut |path, part| {
            if let PartMut::RmsNorm(norm) = part
                && path == "model.norm"
            {
                let weight = norm.weight.val().slice_fill(3..4, number);
                norm.weight = norm.weight.clone().map(|_| weight);
            }
        });
        model
    };
    let folder = TempDir::new().expect("temporary folder");
    let save = |number: f32, dtype, max_shard_size, folder: &Path| {
        let options = SaveOptions {
            dtype,
            max_shard_size,
        };
        with(number).save_pretrained(folder, &options)
    };
    save(70_000.0, FloatDType::F32, 12_000, folder.path()).expect("saves");
    save(70_000.0, FloatDType::BF16, 12_000, folder.path()).expect("saves");
    save(65_504.0, FloatDType::F16, 12_000, folder.path()).expect("saves");
    let before = files(folder.path());
    let new = folder.path().join("new");
    for (number, dtype, parts) in [
        (70_000.0, FloatDType::F16, ["70000", "bfloat16"]),
        (f32::MAX, FloatDType::BF16, ["340282350", "float32"]),
        (f32::NAN, FloatDType::F32, ["NaN", "not finite"]),
        (f32::NEG_INFINITY, FloatDType::F16, ["-inf", "not finite"]),
    ] {
        for max_shard_size in [12_000, 1_000_000] {
            for folder in [folder.path(), &new] {
                let error = save(number, dtype, max_shard_size, folder).expect_err("refused");
                let error = error.to_string();
                for part in parts.into_iter().chain(["model.norm.weight"]) {
                    assert!(error.contains(part), "{part} is not in: {error}");
                }
            }
            assert_eq!(files(folder.path()), before);
            assert!(!new.exists());
        }
    }
}

#[test]
fn a_missing_folder_file_or_shard_is_named() {
    assert!(
        load(Path::new("no/such/folder"))
            .expect_err("fails")
            .contains("config.json")
    );
    let folder = copy("llama");
    std::fs::remove_file(folder.path().join(WEIGHTS)).expect("removes");
    explains(&folder, &["model.safetensors", "neither"]);
    let folder = copy("llama_sharded");
    let shard = std::fs::read_dir(folder.path())
        .expect("reads")
        .map(|entry| entry.expect("entry").path())
        .find(|path| path.to_string_lossy().contains("00002-of"))
        .expect("a second shard");
    std::fs::remove_file(&shard).expect("removes");
    explains(&folder, &["shards are missing", "00002-of"]);
}

#[test]
fn a_truncated_file_is_told_from_a_whole_one() {
    let folder = copy("llama");
    let path = folder.path().join(WEIGHTS);
    let bytes = std::fs::read(&path).expect("reads");
    for len in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len]).expect("writes");
        explains(&folder, &["model.safetensors", "truncated"]);
    }
    // A header that claims to be larger than any file.
    let mut hostile = bytes.clone();
    hostile[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&path, hostile).expect("writes");
    explains(&folder, &["model.safetensors"]);
}

#[test]
fn an_index_cannot_point_outside_its_folder() {
    let folder = copy("llama_sharded");
    let path = folder.path().join(INDEX);
    let text = std::fs::read_to_string(&path).expect("reads");
    let text = text.replace("model-00001", "../model-00001");
    std::fs::write(&path, text).expect("writes");
    explains(&folder, &["not a file name"]);
}

#[test]
fn keys_that_do_not_fit_are_all_listed() {
    let folder = copy("llama");
    change_config(&folder, |json| {
        json["intermediate_size"] = 52.into();
        json["attention_bias"] = true.into();
    });
    explains(
        &folder,
        &[
            "missing (8)",
            "model.layers.0.self_attn.q_proj.bias",
            "of another shape (6)",
            "model.layers.1.mlp.down_proj.weight (model [32, 52], file [32, 48])",
        ],
    );
    let folder = copy("llama_untied_bias");
    change_config(&folder, |json| json["mlp_bias"] = false.into());
    explains(
        &folder,
        &["left over (6)", "model.layers.0.mlp.gate_proj.bias"],
    );
}

#[test]
fn wrong_settings_are_all_listed() {
    let folder = copy("llama");
    change_config(&folder, |json| json["model_type"] = "bloom".into());
    explains(&folder, &["bloom", "llama, mistral, qwen2, qwen3, gpt2"]);
    change_config(&folder, |json| {
        json["model_type"] = "llama".into();
        json["num_attention_heads"] = 5.into();
    });
    explains(&folder, &["num_attention_heads 5", "num_key_value_heads 2"]);
    change_config(&folder, |json| json["num_attention_heads"] = "four".into());
    explains(&folder, &["config.json", "four"]);
    change_config(&folder, |json| {
        json.as_object_mut().expect("object").remove("vocab_size");
        json["num_attention_heads"] = 4.into();
    });
    explains(&folder, &["vocab_size"]);
    std::fs::write(folder.path().join("config.json"), "{").expect("writes");
    explains(&folder, &["config.json", "JSON"]);
}

#[test]
fn a_head_that_the_configuration_would_drop_is_an_error() {
    let folder = copy("llama_untied_bias");
    change_config(&folder, |json| json["tie_word_embeddings"] = true.into());
    explains(&folder, &["lm_head.weight differs", "tie_word_embeddings"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let model = load(&golden("llama")).expect("loads");
    let folder = TempDir::new().expect("temporary folder");
    let file = folder.path().join("occupied");
    std::fs::write(&file, "").expect("writes");
    let error = model
        .save_pretrained(&file, &SaveOptions::default())
        .expect_err("fails");
    assert!(error.to_string().contains("occupied"), "{error}");
}
