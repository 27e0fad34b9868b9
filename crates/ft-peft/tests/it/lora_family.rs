//! LoRA's relatives against PEFT (`golden/lora_family.py`): DoRA, PiSSA, OLoRA, other initialisations, choice of layers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::module::{Module, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use ft_core::module_path::{PathVisitor, visit_params};
use ft_core::safetensors_folder::read_tensors;
use ft_core::{AutoCausalLm, Backbone, Bert, CausalLm, Parts, TokenBatch, Weights, causal_lm_loss};
use ft_peft::{
    LoraConfig, adapter_names, attach, load_adapter, merge_and_unload, save_adapter, set_active,
};
use serde_json::Value;

use crate::adapted_models::distance;
use crate::golden::{assert_close, folder, saved_settings, saved_tensors};

const LLAMA: [&str; 7] = [
    "dora_llama",
    "dora_patterns",
    "pissa_llama",
    "pissa_dora",
    "olora_llama",
    "mica_llama",
    "random_llama",
];

fn case(name: &str) -> PathBuf {
    folder("lora_family").join(name)
}

fn base_of(name: &str) -> PathBuf {
    let json = std::fs::read(case(name).join("adapter_config.json")).expect("reads");
    let json: Value = serde_json::from_slice(&json).expect("json");
    match json["base_model_name_or_path"].as_str() {
        Some("bert") => folder("../../../ft-core/tests/golden/bert"),
        base => folder(base.expect("a base")),
    }
}

fn load(name: &str, device: &Device, trainable: bool) -> AutoCausalLm {
    let model = AutoCausalLm::from_pretrained(&base_of(name), device).expect("loads");
    load_adapter(model, &case(name), "default", trainable).expect("loads")
}

fn tokens_of(golden: &BTreeMap<String, TensorData>, device: &Device) -> TokenBatch {
    TokenBatch::new(Tensor::<2, Int>::from_data(
        golden["input_ids"].clone(),
        device,
    ))
}

fn agrees_with_peft(name: &str) {
    let golden = read_tensors(&case(name).join("golden.safetensors")).expect("golden");
    let device = Device::default().autodiff();
    let model = load(name, &device, true);
    let tokens = tokens_of(&golden, &device);
    let logits = model.logits(&tokens, None).into_data();
    assert_close("logits", &logits, &golden["logits"], 5e-5);

    let labels = golden["input_ids"].clone().convert::<i64>();
    let labels: Vec<i64> = labels.try_to_vec().expect("i64");
    let loss = causal_lm_loss(model.hidden_states(&tokens, None), model.head(), &labels);
    let mean = loss.sum / loss.count as f64;
    assert_close("loss", &mean.to_data(), &golden["loss"], 2e-5);
    gradients_agree(&model, mean.backward(), &golden);

    let merged = merge_and_unload(model.valid()).expect("merges");
    let plain = TokenBatch::new(tokens.input_ids.inner());
    let logits = merged.logits(&plain, None).into_data();
    assert_close("merged", &logits, &golden["logits_merged"], 1e-4);
}

/// Exactly the tensors that PEFT trains have a gradient, and it is PEFT's.
fn gradients_agree(model: &impl Module, grads: Gradients, golden: &BTreeMap<String, TensorData>) {
    struct Check<'a> {
        grads: Gradients,
        golden: &'a BTreeMap<String, TensorData>,
        seen: usize,
    }
    impl PathVisitor for Check<'_> {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            let Some(grad) = param.val().grad(&self.grads) else {
                return;
            };
            let (layer, tensor) = (path.split_once(".adapters.default."))
                .unwrap_or_else(|| panic!("{path} of the base has a gradient"));
            let key = format!("grad.base_model.model.{layer}.{tensor}");
            assert_close(path, &grad.into_data(), &self.golden[&key], 1e-4);
            self.seen += 1;
        }
    }
    let mut check = Check {
        grads,
        golden,
        seen: 0,
    };
    visit_params(model, &mut check);
    let expected = golden.keys().filter(|key| key.starts_with("grad.")).count();
    assert!(
        expected > 0 && check.seen == expected,
        "{} {expected}",
        check.seen
    );
}

#[test]
fn dora_agrees() {
    agrees_with_peft("dora_llama");
}

/// GPT-2's weights are transposed, and its layers have biases.
#[test]
fn dora_on_transposed_weights_agrees() {
    agrees_with_peft("dora_gpt2");
}

#[test]
fn dora_with_patterns_and_rank_stabilisation_agrees() {
    agrees_with_peft("dora_patterns");
}

#[test]
fn dora_on_an_encoder_agrees() {
    let golden = read_tensors(&case("dora_bert").join("golden.safetensors")).expect("golden");
    let device = Device::default().autodiff();
    let model = Bert::from_pretrained(&base_of("dora_bert"), &device).expect("loads");
    let model = load_adapter(model, &case("dora_bert"), "default", true).expect("loads");
    let tokens = tokens_of(&golden, &device);
    let hidden = model.forward(model.embed(tokens.input_ids.clone()), tokens.pass());
    assert_close("hidden", &hidden.to_data(), &golden["logits"], 5e-5);
    let count = golden["logits"].num_elements();
    let weights: Vec<f32> = (0..count)
        .map(|i| -1.0 + 2.0 * i as f32 / (count - 1) as f32)
        .collect();
    let weights = TensorData::new(weights, hidden.dims());
    let loss = (hidden * Tensor::from_data(weights, &device))
        .square()
        .mean();
    assert_close("loss", &loss.to_data(), &golden["loss"], 2e-5);
    gradients_agree(&model, loss.backward(), &golden);
}

#[test]
fn pissa_agrees() {
    agrees_with_peft("pissa_llama");
}

#[test]
fn pissa_on_transposed_weights_agrees() {
    agrees_with_peft("pissa_gpt2");
}

#[test]
fn pissa_under_dora_agrees() {
    agrees_with_peft("pissa_dora");
}

#[test]
fn olora_agrees() {
    agrees_with_peft("olora_llama");
}

#[test]
fn orthogonal_and_random_factors_agree() {
    agrees_with_peft("orthogonal_llama");
    agrees_with_peft("random_llama");
}

/// Only `A` has a gradient.
#[test]
fn mica_agrees() {
    agrees_with_peft("mica_llama");
}

#[test]
fn dora_beside_a_plain_adapter_agrees_in_both_orders() {
    let golden = read_tensors(&folder("lora_family/beside.safetensors")).expect("golden");
    let input_ids = read_tensors(&case("dora_llama").join("golden.safetensors")).expect("golden");
    let device = Device::default();
    for order in [["plain", "dora"], ["dora", "plain"]] {
        let mut model =
            AutoCausalLm::from_pretrained(&folder("peft_llama"), &device).expect("loads");
        for name in order {
            let from = match name {
                "plain" => folder("peft_llama/adapter"),
                _ => case("dora_llama"),
            };
            set_active(&mut model, &[]).expect("switches");
            model = load_adapter(model, &from, name, false).expect("loads");
        }
        set_active(&mut model, &order).expect("switches");
        let tokens = tokens_of(&input_ids, &device);
        let expected = &golden[&order.join("_")];
        let logits = model.logits(&tokens, None).into_data();
        assert_close("logits", &logits, expected, 5e-5);
        let merged = merge_and_unload(model).expect("merges");
        assert_close(
            "merged",
            &merged.logits(&tokens, None).into_data(),
            expected,
            1e-4,
        );
    }
}

/// Widening 16 bits is exact, so nothing but the numbers of the base may differ.
#[test]
fn a_base_in_16_bits_computes_as_its_numbers_in_32() {
    for name in ["dora_llama", "pissa_dora"] {
        let golden = read_tensors(&case(name).join("golden.safetensors")).expect("golden");
        let device = Device::default();
        let model = AutoCausalLm::from_pretrained(&base_of(name), &device).expect("loads");
        let halves = tempfile::tempdir().expect("temporary folder");
        let options = ft_core::SaveOptions {
            dtype: burn::tensor::FloatDType::BF16,
            ..ft_core::SaveOptions::default()
        };
        model
            .save_pretrained(halves.path(), &options)
            .expect("saves");
        let logits = |weights: Weights| {
            let model = AutoCausalLm::from_pretrained_with(halves.path(), &device, weights);
            let model = load_adapter(model.expect("loads"), &case(name), "default", false);
            let model = model.expect("loads");
            model.logits(&tokens_of(&golden, &device), None).into_data()
        };
        let (narrow, wide) = (logits(Weights::Stored), logits(Weights::F32));
        assert_close(name, &narrow, &wide, 1e-5);
    }
}

/// What PEFT wrote comes out again with the same keys, settings and numbers.
#[test]
fn files_of_peft_are_written_again_as_they_were() {
    for name in LLAMA
        .into_iter()
        .chain(["dora_gpt2", "pissa_gpt2", "orthogonal_llama"])
    {
        let model = load(name, &Device::default(), false);
        let ours = tempfile::tempdir().expect("temporary folder");
        save_adapter(&model, "default", ours.path()).expect("saves");
        assert_eq!(
            saved_settings(ours.path()),
            saved_settings(&case(name)),
            "{name}"
        );
        assert_eq!(
            saved_tensors(ours.path()),
            saved_tensors(&case(name)),
            "{name}"
        );
    }
}

/// In PEFT PiSSA and OLoRA change the base, so that switching the adapter off gives another model.
#[test]
fn switched_off_is_the_base() {
    for name in LLAMA {
        let golden = read_tensors(&case(name).join("golden.safetensors")).expect("golden");
        let device = Device::default();
        let tokens = tokens_of(&golden, &device);
        let base = AutoCausalLm::from_pretrained(&base_of(name), &device).expect("loads");
        let mut model = load(name, &device, false);
        assert!(distance(&model.logits(&tokens, None).into_data(), &golden["logits"]) < 1e-3);
        set_active(&mut model, &[]).expect("switches");
        let logits = model.logits(&tokens, None).into_data();
        assert_eq!(logits, base.logits(&tokens, None).into_data(), "{name}");
    }
}

/// Layers are chosen as PEFT chooses them.
#[test]
fn peft_chooses_the_same_layers() {
    let json = std::fs::read(folder("lora_family/selection.json")).expect("reads");
    let cases: Vec<Value> = serde_json::from_slice(&json).expect("json");
    assert!(cases.len() >= 10);
    for case in cases {
        let base = folder(case["base"].as_str().expect("a base"));
        let model = AutoCausalLm::from_pretrained(&base, &Device::default()).expect("loads");
        let config = LoraConfig::from_settings(&case["settings"]).expect("settings");
        let model = attach(model, &config, "default", 0).expect("attaches");
        assert_eq!(adapter_names(&model), ["default"]);
        let mut chosen = Vec::new();
        model.for_each_linear(&mut |path, linear| {
            if !linear.adapters.is_empty() {
                chosen.push(path.to_string());
            }
        });
        chosen.sort();
        assert_eq!(
            serde_json::json!(chosen),
            case["chosen"],
            "{}",
            case["settings"]
        );
    }
}
