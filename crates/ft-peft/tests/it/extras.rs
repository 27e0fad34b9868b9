//! What trains beside factors (copies of modules and of biases, rows of tokens), LoRA on embeddings and BitFit, against what
//! PEFT computes (`golden/extras.py`), and their laws.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use ft_core::layers::AnyParam;
use ft_core::safetensors_folder::read_tensors;
use ft_core::{
    AutoCausalLm, Backbone, Bert, CausalLm, Parts, Pass, SaveOptions, TokenBatch, causal_lm_loss,
};
use ft_peft::{
    Bias, BitFitConfig, Error, Ia3Config, LoraConfig, Method, TargetModules, TokenIndices,
    TrainableTokensConfig, attach, load_adapter, merge_and_unload, save_adapter, set_active,
    trainable_parameters, unload, without_adapters,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::golden::{assert_close, folder};
use crate::laws::{distance, model, on};

/// A decoder, whose outputs are logits, or an encoder, whose outputs are hidden states.
trait Golden: Module + Parts {
    fn load(base: &str, device: &Device) -> Self;
    fn outputs(&self, ids: Tensor<2, Int>) -> Tensor<3>;
    fn loss(&self, ids: Tensor<2, Int>) -> Tensor<1>;
}

fn golden_folder(base: &str) -> &'static str {
    match base {
        "llama" => "peft_embeddings/untied",
        "tied" => "peft_embeddings/tied",
        _ => "peft_gpt2",
    }
}

impl Golden for AutoCausalLm {
    fn load(base: &str, device: &Device) -> Self {
        Self::from_pretrained(&folder(golden_folder(base)), device).expect("loads")
    }

    fn outputs(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.logits(&TokenBatch::new(ids), None)
    }

    fn loss(&self, ids: Tensor<2, Int>) -> Tensor<1> {
        let labels = ids.to_data().convert::<i64>();
        let labels: Vec<i64> = labels.try_to_vec().expect("i64");
        let hidden = self.hidden_states(&TokenBatch::new(ids), None);
        let loss = causal_lm_loss(hidden, self.head(), &labels);
        loss.sum / loss.count as f64
    }
}

impl Golden for Bert {
    fn load(_: &str, device: &Device) -> Self {
        Self::from_pretrained(&folder("../../../ft-core/tests/golden/bert"), device).expect("loads")
    }

    fn outputs(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.forward(self.embed(ids), Pass::default())
    }

    fn loss(&self, ids: Tensor<2, Int>) -> Tensor<1> {
        self.outputs(ids).square().sum()
    }
}

fn place(case: &str) -> std::path::PathBuf {
    folder("extras").join(case)
}

/// Outputs, loss, gradients, merged outputs, and the base with the adapter off.
fn agrees_with_peft<M: Golden>(case: &str) {
    let expected = read_tensors(&place(case).join("golden.safetensors")).expect("golden");
    let device = Device::default().autodiff();
    let base = case.split('_').next().expect("a base");
    for device in [device.clone(), device.gradient_checkpointing()] {
        let ids = Tensor::<2, Int>::from_data(expected["input_ids"].clone(), &device);
        let plain = M::load(base, &device);
        let model = load_adapter(plain.clone(), &place(case), "default", true).expect("loads");
        let outputs = model.outputs(ids.clone()).into_data();
        assert_close(case, &outputs, &expected["logits"], 2e-5);
        let loss = model.loss(ids.clone());
        assert_close(case, &loss.to_data(), &expected["loss"], 1e-5);
        gradients_agree(case, &model, &loss.backward(), &expected);
        let off = without_adapters(&model).outputs(ids.clone()).into_data();
        assert_eq!(off, plain.outputs(ids.clone()).into_data(), "{case}");
        if let Some(merged) = expected.get("logits_merged") {
            let model = merge_and_unload(model.valid()).expect("merges");
            let outputs = model.outputs(ids.clone().inner()).into_data();
            assert_close(case, &outputs, merged, 1e-4);
        }
    }
}

/// The gradient of a parameter of any number of dimensions, and whether it trains.
fn gradient(param: &AnyParam, grads: &Gradients) -> Option<TensorData> {
    match param {
        AnyParam::D1(param) => param.val().grad(grads).map(Tensor::into_data),
        AnyParam::D2(param) => param.val().grad(grads).map(Tensor::into_data),
        AnyParam::D3(param) => param.val().grad(grads).map(Tensor::into_data),
        AnyParam::D4(param) => param.val().grad(grads).map(Tensor::into_data),
    }
}

fn gradients_agree(
    case: &str,
    model: &impl Parts,
    grads: &Gradients,
    expected: &BTreeMap<String, TensorData>,
) {
    let mut seen = BTreeSet::new();
    // A bias of keys has no gradient: what is left of it is the rounding of the others.
    let all = expected.iter().filter(|(key, _)| key.starts_with("grad."));
    let largest = all.flat_map(|(_, data)| data.iter::<f32>().collect::<Vec<_>>());
    let rounding = 1e-6 * largest.fold(0.0, |largest: f32, x| largest.max(x.abs()));
    model.for_each_part(&mut |path, part| {
        for tensor in part.adapters().iter().flat_map(|adapter| &adapter.tensors) {
            let key = format!("grad.base_model.model.{path}.{}", tensor.name());
            let Some(expected) = expected.get(&key) else {
                panic!("{case}: PEFT has no gradient of {path}.{}", tensor.name());
            };
            let found =
                gradient(tensor.param(), grads).unwrap_or_else(|| panic!("{case}: no {key}"));
            if distance(&found, expected) > rounding {
                assert_close(&format!("{case}: {key}"), &found, expected, 1e-4);
            }
            seen.insert(key);
        }
    });
    let known = expected.keys().filter(|key| key.starts_with("grad."));
    let known: BTreeSet<String> = known.cloned().collect();
    assert_eq!(seen, known, "{case}");
}

const DECODERS: [&str; 15] = [
    "llama_modules",
    "llama_embedding",
    "llama_head",
    "llama_tokens",
    "llama_tokens_of_layers",
    "llama_trainable_tokens",
    "llama_bitfit",
    "tied_embedding",
    "tied_tokens",
    "tied_trainable_tokens",
    "gpt2_modules",
    "gpt2_bias_all",
    "gpt2_bias_only",
    "gpt2_lora_bias",
    "gpt2_bitfit",
];
const ENCODERS: [&str; 2] = ["bert_bias_all", "bert_embedding"];

#[test]
fn adapters_of_decoders_agree_with_peft() {
    DECODERS
        .into_iter()
        .for_each(agrees_with_peft::<AutoCausalLm>);
}

#[test]
fn adapters_of_encoders_agree_with_peft() {
    ENCODERS.into_iter().for_each(agrees_with_peft::<Bert>);
}

#[test]
fn every_golden_case_is_compared() {
    let cases = std::fs::read_dir(folder("extras")).expect("there");
    let cases = cases.map(|case| {
        case.expect("there")
            .file_name()
            .into_string()
            .expect("UTF-8")
    });
    let compared = DECODERS
        .iter()
        .chain(&ENCODERS)
        .map(|case| case.to_string());
    assert_eq!(
        cases.collect::<BTreeSet<_>>(),
        compared.collect::<BTreeSet<_>>()
    );
}

fn settings(folder: &Path) -> Value {
    let bytes = std::fs::read(folder.join("adapter_config.json")).expect("reads");
    let mut json: Value = serde_json::from_slice(&bytes).expect("json");
    json["peft_version"] = Value::Null;
    json
}

fn written_again<M: Golden>(case: &str) {
    let base = case.split('_').next().expect("a base");
    let model = M::load(base, &Device::default());
    let model = load_adapter(model, &place(case), "default", false).expect("loads");
    let ours = TempDir::new().expect("temporary folder");
    save_adapter(&model, "default", ours.path()).expect("saves");
    if !case.ends_with("bitfit") {
        assert_eq!(settings(ours.path()), settings(&place(case)), "{case}");
    }
    let tensors =
        |folder: &Path| read_tensors(&folder.join("adapter_model.safetensors")).expect("reads");
    let mut theirs = tensors(&place(case));
    // PEFT adds the base weight of an embedding with factors.
    theirs.retain(|key, _| !key.ends_with("base_layer.weight"));
    assert_eq!(tensors(ours.path()), theirs, "{case}");
}

/// What PEFT wrote comes out again with the same keys, settings and numbers.
#[test]
fn adapters_of_peft_are_written_again_as_they_were() {
    DECODERS.into_iter().for_each(written_again::<AutoCausalLm>);
    ENCODERS.into_iter().for_each(written_again::<Bert>);
}

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

#[test]
fn bitfit_trains_every_bias_and_adds_those_that_lack() {
    let device = Device::default().autodiff();
    let ids = Tensor::<2, Int>::from_data([[3, 14, 15, 9, 26]], &device);
    let biases = 32 + 16 + 16 + 32 + 48 + 48 + 32;
    let plain = AutoCausalLm::load("llama", &device);
    let model = attach(plain.clone(), &BitFitConfig::default(), "default", 1).expect("attaches");
    assert_eq!(trainable_parameters(&model).0, biases);
    let outputs = plain.outputs(ids.clone()).into_data();
    assert_close("zeros", &model.outputs(ids).into_data(), &outputs, 1e-6);
    // Without `add_missing` a Llama has nothing to train.
    let none = BitFitConfig {
        add_missing: false,
        ..BitFitConfig::default()
    };
    let error = attach(plain, &none, "default", 1).expect_err("nothing trains");
    assert!(matches!(error, Error::NoTarget { .. }), "{error}");
    let biases = 2 * (96 + 32 + 48 + 32 + 2 * 32) + 32;
    let model = attach(AutoCausalLm::load("gpt2", &device), &none, "default", 1).expect("attaches");
    assert_eq!(trainable_parameters(&model).0, biases);
}

/// Llama's configuration has settings for biases of all its layers, that of other families has none.
#[test]
fn merged_biases_are_saved_where_the_configuration_has_them() {
    let device = Device::default();
    let place = place("llama_bitfit");
    let model = load_adapter(
        AutoCausalLm::load("llama", &device),
        &place,
        "default",
        false,
    );
    let merged = merge_and_unload(model.expect("loads")).expect("merges");
    let folder = TempDir::new().expect("temporary folder");
    merged
        .save_pretrained(folder.path(), &SaveOptions::default())
        .expect("saves");
    let again = AutoCausalLm::from_pretrained(folder.path(), &device).expect("loads");
    let ids = Tensor::<2, Int>::from_data([[3, 14, 15, 9, 26]], &device);
    assert_eq!(
        again.outputs(ids.clone()).into_data(),
        merged.outputs(ids).into_data()
    );

    let config = BitFitConfig::default().with_targets(TargetModules::names(["q_proj"]));
    let model = attach(AutoCausalLm::load("llama", &device), &config, "default", 1);
    let merged = merge_and_unload(model.expect("attaches")).expect("merges");
    let error = merged.save_pretrained(folder.path(), &SaveOptions::default());
    let error = error.expect_err("no setting for one of them").to_string();
    assert!(
        error.contains("q_proj.bias") && error.contains("llama"),
        "{error}"
    );
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

/// In a tied model one name trains both, and PEFT is told so.
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
        assert_eq!(settings(folder.path())["ensure_weight_tying"], true);
    }
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

/// Dropout in the kernel: another mask in every pass, the same when blocks are computed again, none without training.
#[test]
fn dropout_is_the_same_when_blocks_are_computed_again() {
    let _drawing = crate::laws::drawing();
    let config = LoraConfig {
        r: 2,
        lora_dropout: 0.5,
        common: on(TargetModules::names(["q_proj", "down_proj", "lm_head"])),
        ..LoraConfig::default()
    };
    let run = |device: Device, seed: u64| {
        let model = AutoCausalLm::load("llama", &device);
        let mut model = attach(model, &config, "default", 1).expect("attaches");
        model.for_each_linear_mut(&mut |_, linear| {
            for adapter in linear.adapters.iter_mut() {
                let b = adapter.val2("lora_B.weight").ones_like() * 0.1;
                crate::laws::set(adapter, "lora_B.weight", b);
            }
        });
        device.seed(seed);
        let ids = Tensor::<2, Int>::from_data([[3, 14, 15, 9, 26]], &device);
        let loss = model.loss(ids);
        let grads = loss.backward();
        let mut found = vec![loss.into_data()];
        model.for_each_linear(&mut |_, linear| {
            for adapter in linear.adapters.iter() {
                let gradient = adapter.val2("lora_A.weight").grad(&grads);
                found.push(gradient.expect("gradient").into_data());
            }
        });
        found
    };
    let device = Device::default().autodiff();
    let found = run(device.clone(), 3);
    assert_eq!(found, run(device.clone().gradient_checkpointing(), 3));
    assert_eq!(found, run(device.clone(), 3));
    assert_ne!(found, run(device, 4));
}

/// Two adapters with copies of the same layer: the last one counts, and each alone is what it was.
#[test]
fn copies_of_two_adapters_do_not_touch_each_other() {
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
                crate::laws::set(adapter, "weight", other);
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

/// Adds numbers to everything that an adapter trains.
fn stir(model: &mut impl Parts) {
    model.for_each_part_mut(&mut |_, mut part| {
        let adapters = part.adapters().iter_mut();
        for tensor in adapters.flat_map(|adapter| &mut adapter.tensors) {
            let data = tensor.data();
            let shape = data.shape().clone();
            let numbers = data.iter::<f32>().enumerate();
            let numbers: Vec<f32> = numbers
                .map(|(i, x)| x + 0.2 * (0.7 * (i + 1) as f32).sin())
                .collect();
            tensor.set(TensorData::new(numbers, shape));
        }
    });
}

#[test]
#[ignore = "writes folders for golden/check_written.py to FT_WRITE_ADAPTERS"]
fn adapters_for_peft() {
    let out = std::env::var("FT_WRITE_ADAPTERS").expect("FT_WRITE_ADAPTERS names a folder");
    let lora = |change: &dyn Fn(&mut LoraConfig)| -> Box<dyn Method> {
        let mut config = LoraConfig::default();
        change(&mut config);
        Box::new(config)
    };
    let modules = |names: &'static [&'static str]| {
        lora(&move |config| {
            config.common.modules_to_save = names.iter().map(|name| name.to_string()).collect();
        })
    };
    let targets = |names: &'static [&'static str]| {
        lora(&move |config| {
            config.common.target_modules = Some(TargetModules::names(names.iter().copied()))
        })
    };
    let bias = |bias: Bias| lora(&move |config| config.common.bias = bias);
    let tokens = TokenIndices::Embedding(vec![9, 3]);
    let beside = lora(&|config| config.trainable_token_indices = Some(tokens.clone()));
    let alone = Box::new(TrainableTokensConfig {
        token_indices: vec![9, 3],
        ..TrainableTokensConfig::default()
    });
    let cases: Vec<(&str, &str, Box<dyn Method>)> = vec![
        (
            "llama",
            "modules",
            modules(&["lm_head", "embed_tokens", "norm"]),
        ),
        ("llama", "module_of_layers", modules(&["self_attn"])),
        (
            "llama",
            "embedding",
            targets(&["q_proj", "embed_tokens", "lm_head"]),
        ),
        ("llama", "tokens", beside.boxed()),
        ("llama", "trainable_tokens", alone.boxed()),
        (
            "llama",
            "lora_bias",
            lora(&|config| config.lora_bias = true),
        ),
        ("tied", "embed_tokens", modules(&["embed_tokens"])),
        ("tied", "lm_head", modules(&["lm_head"])),
        ("tied", "embedding", targets(&["q_proj", "embed_tokens"])),
        ("tied", "tokens", beside),
        ("tied", "trainable_tokens", alone),
        ("gpt2", "bias_all", bias(Bias::All)),
        ("gpt2", "bias_only", bias(Bias::Only)),
        ("gpt2", "modules", modules(&["wpe", "ln_f"])),
    ];
    for (base, name, mut config) in cases {
        config.common_mut().base_model_name_or_path = Some(golden_folder(base).into());
        let model = AutoCausalLm::load(base, &Device::default());
        let mut model = attach(model, &*config, "default", 1).expect("attaches");
        stir(&mut model);
        crate::lora_written::write(&model, &Path::new(&out).join(format!("{base}_{name}")));
    }
}
