//! Laws that every method passes, on models of both layouts.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use ft_core::{AutoCausalLm, CausalLm, Parts, SaveOptions, TokenBatch, Weights, causal_lm_loss};
use ft_peft::{
    LoraConfig, Method, active_adapters, adapter_config, attach, delete, load_adapter,
    merge_and_unload, peft_types, read_settings, save_adapter, set_active, set_trainable,
    trainable_parameters, unload, without_adapters,
};
use serde_json::{Value, json};

use crate::adapted_models::{distance, drawing, logits, model, with_adapter};
use crate::golden::assert_close;
use crate::methods::{adapter_gradients, count_gradients};

/// A method with its settings, and what holds for it.
struct Case {
    config: Box<dyn Method>,
    name: String,
    /// Whether a fresh adapter changes nothing.
    fresh: bool,
    /// Whether it is a change of weights.
    merges: bool,
    /// The models that have what it needs.
    kinds: &'static [&'static str],
}

/// Methods that are no change of weights.
const NO_WEIGHTS: [&str; 4] = ["BOTTLENECK", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"];

/// The methods, with settings that fit both models.
fn cases() -> Vec<Case> {
    let all = "all-linear";
    let settings = [
        json!({"peft_type": "LORA", "r": 4}),
        json!({"peft_type": "LORA", "r": 3, "use_rslora": true, "target_modules": all}),
        json!({"peft_type": "LORA", "r": 3, "lora_bias": true, "target_modules": all}),
        json!({"peft_type": "LORA", "r": 3, "trainable_token_indices": [3, 9, 26], "target_modules": all}),
        json!({"peft_type": "LORA", "r": 3, "modules_to_save": ["lm_head"], "target_modules": all}),
        json!({"peft_type": "LORA", "r": 3, "use_dora": true, "target_modules": all}),
        json!({"peft_type": "LORA", "r": 3, "init_lora_weights": "pissa", "target_modules": all}),
        json!({"peft_type": "LORA", "r": 3, "init_lora_weights": "olora", "use_dora": true}),
        json!({"peft_type": "LORA", "r": 3, "target_modules": ".*(embed_tokens|q_proj|c_attn)"}),
        json!({"peft_type": "LORA", "r": 3, "bias": "all"}),
        json!({"peft_type": "LORA", "r": 3, "target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1]}),
        json!({"peft_type": "IA3"}),
        json!({"peft_type": "IA3", "target_modules": all}),
        json!({"peft_type": "LN_TUNING"}),
        json!({"peft_type": "VERA", "r": 8}),
        json!({"peft_type": "VERA", "r": 5, "save_projection": false, "target_modules": all}),
        json!({"peft_type": "LOHA", "r": 2}),
        json!({"peft_type": "LOHA", "r": 6, "alpha": 3, "target_modules": all}),
        json!({"peft_type": "LOKR", "r": 2}),
        json!({"peft_type": "LOKR", "r": 1, "decompose_both": true, "init_weights": "lycoris", "target_modules": all}),
        json!({"peft_type": "FOURIERFT", "n_frequency": 50, "target_modules": all}),
        json!({"peft_type": "FOURIERFT", "n_frequency": 7, "init_weights": true}),
        json!({"peft_type": "MISS", "r": 5, "target_modules": all}),
        json!({"peft_type": "MISS", "r": 4, "init_weights": "bat", "target_modules": all}),
        json!({"peft_type": "MISS", "r": 4, "init_weights": "mini", "mini_r": 4}),
        json!({"peft_type": "OFT", "target_modules": all}),
        json!({"peft_type": "OFT", "r": 4, "oft_block_size": 0, "use_cayley_neumann": false}),
        json!({"peft_type": "OFT", "oft_block_size": 8, "block_share": true, "coft": true, "eps": 0.5, "target_modules": all}),
        json!({"peft_type": "BOFT", "target_modules": all}),
        json!({"peft_type": "BOFT", "boft_block_size": 0, "boft_block_num": 4, "boft_n_butterfly_factor": 2}),
        json!({"peft_type": "HRA", "r": 4, "target_modules": all}),
        json!({"peft_type": "HRA", "r": 3}),
        json!({"peft_type": "HRA", "r": 4, "apply_GS": true}),
        json!({"peft_type": "ADALORA", "init_r": 6, "target_r": 3, "total_step": 10, "target_modules": all}),
        json!({"peft_type": "ADALORA", "init_r": 6, "target_r": 3, "total_step": 10, "bias": "all"}),
        json!({"peft_type": "BOTTLENECK", "mh_adapter": true, "reduction_factor": 4, "init_weights": "mam_adapter"}),
        json!({"peft_type": "BOTTLENECK", "is_parallel": true, "scaling": 2.0, "reduction_factor": 2, "non_linearity": "gelu",
            "init_weights": "mam_adapter"}),
        json!({"peft_type": "BITFIT"}),
        json!({"peft_type": "TRAINABLE_TOKENS", "token_indices": [3, 9, 26]}),
        json!({"peft_type": "BOTTLENECK", "reduction_factor": 4.0}),
        json!({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3}),
        json!({"peft_type": "P_TUNING", "num_virtual_tokens": 3}),
        json!({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3}),
    ];
    // Reflections are the identity in pairs alone.
    let reflects = |settings: &Value| {
        settings["peft_type"] == "HRA" && (settings["r"] == 3 || settings["apply_GS"] == true)
    };
    let case = |settings: Value| Case {
        config: read_settings(&settings).unwrap_or_else(|error| panic!("{settings}: {error}")),
        fresh: match settings["peft_type"].as_str() {
            Some("FOURIERFT") => settings["init_weights"] == true,
            Some("BOTTLENECK") => settings["init_weights"] == "mam_adapter",
            name => !reflects(&settings) && !name.is_some_and(|name| NO_WEIGHTS.contains(&name)),
        },
        merges: !settings["peft_type"]
            .as_str()
            .is_some_and(|name| NO_WEIGHTS.contains(&name)),
        kinds: match &settings {
            // Llama has no biases, and the names of layers are those of one family.
            settings if settings.get("bias").is_some() => &["gpt2"],
            settings if settings.get("layers_to_transform").is_some() => &["llama"],
            _ => &["llama", "gpt2"],
        },
        name: settings.to_string(),
    };
    settings.into_iter().map(case).collect()
}

/// Every method on both models.
fn for_every_case(law: impl Fn(&Case, &str)) {
    for case in cases() {
        for kind in case.kinds {
            law(&case, kind);
        }
    }
}

/// A model with an adapter that has an effect.
fn adapted(case: &Case, kind: &str, device: &Device) -> AutoCausalLm {
    with_adapter(model(kind, device), &*case.config, "default")
}

/// The loss, and the gradients of the adapters by key; nothing else has one.
fn loss_and_gradients(model: &AutoCausalLm, device: &Device) -> Vec<(String, TensorData)> {
    let ids = [3, 14, 15, 9, 26, 5, 35];
    let tokens = TokenBatch::from_ids(&ids.map(|id| id as u32), device);
    let loss = causal_lm_loss(model.hidden_states(&tokens, None), model.head(), &ids).sum;
    let gradients = loss.backward();
    let found = adapter_gradients(model, &gradients);
    assert_eq!(
        count_gradients(model, &gradients),
        found.len(),
        "only adapters train"
    );
    let loss = [("loss".to_string(), loss.into_data())];
    loss.into_iter().chain(found).collect()
}

fn assert_alike(
    case: &str,
    found: &[(String, TensorData)],
    expected: &[(String, TensorData)],
    tolerance: f32,
) {
    assert!(found.len() > 1 && found.len() == expected.len(), "{case}");
    for ((key, found), (other, expected)) in found.iter().zip(expected) {
        assert_eq!(key, other, "{case}");
        assert_close(&format!("{case}: {key}"), found, expected, tolerance);
    }
}

#[test]
fn every_method_is_here() {
    for method in peft_types() {
        let here = cases().iter().any(|case| case.config.peft_type() == method);
        assert!(here, "{method} has no case in battery.rs");
    }
}

#[test]
fn a_fresh_adapter_changes_nothing() {
    let device = Device::default();
    for_every_case(|case, kind| {
        let model = model(kind, &device);
        let before = logits(&model, &device);
        let model = attach(model, &*case.config, "default", 1).expect("attaches");
        let after = logits(&model, &device);
        if case.fresh {
            assert_close(&case.name, &after, &before, 1e-5);
        } else {
            assert!(
                distance(&after, &before) > 1e-3,
                "{} changes nothing: its case should be `fresh`",
                case.name
            );
        }
    });
}

#[test]
fn only_its_tensors_train() {
    let device = Device::default().autodiff();
    for_every_case(|case, kind| {
        let model = adapted(case, kind, &device);
        let mut trained = 0;
        model.for_each_part(&mut |_, part| {
            for tensor in part.adapters().iter().flat_map(|adapter| &adapter.tensors) {
                trained += usize::from(tensor.trains());
            }
        });
        let gradients = loss_and_gradients(&model, &device);
        assert_eq!(gradients.len(), trained + 1, "{}", case.name);
        for (key, gradient) in &gradients {
            let something = gradient.iter::<f32>().any(|x| x != 0.0);
            assert!(something, "{}: {key} has a gradient of zero", case.name);
        }
        let (trainable, all) = trainable_parameters(&model);
        assert!(trainable > 0 && trainable < all, "{}", case.name);
    });
}

#[test]
fn merged_equals_unmerged() {
    let device = Device::default();
    let lora = LoraConfig {
        r: 2,
        ..LoraConfig::default()
    };
    for_every_case(|case, kind| {
        let one = adapted(case, kind, &device);
        if !case.merges {
            let error = merge_and_unload(one).expect_err("refused").to_string();
            assert!(error.contains("cannot be merged"), "{}: {error}", case.name);
            return;
        }
        let base = logits(&without_adapters(&one), &device);
        let two = with_adapter(one.clone(), &*case.config, "another");
        let mixed = with_adapter(one.clone(), &lora, "lora");
        let mixed_before = with_adapter(
            with_adapter(model(kind, &device), &lora, "lora"),
            &*case.config,
            "default",
        );
        let models = [
            (one, vec!["default"]),
            (two, vec!["default", "another"]),
            (mixed, vec!["default", "lora"]),
            (mixed_before, vec!["default", "lora"]),
        ];
        for (mut model, names) in models {
            set_active(&mut model, &names).expect("there");
            let expected = logits(&model, &device);
            assert!(
                distance(&expected, &base) > 0.01,
                "{}: {names:?} has no effect",
                case.name
            );
            let merged = merge_and_unload(model);
            let merged = merged.unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let what = format!("{} on {kind}, {names:?}", case.name);
            assert_close(&what, &logits(&merged, &device), &expected, 1e-4);
        }
    });
}

#[test]
fn saving_and_loading_is_identity() {
    let device = Device::default();
    for_every_case(|case, kind| {
        let model = adapted(case, kind, &device);
        let folder = tempfile::tempdir().expect("temporary folder");
        save_adapter(&model, "default", folder.path()).expect("saves");
        let loaded = load_adapter(self::model(kind, &device), folder.path(), "default", false);
        let loaded = loaded.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert_eq!(
            logits(&loaded, &device),
            logits(&model, &device),
            "{}",
            case.name
        );
        let again = tempfile::tempdir().expect("temporary folder");
        save_adapter(&loaded, "default", again.path()).expect("saves");
        let files = std::fs::read_dir(folder.path()).expect("reads");
        for file in files.map(|entry| entry.expect("reads").file_name()) {
            let read = |folder: &tempfile::TempDir| {
                std::fs::read(folder.path().join(&file)).expect("reads")
            };
            assert!(
                read(&folder) == read(&again),
                "{}: {file:?} differs",
                case.name
            );
        }
        let peft_type = adapter_config(&loaded, "default")
            .expect("there")
            .peft_type();
        assert_eq!(peft_type, case.config.peft_type());
    });
}

#[test]
fn switched_off_deleted_and_unloaded_are_the_base() {
    let device = Device::default();
    for_every_case(|case, kind| {
        let base = logits(&model(kind, &device), &device);
        let mut model = adapted(case, kind, &device);
        let adapted = logits(&model, &device);
        assert!(
            distance(&adapted, &base) > 0.01,
            "{} has no effect",
            case.name
        );
        assert_eq!(
            logits(&without_adapters(&model), &device),
            base,
            "{}",
            case.name
        );
        assert_eq!(
            logits(&unload(model.clone()), &device),
            base,
            "{}",
            case.name
        );
        set_active(&mut model, &[]).expect("there");
        assert_eq!(logits(&model, &device), base, "{}", case.name);
        set_active(&mut model, &["default"]).expect("there");
        assert_eq!(logits(&model, &device), adapted, "{}", case.name);
        delete(&mut model, "default").expect("there");
        assert_eq!(logits(&model, &device), base, "{}", case.name);
    });
}

#[test]
fn recomputation_changes_no_gradient() {
    let device = Device::default().autodiff();
    for_every_case(|case, kind| {
        let [kept, again] =
            [device.clone(), device.clone().gradient_checkpointing()].map(|device| {
                let model = adapted(case, kind, &device);
                loss_and_gradients(&model, &device)
            });
        assert_alike(&format!("{} on {kind}", case.name), &again, &kept, 1e-5);
    });
}

/// What two batches of one row give together is what one batch of two rows gives: the sum that accumulation takes.
#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() {
    let device = Device::default().autodiff();
    let rows = [[3i64, 14, 15, 9, 26, 5], [35, 8, 9, 7, 3, 2]];
    for_every_case(|case, kind| {
        let model = adapted(case, kind, &device);
        let gradients = |rows: &[[i64; 6]]| -> BTreeMap<String, TensorData> {
            let ids = TensorData::new(rows.concat(), [rows.len(), 6]);
            let tokens = TokenBatch::new(Tensor::<2, Int>::from_data(ids, &device));
            let hidden = model.hidden_states(&tokens, None);
            let loss = causal_lm_loss(hidden, model.head(), &rows.concat()).sum;
            adapter_gradients(&model, &loss.backward())
        };
        let (first, second) = (gradients(&rows[..1]), gradients(&rows[1..]));
        let whole = gradients(&rows);
        assert!(!whole.is_empty(), "{}", case.name);
        for (key, whole) in &whole {
            let parts = first[key].iter::<f32>().zip(second[key].iter::<f32>());
            let sum: Vec<f32> = parts.map(|(a, b)| a + b).collect();
            let sum = TensorData::new(sum, whole.shape().clone());
            assert_close(
                &format!("{} on {kind}: {key}", case.name),
                &sum,
                whole,
                1e-4,
            );
        }
    });
}

/// A base held in the 16 bits of its file gives the losses and gradients of the same base widened first.
#[test]
fn a_base_held_as_stored_trains_alike() {
    let plain = Device::default();
    let folders = ["llama", "gpt2"].map(|kind| {
        let folder = tempfile::tempdir().expect("temporary folder");
        let options = SaveOptions {
            dtype: FloatDType::BF16,
            ..SaveOptions::default()
        };
        model(kind, &plain)
            .save_pretrained(folder.path(), &options)
            .expect("saves");
        (kind, folder)
    });
    let kept = Device::default().autodiff();
    for case in cases() {
        for (kind, folder) in folders.iter().filter(|(kind, _)| case.kinds.contains(kind)) {
            for device in [kept.clone(), kept.clone().gradient_checkpointing()] {
                let [wide, stored] = [Weights::F32, Weights::Stored].map(|weights| {
                    let model = AutoCausalLm::from_pretrained_with(folder.path(), &device, weights);
                    let model = with_adapter(model.expect("loads"), &*case.config, "default");
                    loss_and_gradients(&model, &device)
                });
                assert_alike(&format!("{} on {kind}", case.name), &stored, &wide, 1e-4);
            }
        }
    }
}

#[test]
fn two_adapters_are_independent() {
    let device = Device::default().autodiff();
    for_every_case(|case, kind| {
        let alone = adapted(case, kind, &device);
        let expected = logits(&alone, &device);
        let mut model = with_adapter(alone, &*case.config, "another");
        set_active(&mut model, &["default"]).expect("there");
        assert_eq!(logits(&model, &device), expected, "{}", case.name);
        assert_eq!(active_adapters(&model), ["default"]);
        let model = set_trainable(model, &["default"]).expect("there");
        let both = loss_and_gradients(&model, &device);
        let alone = loss_and_gradients(&adapted(case, kind, &device), &device);
        assert_alike(&case.name, &both, &alone, 0.0);
    });
}

/// Random parts of an adapter that are dropped: the same for one seed, others for another, none outside training; and
/// gradients with recomputation are those without.
#[test]
fn what_is_dropped_follows_the_seed() {
    let settings = [
        json!({"peft_type": "LORA", "r": 4, "lora_dropout": 0.4}),
        json!({"peft_type": "BOFT", "boft_dropout": 0.4}),
        json!({"peft_type": "BOFT", "boft_block_size": 2, "boft_n_butterfly_factor": 2, "boft_dropout": 0.4}),
        json!({"peft_type": "ADALORA", "init_r": 6, "target_r": 3, "total_step": 10, "lora_dropout": 0.4}),
        json!({"peft_type": "BOTTLENECK", "reduction_factor": 2, "dropout": 0.4}),
        json!({"peft_type": "VERA", "r": 8, "vera_dropout": 0.4}),
        json!({"peft_type": "LOHA", "r": 2, "rank_dropout": 0.4}),
        json!({"peft_type": "LOHA", "r": 2, "module_dropout": 0.4}),
        json!({"peft_type": "LOHA", "r": 12, "rank_dropout": 0.2, "module_dropout": 0.2}),
        json!({"peft_type": "LOKR", "r": 2, "rank_dropout": 0.4, "rank_dropout_scale": true}),
        json!({"peft_type": "LOKR", "r": 2, "rank_dropout": 0.4}),
        json!({"peft_type": "MISS", "r": 4, "miss_dropout": 0.4}),
    ];
    let kept = Device::default().autodiff();
    for settings in settings {
        let config = read_settings(&settings).expect("valid");
        let run = |device: &Device, seed: u64| {
            let model = with_adapter(model("llama", device), &*config, "default");
            let _drawing = drawing();
            device.seed(seed);
            loss_and_gradients(&model, device)
        };
        let one = run(&kept, 1);
        assert_alike(&settings.to_string(), &run(&kept, 1), &one, 0.0);
        let again = run(&kept.clone().gradient_checkpointing(), 1);
        assert_alike(&settings.to_string(), &again, &one, 1e-5);
        assert!(
            distance(&run(&kept, 2)[0].1, &one[0].1) > 1e-4,
            "{settings} drops nothing"
        );
        let model = with_adapter(model("llama", &kept), &*config, "default").valid();
        let plain = Device::default();
        assert_eq!(logits(&model, &plain), logits(&model, &plain), "{settings}");
    }
}
