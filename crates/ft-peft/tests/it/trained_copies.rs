//! Laws of what trains beside factors: copies of modules, biases, rows of tokens.

use std::collections::BTreeMap;

use burn::tensor::{Device, Int, Tensor};
use ft_core::{AutoCausalLm, Parts};
use ft_peft::{
    Bias, Error, Ia3Config, LoraConfig, Method, TargetModules, TokenIndices, TrainableTokensConfig,
    attach, load_adapter, merge_and_unload, save_adapter, set_active, trainable_parameters, unload,
    without_adapters,
};
use tempfile::TempDir;

use crate::adapted_models::{model, on, set, stirred};
use crate::extras::{Golden, place};
use crate::golden::{assert_close, saved_settings, saved_tensors};

/// A new adapter of each kind changes nothing, and trains only its own tensors.
#[test]
fn new_adapters_change_nothing_and_train_alone() {
    let device = Device::default().autodiff();
    let ids = Tensor::<2, Int>::from_data([[3, 14, 15, 9, 26]], &device);
    let lora = |change: fn(&mut LoraConfig)| {
        let mut config = LoraConfig {
            r: 2,
            ..LoraConfig::default()
        };
        change(&mut config);
        config
    };
    // Numbers that train beside the factors of rank 2 on all linear layers.
    let (width, inner, vocab) = (32, 48, 97);
    let factors = 2 * (3 * (width + width) + width + width + 3 * (width + inner));
    let kv = 2 * 2 * (width - 16);
    let factors = factors - kv;
    let cases = [
        (lora(|_| {}), 0),
        (
            lora(|config| config.common.modules_to_save = vec!["lm_head".into(), "norm".into()]),
            vocab * width + width,
        ),
        (
            lora(|config| {
                config.trainable_token_indices = Some(TokenIndices::Embedding(vec![3, 9]))
            }),
            2 * width,
        ),
        (
            lora(|config| config.lora_bias = true),
            2 * width + 2 * 16 + 2 * inner + width,
        ),
    ];
    for (config, beside) in cases {
        let plain = AutoCausalLm::load("llama", &device);
        let model = attach(plain.clone(), &config, "default", 1).expect("attaches");
        assert_eq!(
            model.outputs(ids.clone()).into_data(),
            plain.outputs(ids.clone()).into_data()
        );
        assert_eq!(trainable_parameters(&model).0, factors + beside);
        assert_eq!(
            unload(model).outputs(ids.clone()).into_data(),
            plain.outputs(ids.clone()).into_data()
        );
    }
}

/// Two adapters with copies of the same layer: the last one counts, and each alone is what it was.
#[test]
fn copies_of_two_adapters_are_independent() {
    let device = Device::default();
    let ids = Tensor::<2, Int>::from_data([[3, 14, 15, 9, 26]], &device);
    let mut config = LoraConfig::default();
    config.common.modules_to_save = vec!["lm_head".into()];
    let plain = model("llama", &device);
    let model = attach(plain.clone(), &config, "a", 1).expect("attaches");
    let mut model = model;
    set_active(&mut model, &[]).expect("there");
    let mut model = attach(model, &config, "b", 1).expect("attaches");
    model.for_each_part_mut(&mut |_, mut part| {
        for adapter in part
            .adapters()
            .iter_mut()
            .filter(|adapter| adapter.name == "b")
        {
            if adapter.get("weight").is_some() {
                let other = adapter.val2("weight") * 2.0;
                set(adapter, "weight", other);
            }
        }
    });
    let of = |model: &AutoCausalLm| model.outputs(ids.clone()).into_data();
    let with_b = of(&model);
    assert_ne!(with_b, of(&plain));
    set_active(&mut model, &["a"]).expect("there");
    assert_close("a", &of(&model), &of(&plain), 1e-6);
    set_active(&mut model, &["a", "b"]).expect("there");
    assert_close("both", &of(&model), &with_b, 1e-6);
}

/// In a tied model one name trains both layers, and `ensure_weight_tying` is written for PEFT.
#[test]
fn a_tied_embedding_trains_once() {
    let device = Device::default().autodiff();
    for name in ["embed_tokens", "lm_head"] {
        let mut config = LoraConfig::default();
        config.common.modules_to_save = vec![name.into()];
        let model = attach(AutoCausalLm::load("tied", &device), &config, "default", 1);
        let model = model.expect("attaches");
        let mut copies = 0;
        model.for_each_part(&mut |_, part| {
            let adapters = part.adapters().iter();
            copies += adapters
                .filter(|adapter| adapter.get("weight").is_some())
                .count();
        });
        assert_eq!(copies, 1);
        let folder = TempDir::new().expect("temporary folder");
        save_adapter(&model, "default", folder.path()).expect("saves");
        assert_eq!(saved_settings(folder.path())["ensure_weight_tying"], true);
    }
}

#[test]
fn merging_low_rank_into_a_tied_table_is_refused() {
    let device = Device::default();
    let load = || {
        load_adapter(
            AutoCausalLm::load("tied", &device),
            &place("tied_embedding"),
            "default",
            false,
        )
    };
    let error = merge_and_unload(load().expect("loads")).expect_err("refused");
    assert!(matches!(error, Error::TiedMerge { .. }), "{error}");
    for part in [
        "model.embed_tokens",
        "\"default\"",
        "lm_head.weight",
        "tie_word_embeddings",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
    // Switched off it does not matter.
    let mut model = load().expect("loads");
    set_active(&mut model, &[]).expect("there");
    let model = attach(model, &LoraConfig::default(), "other", 1).expect("attaches");
    merge_and_unload(model).expect("merges");
}

/// PEFT matches the ends of names: `norm` would match `input_layernorm` too.
#[test]
fn modules_whose_names_are_ambiguous_in_peft_are_written_as_paths() {
    let mut config = LoraConfig::default();
    config.common.modules_to_save = vec!["norm".into(), "lm_head".into()];
    let model = attach(
        AutoCausalLm::load("llama", &Device::default()),
        &config,
        "default",
        1,
    );
    let folder = TempDir::new().expect("temporary folder");
    save_adapter(&model.expect("attaches"), "default", folder.path()).expect("saves");
    let written = &saved_settings(folder.path())["modules_to_save"];
    assert_eq!(written, &serde_json::json!(["model.norm", "lm_head"]));
}

#[test]
fn settings_that_do_not_fit_are_explained() {
    let device = Device::default();
    let refused = |base: &str, config: &dyn Method, parts: &[&str]| {
        let error = attach(AutoCausalLm::load(base, &device), config, "default", 1);
        let error = error.expect_err("refused").to_string();
        for part in parts {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    };
    let tokens = |tokens: Vec<usize>| LoraConfig {
        trainable_token_indices: Some(TokenIndices::Embedding(tokens)),
        ..LoraConfig::default()
    };
    refused("llama", &tokens(vec![]), &["empty"]);
    refused("llama", &tokens(vec![4, 9, 4]), &["token 4", "twice"]);
    refused(
        "llama",
        &tokens(vec![97]),
        &["token 97", "embed_tokens", "97", "resize"],
    );
    let layers = BTreeMap::from([("embed".to_string(), vec![1])]);
    let config = LoraConfig {
        trainable_token_indices: Some(TokenIndices::Layers(layers)),
        ..LoraConfig::default()
    };
    refused(
        "llama",
        &config,
        &["trainable_token_indices", "embed", "embed_tokens"],
    );
    let mut both = tokens(vec![1]);
    both.common.modules_to_save = vec!["embed_tokens".into()];
    refused("llama", &both, &["modules_to_save", "one way"]);
    let mut bias = LoraConfig::default();
    bias.common.bias = Bias::All;
    refused(
        "llama",
        &bias,
        &["none of these layers has a bias", "BITFIT"],
    );
    let mut bias = Ia3Config::default();
    bias.common.bias = Bias::All;
    refused("gpt2", &bias, &["bias is not a setting of IA3"]);
    let mut tokens = TrainableTokensConfig {
        token_indices: vec![1],
        ..TrainableTokensConfig::default()
    };
    tokens.common.modules_to_save = vec!["lm_head".into()];
    refused(
        "llama",
        &tokens,
        &["modules_to_save is not a setting of TRAINABLE_TOKENS"],
    );
    let on_embedding = LoraConfig {
        use_dora: true,
        common: on(TargetModules::names(["embed_tokens"])),
        ..LoraConfig::default()
    };
    refused(
        "llama",
        &on_embedding,
        &["use_dora", "embed_tokens is an embedding"],
    );
}

/// PEFT trains every module whose name ends in the letters of `modules_to_save`: all norms of Llama for `norm`.
#[test]
fn names_of_a_file_match_by_letters_as_in_peft() {
    let device = Device::default();
    let ids = Tensor::<2, Int>::from_data([[3, 14, 15, 9, 26]], &device);
    let of = |model: &AutoCausalLm| model.outputs(ids.clone()).into_data();
    let plain = model("llama", &device);
    let mut config = LoraConfig::default();
    config.common.modules_to_save = ["norm", "input_layernorm", "post_attention_layernorm"]
        .map(String::from)
        .into();
    let trained = stirred(
        attach(plain.clone(), &config, "default", 1).expect("attaches"),
        "default",
    );
    let folder = TempDir::new().expect("temporary folder");
    save_adapter(&trained, "default", folder.path()).expect("saves");
    let path = folder.path().join("adapter_config.json");
    let mut settings = saved_settings(folder.path());
    settings["modules_to_save"] = serde_json::json!(["norm"]);
    std::fs::write(&path, settings.to_string()).expect("writes");
    let loaded = load_adapter(plain.clone(), folder.path(), "default", false).expect("loads");
    assert_eq!(of(&loaded), of(&trained));
    assert_eq!(of(&without_adapters(&loaded)), of(&plain));
    let again = TempDir::new().expect("temporary folder");
    save_adapter(&loaded, "default", again.path()).expect("saves");
    assert_eq!(saved_tensors(again.path()), saved_tensors(folder.path()));
}
