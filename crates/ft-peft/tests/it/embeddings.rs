//! Adapters that PEFT saved together with weights of the base (`golden/embeddings.py`).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::module_path::{PathVisitor, visit_params};
use ft_core::safetensors_folder::{read_tensors, write_tensors};
use ft_core::{AutoCausalLm, CausalLm, SaveOptions, TokenBatch};
use ft_peft::{
    Error, LoraConfig, attach, load_adapter, merge_and_unload, save_adapter, set_active, unload,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::golden::{assert_close, folder, saved_settings, saved_tensors};

const ALL: [(&str, &str); 5] = [
    ("untied", "head"),
    ("untied", "resized"),
    ("untied", "trained"),
    ("tied", "resized"),
    ("tied", "trained"),
];

fn base(name: &str, device: &Device) -> AutoCausalLm {
    let folder = folder("peft_embeddings").join(name);
    AutoCausalLm::from_pretrained(&folder, device).expect("loads")
}

fn adapter(base: &str, name: &str) -> PathBuf {
    folder("peft_embeddings").join(base).join(name)
}

fn ids() -> Tensor<2, Int> {
    let file = folder("peft_embeddings").join("input_ids.safetensors");
    let ids = read_tensors(&file).expect("golden")["input_ids"].clone();
    Tensor::from_data(ids, &Device::default())
}

fn logits(model: &AutoCausalLm) -> TensorData {
    model.logits(&TokenBatch::new(ids()), None).into_data()
}

fn expected(base: &str, name: &str) -> TensorData {
    let file = adapter(base, name).join("logits.safetensors");
    read_tensors(&file).expect("golden")["logits"].clone()
}

#[test]
fn weights_beside_the_factors_take_the_place_of_the_base() {
    let device = Device::default();
    for (base_name, name) in ALL {
        let place = adapter(base_name, name);
        let model = load_adapter(base(base_name, &device), &place, "default", false);
        let model = model.expect("loads");
        let what = format!("{base_name}/{name}");
        assert_close(&what, &logits(&model), &expected(base_name, name), 1e-5);
        let vocab = if name == "resized" { 100 } else { 97 };
        assert_eq!(model.dims().vocab_size, vocab);
        // Merged and saved, they are part of the model.
        let merged = merge_and_unload(model).expect("merges");
        let folder = TempDir::new().expect("temporary folder");
        merged
            .save_pretrained(folder.path(), &SaveOptions::default())
            .expect("saves");
        let again = AutoCausalLm::from_pretrained(folder.path(), &device).expect("loads");
        assert_close(&what, &logits(&again), &expected(base_name, name), 1e-4);
    }
}

/// What PEFT wrote comes out again with the same keys, settings and numbers.
#[test]
fn trained_modules_are_written_again_as_they_were() {
    let device = Device::default();
    for base_name in ["untied", "tied"] {
        let theirs = adapter(base_name, "trained");
        let model = load_adapter(base(base_name, &device), &theirs, "default", true);
        let ours = TempDir::new().expect("temporary folder");
        save_adapter(&model.expect("loads"), "default", ours.path()).expect("saves");
        assert_eq!(saved_settings(ours.path()), saved_settings(&theirs));
        assert_eq!(saved_tensors(ours.path()), saved_tensors(&theirs));
    }
}

/// Resized embeddings are saved in the adapter's file if `modules_to_save` names them.
#[test]
fn resized_embeddings_are_saved_with_an_adapter() {
    let device = Device::default();
    for (base_name, names) in [
        ("untied", vec!["embed_tokens", "lm_head"]),
        ("tied", vec!["embed_tokens"]),
        ("tied", vec!["lm_head"]),
    ] {
        let mut model = base(base_name, &device);
        model.resize_token_embeddings(99).expect("grows");
        let mut config = LoraConfig::default();
        config.common.modules_to_save = names.into_iter().map(str::to_string).collect();
        let model = attach(model, &config, "default", 1).expect("attaches");
        let folder = TempDir::new().expect("temporary folder");
        save_adapter(&model, "default", folder.path()).expect("saves");
        assert_eq!(
            saved_settings(folder.path())["ensure_weight_tying"],
            base_name == "tied"
        );
        let shapes: Vec<_> = saved_tensors(folder.path())
            .iter()
            .filter(|(key, _)| !key.contains("lora_"))
            .map(|(key, data)| (key.clone(), data.shape().to_vec()))
            .collect();
        assert_eq!(
            shapes,
            [
                ("base_model.model.lm_head.weight".to_string(), vec![99, 32]),
                (
                    "base_model.model.model.embed_tokens.weight".to_string(),
                    vec![99, 32]
                ),
            ]
        );
        let again = load_adapter(base(base_name, &device), folder.path(), "default", false);
        assert_eq!(logits(&again.expect("loads")), logits(&model));
    }
}

#[test]
fn trained_modules_train_on_with_the_factors() {
    struct Trains(Vec<String>);
    impl PathVisitor for Trains {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0.push(path.to_string());
            }
        }
    }
    let device = Device::default().autodiff();
    for (base_name, expected) in [
        (
            "untied",
            vec![
                "model.embed_tokens.adapters.default.weight",
                "lm_head.adapters.default.weight",
            ],
        ),
        ("tied", vec!["model.embed_tokens.adapters.default.weight"]),
    ] {
        for trainable in [true, false] {
            let place = adapter(base_name, "trained");
            let model = burn::module::Module::no_grad(base(base_name, &device));
            let model = load_adapter(model, &place, "default", trainable).expect("loads");
            let mut trains = Trains(Vec::new());
            visit_params(&model, &mut trains);
            trains.0.retain(|path| !path.contains("lora_"));
            let expected: &[&str] = if trainable { &expected } else { &[] };
            assert_eq!(trains.0, expected);
        }
    }
}

/// A copy of an adapter with other settings and tensors.
fn changed(
    place: &Path,
    settings: Value,
    change: impl FnOnce(&mut BTreeMap<String, TensorData>),
) -> TempDir {
    let folder = TempDir::new().expect("temporary folder");
    let bytes = std::fs::read(place.join("adapter_config.json")).expect("reads");
    let mut json: Value = serde_json::from_slice(&bytes).expect("json");
    for (name, value) in settings.as_object().expect("object") {
        json[name] = value.clone();
    }
    let path = folder.path().join("adapter_config.json");
    std::fs::write(path, json.to_string()).expect("writes");
    let mut tensors = saved_tensors(place);
    change(&mut tensors);
    let tensors: Vec<_> = tensors.into_iter().collect();
    let path = folder.path().join("adapter_model.safetensors");
    write_tensors(&path, &tensors, &HashMap::new()).expect("writes");
    folder
}

const HEAD: &str = "base_model.model.lm_head.weight";
const EMBEDDING: &str = "base_model.model.model.embed_tokens.weight";

/// PEFT computes with a head that is not the embedding, which a tied model cannot.
#[test]
fn files_that_need_an_untied_output_layer_are_refused() {
    let device = Device::default();
    let load = |place: &Path| load_adapter(base("tied", &device), place, "default", false);
    let refused = |place: &Path| {
        let error = load(place).expect_err("refused");
        assert!(matches!(error, Error::Tied { .. }), "{error}");
        let error = error.to_string();
        for part in [
            "lm_head",
            "tie_word_embeddings",
            "adapter_model.safetensors",
        ] {
            assert!(error.contains(part), "{error}");
        }
    };
    refused(&adapter("untied", "head"));
    refused(&adapter("untied", "trained"));
    let trained = adapter("tied", "trained");
    for missing in [HEAD, EMBEDDING] {
        let settings =
            json!({"ensure_weight_tying": false, "modules_to_save": ["embed_tokens", "lm_head"]});
        let folder = changed(&trained, settings, |tensors| {
            tensors.remove(missing);
        });
        refused(folder.path());
        // With `ensure_weight_tying` one of the two tensors is enough.
        let settings = json!({"modules_to_save": ["lm_head"]});
        let folder = changed(&trained, settings, |tensors| {
            tensors.remove(missing);
        });
        let model = load(folder.path()).expect("loads");
        assert_close(
            "logits",
            &logits(&model),
            &expected("tied", "trained"),
            1e-5,
        );
    }
}

#[test]
fn weights_that_do_not_fit_are_explained() {
    let device = Device::default();
    let explains = |folder: &TempDir, parts: &[&str]| {
        let error = load_adapter(base("untied", &device), folder.path(), "default", false);
        let error = error.expect_err("refused").to_string();
        for part in parts {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    };
    let resized = adapter("untied", "resized");
    let folder = changed(&resized, json!({}), |tensors| {
        tensors.remove(HEAD);
    });
    explains(&folder, &["different numbers of tokens", "97", "100"]);
    let folder = changed(&resized, json!({}), |tensors| {
        let narrow = TensorData::new(vec![0f32; 100 * 31], [100, 31]);
        tensors.insert(EMBEDDING.to_string(), narrow);
    });
    explains(&folder, &["of another shape (1)", "[97, 32]", "[100, 31]"]);
    let folder = changed(&adapter("untied", "trained"), json!({}), |tensors| {
        tensors.remove(HEAD);
    });
    explains(&folder, &["missing (1)", "lm_head.weight"]);
    let names = json!({"modules_to_save": ["embed_tokens", "lm_head", "score"]});
    let folder = changed(&adapter("untied", "trained"), names, |_| {});
    explains(&folder, &["missing (1)", "score of modules_to_save"]);
    let folder = changed(&resized, json!({}), |tensors| {
        let factor = TensorData::new(vec![0f32; 4], [2, 2]);
        tensors.insert(EMBEDDING.replace("weight", "lora_embedding_A"), factor);
    });
    explains(&folder, &["left over (1)", "lora_embedding_A"]);
}

/// With `save_embedding_layers` PEFT writes a trained embedding three times.
#[test]
fn copies_of_a_trained_module_are_ignored() {
    let folder = changed(&adapter("untied", "trained"), json!({}), |tensors| {
        let table = tensors[EMBEDDING].clone();
        for part in ["original_module", "modules_to_save"] {
            tensors.insert(
                EMBEDDING.replace("weight", &format!("{part}.weight")),
                table.clone(),
            );
        }
    });
    let model = load_adapter(
        base("untied", &Device::default()),
        folder.path(),
        "default",
        false,
    );
    let found = logits(&model.expect("loads"));
    assert_close("logits", &found, &expected("untied", "trained"), 1e-5);
}

/// With the adapter off, the rows that the base lacked are still there, and trained weights are not used.
#[test]
fn with_the_adapter_off_the_model_is_the_base() {
    for base_name in ["tied", "untied"] {
        let plain = logits(&base(base_name, &Device::default()));
        let load = |name| {
            let model = base(base_name, &Device::default());
            let place = adapter(base_name, name);
            load_adapter(model, &place, "default", false).expect("loads")
        };
        let mut model = load("trained");
        set_active(&mut model, &[]).expect("there");
        assert_eq!(logits(&model), plain);
        assert_eq!(logits(&unload(model)), plain);

        let mut model = load("resized");
        set_active(&mut model, &[]).expect("there");
        let off = logits(&model);
        assert_eq!(off.shape()[..], [2, 9, 100]);
        assert_eq!(logits(&unload(model)), off);
    }
}

/// A trained table of more tokens is a copy too; the base gets the rows that it lacks.
#[test]
fn a_resized_and_trained_table_leaves_the_rows_of_the_base() {
    let device = Device::default();
    for base_name in ["tied", "untied"] {
        let names = json!({"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": base_name == "tied"});
        let folder = changed(&adapter(base_name, "resized"), names, |_| {});
        let model = load_adapter(base(base_name, &device), folder.path(), "default", false);
        let mut model = model.expect("loads");
        let found = logits(&model);
        assert_close("logits", &found, &expected(base_name, "resized"), 1e-5);
        set_active(&mut model, &[]).expect("there");
        let old = model.logits(&TokenBatch::new(ids()), None).narrow(2, 0, 97);
        assert_close(
            "off",
            &old.into_data(),
            &logits(&base(base_name, &device)),
            1e-6,
        );
    }
}

#[test]
fn names_of_no_layer_are_refused() {
    let device = Device::default();
    let mut config = LoraConfig::default();
    config.common.modules_to_save = vec!["embed_tokens".into(), "head".into()];
    let error = attach(base("untied", &device), &config, "default", 1).expect_err("refused");
    let error = error.to_string();
    assert!(
        error.contains("(head)") && error.contains("lm_head"),
        "{error}"
    );
}
