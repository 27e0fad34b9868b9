//! Bottleneck adapters that AdapterHub's package saved, against what it computes with them (`golden/bottleneck.py`).

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, TensorData};
use ft_core::safetensors_folder::read_tensors;
use ft_core::{AutoCausalLm, Bert, Parts};
use ft_peft::{
    BottleneckConfig, InitBottleneck, attach, load_adapter, merge_and_unload, save_adapter,
};
use serde_json::Value;

use crate::adapted_models::{distance, logits, model};
use crate::golden::{assert_close, folder};
use crate::methods::{Base, config, count_gradients, gradient};

const CASES: [&str; 4] = ["attention", "houlsby", "parallel", "pfeiffer"];

/// The name of a module in AdapterHub's files.
fn module(path: &str) -> String {
    match path.contains("encoder.layer") {
        true => path
            .replace("attention_adapters", "attention.output")
            .replace("output_adapters", "output"),
        false => path.to_string(),
    }
}

fn agrees<M: Base>(base: &str) {
    for case in CASES {
        let name = format!("{base}/{case}");
        let base = folder("methods").join(base);
        let case = folder("bottleneck").join(&name);
        let device = Device::default().autodiff();
        let inputs = read_tensors(&base.join("inputs.safetensors")).expect("inputs");
        let golden = read_tensors(&case.join("golden.safetensors")).expect("golden");
        let close = |what: &str, found: &TensorData| {
            assert_close(&format!("{name}: {what}"), found, &golden[what], 1e-4);
        };
        // The name in the file is another one.
        let model = load_adapter(M::load(&base, &device), &case, "mine", true);
        let model = model.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (output, loss) = model.compute(&inputs, &device);
        close("loss", &loss.to_data());
        let gradients = loss.backward();
        let mut seen = 0;
        model.for_each_part(&mut |path, part| {
            for tensor in part.adapters().iter().flat_map(|adapter| &adapter.tensors) {
                let key = format!("grad.{}.adapters.task.{}", module(path), tensor.name());
                close(&key, &gradient(tensor, &gradients).expect("a gradient"));
                seen += 1;
            }
        });
        assert_eq!(seen + 2, golden.len(), "{name}");
        assert_eq!(count_gradients(&model, &gradients), seen, "{name}");
        close("output", &output.into_data());
        let model = model.valid();
        written_again(&model, &case, &name);
        let error = merge_and_unload(model).expect_err("refused").to_string();
        assert!(error.contains("cannot be merged"), "{error}");
    }
}

/// The same settings, and the same tensors under the adapter's name.
fn written_again(model: &(impl Module + Parts), case: &Path, name: &str) {
    let again = tempfile::tempdir().expect("temporary folder");
    let written = save_adapter(model, "mine", again.path()).expect("saves");
    let mut expected = config(case);
    expected["name"] = "mine".into();
    if expected["config"]["non_linearity"] == "swish" {
        // Two names of one function.
        expected["config"]["non_linearity"] = "silu".into();
    }
    assert_eq!(config(&written), expected, "{name}");
    let tensors = |folder: &Path| read_tensors(&folder.join("adapter.safetensors")).expect("reads");
    let expected = tensors(case).into_iter();
    let expected: Vec<(String, TensorData)> = expected
        .map(|(key, data)| (key.replace(".task.", ".mine."), data))
        .collect();
    let found: Vec<(String, TensorData)> = tensors(&written).into_iter().collect();
    assert!(found == expected, "{name}: other tensors");
}

#[test]
fn adapters_of_adapter_hub_on_llama_agree() {
    agrees::<AutoCausalLm>("llama");
}

#[test]
fn adapters_of_adapter_hub_on_gpt2_agree() {
    agrees::<AutoCausalLm>("gpt2");
}

#[test]
fn adapters_of_adapter_hub_on_bert_agree() {
    agrees::<Bert>("bert");
}

/// A file of a model with a head names the encoder, and may have tensors that belong nowhere.
#[test]
fn keys_with_a_prefix_are_read_and_others_are_reported() {
    let case = folder("bottleneck/bert/houlsby");
    let copy = tempfile::tempdir().expect("temporary folder");
    std::fs::copy(
        case.join("adapter_config.json"),
        copy.path().join("adapter_config.json"),
    )
    .expect("copies");
    let original = read_tensors(&case.join("adapter.safetensors")).expect("reads");
    let base = || Bert::load(&folder("methods/bert"), &Device::default());
    let load = |tensors: Vec<(String, TensorData)>| {
        let file = copy.path().join("adapter.safetensors");
        ft_core::safetensors_folder::write_tensors(&file, &tensors, &Default::default())
            .expect("writes");
        load_adapter(base(), copy.path(), "task", false)
    };
    let prefixed: Vec<(String, TensorData)> = original
        .iter()
        .map(|(key, data)| (format!("bert.{key}"), data.clone()))
        .collect();
    load(prefixed.clone()).expect("loads");
    let mut odd = prefixed;
    odd[0].0 = "bert.encoder.layer.0.output.adapters.other.adapter_up.bias".into();
    let error = load(odd).expect_err("refused").to_string();
    for part in ["missing (1)", "left over (1)", "adapters.other"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn new_adapters_of_he_are_the_identity_and_those_of_houlsby_are_near_it() {
    let device = Device::default();
    let base = model("llama", &device);
    let before = logits(&base, &device);
    let after = |init_weights| {
        let config = BottleneckConfig {
            init_weights,
            reduction_factor: 2.0,
            ..BottleneckConfig::houlsby()
        };
        let model = attach(base.clone(), &config, "default", 1).expect("attaches");
        distance(&logits(&model, &device), &before)
    };
    assert_eq!(after(InitBottleneck::MamAdapter), 0.0);
    for init in [InitBottleneck::Bert, InitBottleneck::Houlsby] {
        let off = after(init);
        assert!(off > 0.0 && off < 0.2, "{init:?}: {off}");
    }
}

#[test]
fn a_model_without_a_place_for_them_is_refused() {
    let json: Value = serde_json::json!({"model_type": "gpt_neox", "vocab_size": 50, "hidden_size": 32,
        "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2});
    let config = ft_core::ModelConfig::from_json(json).expect("valid");
    let model = AutoCausalLm::from_config(&config, &Device::default()).expect("valid");
    let error = attach(model, &BottleneckConfig::parallel(), "default", 1).expect_err("refused");
    assert!(error.to_string().contains("no part"), "{error}");
}
