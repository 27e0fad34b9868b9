//! Adapter files: saved adapters load again, and the error of a file that does not fit names the reason.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::tensor::{Device, TensorData};
use ft_core::Parts;
use ft_core::safetensors_folder::{read_tensors, write_tensors};
use ft_peft::{
    Common, LoraConfig, RankAllocator, TargetModules, attach, load_adapter, read_settings,
    save_adapter, set_active, unload,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::adapted_models::{distance, logits, model, on, set, with_random_b};
use crate::golden::saved_settings;

fn config() -> LoraConfig {
    LoraConfig {
        r: 4,
        lora_alpha: 6.0,
        common: named(on(TargetModules::all_linear())),
        ..LoraConfig::default()
    }
}

fn named(common: Common) -> Common {
    Common {
        base_model_name_or_path: Some("org/base \"quoted\"".into()),
        ..common
    }
}

fn saved(kind: &str, name: &str, config: &LoraConfig) -> (TempDir, burn::tensor::TensorData) {
    let device = Device::default();
    let folder = TempDir::new().expect("temporary folder");
    let model = attach(model(kind, &device), config, name, 1).expect("attaches");
    let model = with_random_b(model, name);
    save_adapter(&model, name, folder.path()).expect("saves");
    let expected = logits(&model, &device);
    (folder, expected)
}

#[test]
fn a_saved_adapter_loads_with_the_same_numbers() {
    let device = Device::default();
    for kind in ["llama", "gpt2"] {
        for config in [
            config(),
            LoraConfig {
                use_rslora: true,
                rank_pattern: vec![("q_proj|c_attn".into(), 2)],
                ..config()
            },
        ] {
            for name in ["default", "other"] {
                let (folder, expected) = saved(kind, name, &config);
                let place = if name == "default" {
                    folder.path().to_path_buf()
                } else {
                    folder.path().join(name)
                };
                for trainable in [false, true] {
                    let model = load_adapter(model(kind, &device), &place, name, trainable);
                    assert_eq!(logits(&model.expect("loads"), &device), expected);
                }
            }
        }
    }
}

#[test]
fn targets_are_written_as_names_and_gpt2_as_fan_in_fan_out() {
    for (kind, names, transposed) in [
        ("llama", 7, false),
        ("gpt2", 3, true), // c_attn, c_proj, c_fc
    ] {
        let (folder, _) = saved(kind, "default", &config());
        let text = std::fs::read_to_string(folder.path().join("adapter_config.json"));
        let json: Value = serde_json::from_str(&text.expect("reads")).expect("json");
        assert_eq!(json["target_modules"].as_array().map(Vec::len), Some(names));
        assert_eq!(json["fan_in_fan_out"], transposed);
        assert_eq!(json["lora_alpha"].to_string(), "6");
    }
}

#[test]
fn a_second_adapter_loads_beside_one_that_is_off() {
    let device = Device::default();
    let (folder, expected) = saved("llama", "default", &config());
    let other = attach(model("llama", &device), &config(), "other", 5).expect("attaches");
    let error = load_adapter(other.clone(), folder.path(), "default", false).expect_err("refused");
    assert!(error.to_string().contains("other"), "{error}");
    let mut other = other;
    set_active(&mut other, &[]).expect("there");
    let model = load_adapter(other, folder.path(), "default", false).expect("loads");
    assert!(distance(&logits(&model, &device), &expected) < 1e-6);
}

#[track_caller]
fn explains(folder: &Path, expected: &[&str]) {
    let model = model("llama", &Device::default());
    let message = load_adapter(model, folder, "default", false)
        .expect_err("must not load")
        .to_string();
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

fn change_config(folder: &TempDir, change: impl FnOnce(&mut Value)) {
    let path = folder.path().join("adapter_config.json");
    let mut json = serde_json::from_slice(&std::fs::read(&path).expect("reads")).expect("json");
    change(&mut json);
    std::fs::write(&path, json.to_string()).expect("writes");
}

#[test]
fn broken_files_are_explained() {
    explains(Path::new("no/such/folder"), &["adapter_config.json"]);
    let (folder, _) = saved("llama", "default", &config());
    change_config(&folder, |json| json["r"] = 8.into());
    explains(
        folder.path(),
        &[
            "of another shape (28)",
            "q_proj.lora_A",
            "[8, 24]",
            "[4, 24]",
        ],
    );
    change_config(&folder, |json| {
        json["r"] = 4.into();
        json["target_modules"] = serde_json::json!(["q_proj"]);
    });
    explains(folder.path(), &["left over (24)", "k_proj"]);
    change_config(&folder, |json| json["target_modules"] = "all-linear".into());
    let weights = folder.path().join("adapter_model.safetensors");
    let bytes = std::fs::read(&weights).expect("reads");
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).expect("writes");
    explains(folder.path(), &["adapter_model.safetensors", "truncated"]);
    std::fs::remove_file(&weights).expect("removes");
    explains(folder.path(), &["adapter_model.safetensors"]);
    std::fs::write(folder.path().join("adapter_model.bin"), "pickle").expect("writes");
    explains(folder.path(), &["adapter_model.bin", "save"]);
    change_config(&folder, |json| {
        json["use_qalora"] = true.into();
        json["init_lora_weights"] = "corda".into();
    });
    explains(
        folder.path(),
        &["adapter_config.json", "use_qalora", "init_lora_weights"],
    );
    std::fs::write(folder.path().join("adapter_config.json"), "{").expect("writes");
    explains(folder.path(), &["JSON"]);
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let (folder, _) = saved("gpt2", "default", &config());
    explains(folder.path(), &["c_attn", "q_proj"]);
}

#[test]
fn an_adapter_that_is_not_there_is_not_saved() {
    let device = Device::default();
    let model = attach(model("llama", &device), &config(), "default", 1).expect("attaches");
    let folder = TempDir::new().expect("temporary folder");
    let error = save_adapter(&model, "other", folder.path()).expect_err("refused");
    assert!(error.to_string().contains("there are default"), "{error}");
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("there").count(),
        0,
        "nothing is written"
    );
}

#[test]
fn factors_that_are_not_finite_are_not_saved() {
    let device = Device::default();
    let mut model = attach(model("llama", &device), &config(), "default", 1).expect("attaches");
    model.for_each_linear_mut(&mut |path, linear| {
        if path.ends_with("layers.0.self_attn.v_proj") {
            let adapter = &mut linear.adapters[0];
            let broken = adapter.val2("lora_B.weight").slice_fill(1..2, f32::NAN);
            set(adapter, "lora_B.weight", broken);
        }
    });
    let folder = TempDir::new().expect("temporary folder");
    let error = save_adapter(&model, "default", folder.path()).expect_err("refused");
    let error = error.to_string();
    for part in [
        "layers.0.self_attn.v_proj.lora_B.weight",
        "NaN",
        "not finite",
    ] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 0);
}

#[test]
fn adapters_saved_side_by_side_load_by_their_names() {
    let device = Device::default();
    let folder = TempDir::new().expect("temporary folder");
    let mut model = attach(model("llama", &device), &config(), "default", 1).expect("attaches");
    set_active(&mut model, &[]).expect("there");
    let model = attach(model, &config(), "other", 2).expect("attaches");
    let mut model = with_random_b(with_random_b(model, "default"), "other");
    for name in ["default", "other"] {
        let place = save_adapter(&model, name, folder.path()).expect("saves");
        assert_eq!(place == folder.path(), name == "default");
    }
    for name in ["default", "other"] {
        set_active(&mut model, &[name]).expect("there");
        let loaded = load_adapter(unload(model.clone()), folder.path(), name, false);
        assert_eq!(
            logits(&loaded.expect("loads"), &device),
            logits(&model, &device)
        );
    }
    let error = load_adapter(unload(model), folder.path(), "../up", false).expect_err("refused");
    assert!(error.to_string().contains("slashes"), "{error}");
}

#[test]
fn settings_read_from_a_folder_are_those_that_were_saved() {
    let config = LoraConfig {
        common: named(on(TargetModules::names(["q_proj", "v_proj"]))),
        lora_dropout: 0.1,
        ..config()
    };
    let (folder, _) = saved("llama", "default", &config);
    let read = LoraConfig::from_pretrained(folder.path()).expect("reads");
    assert_eq!(read, config);
}

/// Changes the tensors of a saved adapter.
fn change_tensors(folder: &TempDir, change: impl FnOnce(&mut BTreeMap<String, TensorData>)) {
    let path = folder.path().join("adapter_model.safetensors");
    let mut tensors = read_tensors(&path).expect("reads");
    change(&mut tensors);
    let tensors: Vec<(String, TensorData)> = tensors.into_iter().collect();
    write_tensors(&path, &tensors, &HashMap::new()).expect("writes");
}

const KEY: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

#[test]
fn tensors_without_finite_floats_are_refused() {
    for (data, reason) in [
        (TensorData::new(vec![f32::NAN; 24 * 4], [24, 4]), "NaN"),
        (TensorData::new(vec![1i64; 24 * 4], [24, 4]), "integers"),
        (TensorData::new(vec![1u8; 24 * 4], [24, 4]), "integers"),
    ] {
        let (folder, _) = saved("llama", "default", &config());
        change_tensors(&folder, |tensors| {
            tensors.insert(KEY.into(), data);
        });
        explains(folder.path(), &["adapter_model.safetensors", KEY, reason]);
    }
}

#[test]
fn a_number_in_place_of_a_matrix_is_refused() {
    let (folder, _) = saved("llama", "default", &config());
    change_tensors(&folder, |tensors| {
        let scalar = TensorData::new(vec![1.0f32], Vec::<usize>::new());
        tensors.insert("base_model.model.model.embed_tokens.weight".into(), scalar);
    });
    explains(
        folder.path(),
        &["of another shape (1)", "model.embed_tokens.weight", "[]"],
    );
}

#[test]
fn sizes_that_no_tensor_has_are_refused_without_memory_for_them() {
    for settings in [
        json!({"peft_type": "LORA", "r": 4}),
        json!({"peft_type": "LORA", "r": 4, "use_dora": true}),
        json!({"peft_type": "LORA", "r": 4, "init_lora_weights": "orthogonal"}),
        json!({"peft_type": "LORA", "r": 4, "target_modules": ["embed_tokens"]}),
        json!({"peft_type": "LOHA", "r": 4}),
        json!({"peft_type": "LOKR", "r": 1}),
        json!({"peft_type": "HRA", "r": 4}),
        json!({"peft_type": "VERA", "r": 4}),
        json!({"peft_type": "VERA", "r": 4, "save_projection": false}),
        json!({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}),
        json!({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}),
    ] {
        let made = attach(
            model("llama", &Device::default()),
            &*read_settings(&settings).expect("settings"),
            "default",
            1,
        );
        let folder = TempDir::new().expect("temporary folder");
        save_adapter(&made.expect("attaches"), "default", folder.path()).expect("saves");
        change_config(&folder, |json| {
            for key in ["r", "num_virtual_tokens"] {
                if settings.get(key).is_some() {
                    json[key] = 4_000_000_000u64.into();
                }
            }
        });
        explains(folder.path(), &[]);
    }
}

#[test]
fn a_file_does_not_change_another_adapter() {
    let device = Device::default();
    let (folder, _) = saved("llama", "default", &config());
    change_tensors(&folder, |tensors| {
        let data = tensors[KEY].clone();
        tensors.insert(KEY.replace("lora_B", "adapters.one.lora_B"), data);
    });
    let mut other = attach(model("llama", &device), &config(), "one", 5).expect("attaches");
    set_active(&mut other, &[]).expect("there");
    let error = load_adapter(other, folder.path(), "default", false).expect_err("refused");
    assert!(error.to_string().contains("left over (1)"), "{error}");
}

/// Both dropouts together are one in `f64`.
#[test]
fn dropouts_near_one_do_not_panic() {
    for peft_type in ["LOHA", "LOKR"] {
        let settings = json!({"peft_type": peft_type, "rank_dropout": 0.999_999_999,
            "module_dropout": 0.999_999_999});
        let settings = read_settings(&settings).expect("settings");
        attach(model("llama", &Device::default()), &*settings, "default", 1).expect("attaches");
    }
}

/// PEFT does not use `r` of AdaLoRA's files, and reads adapters without ranks to remove.
#[test]
fn settings_of_adalora_that_peft_ignores_are_read() {
    let device = Device::default();
    let settings = json!({"peft_type": "ADALORA", "init_r": 6, "target_r": 3, "total_step": 10});
    let settings = read_settings(&settings).expect("settings");
    let made = attach(model("llama", &device), &*settings, "default", 1).expect("attaches");
    let folder = TempDir::new().expect("temporary folder");
    save_adapter(&made, "default", folder.path()).expect("saves");
    change_config(&folder, |json| {
        json["r"] = 16.into();
        json["target_r"] = 8.into();
    });
    let loaded = load_adapter(model("llama", &device), folder.path(), "default", true);
    let loaded = loaded.expect("loads");
    assert_eq!(logits(&loaded, &device), logits(&made, &device));
    // There are no ranks to remove while it trains.
    assert!(RankAllocator::new(&loaded, "default").is_err());
    let again = TempDir::new().expect("temporary folder");
    save_adapter(&loaded, "default", again.path()).expect("saves");
    assert_eq!(saved_settings(again.path())["r"], 16);
    let new = json!({"peft_type": "ADALORA", "init_r": 6, "target_r": 8, "total_step": 10});
    let new = read_settings(&new).expect("settings");
    assert!(attach(model("llama", &device), &*new, "default", 1).is_err());
}
