//! What trains beside factors (copies of modules and of biases, rows of tokens), LoRA on embeddings and BitFit, against what
//! PEFT computes (`golden/extras.py`).

use std::collections::{BTreeMap, BTreeSet};

use burn::module::Module;
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use ft_core::safetensors_folder::read_tensors;
use ft_core::{AutoCausalLm, Backbone, Bert, CausalLm, Parts, Pass, TokenBatch, causal_lm_loss};
use ft_peft::{load_adapter, merge_and_unload, save_adapter, without_adapters};
use tempfile::TempDir;

use crate::adapted_models::distance;
use crate::golden::{assert_close, folder, saved_settings, saved_tensors};
use crate::methods::gradient;

/// A decoder, whose outputs are logits, or an encoder, whose outputs are hidden states.
pub(crate) trait Golden: Module + Parts {
    fn load(base: &str, device: &Device) -> Self;
    fn outputs(&self, ids: Tensor<2, Int>) -> Tensor<3>;
    fn loss(&self, ids: Tensor<2, Int>) -> Tensor<1>;
}

pub(crate) fn golden_folder(base: &str) -> &'static str {
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

pub(crate) fn place(case: &str) -> std::path::PathBuf {
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

fn gradients_agree(
    case: &str,
    model: &impl Parts,
    grads: &Gradients,
    expected: &BTreeMap<String, TensorData>,
) {
    let mut seen = BTreeSet::new();
    // The gradient of a bias of keys is zero but for rounding, which is not compared.
    let all = expected.iter().filter(|(key, _)| key.starts_with("grad."));
    let largest = all.flat_map(|(_, data)| data.iter::<f32>().collect::<Vec<_>>());
    let rounding = 1e-6 * largest.fold(0.0, |largest: f32, x| largest.max(x.abs()));
    model.for_each_part(&mut |path, part| {
        for tensor in part.adapters().iter().flat_map(|adapter| &adapter.tensors) {
            let key = format!("grad.base_model.model.{path}.{}", tensor.name());
            let Some(expected) = expected.get(&key) else {
                panic!("{case}: PEFT has no gradient of {path}.{}", tensor.name());
            };
            let found = gradient(tensor, grads).unwrap_or_else(|| panic!("{case}: no {key}"));
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

const ENCODERS: [&str; 4] = [
    "bert_bias_all",
    "bert_bitfit",
    "bert_embedding",
    "bert_trainable_tokens",
];

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

fn written_again<M: Golden>(case: &str) {
    let base = case.split('_').next().expect("a base");
    let model = M::load(base, &Device::default());
    let model = load_adapter(model, &place(case), "default", false).expect("loads");
    let ours = TempDir::new().expect("temporary folder");
    save_adapter(&model, "default", ours.path()).expect("saves");
    if !case.ends_with("bitfit") {
        assert_eq!(
            saved_settings(ours.path()),
            saved_settings(&place(case)),
            "{case}"
        );
    }
    let mut theirs = saved_tensors(&place(case));
    // PEFT adds the base weight of an embedding with factors.
    theirs.retain(|key, _| !key.ends_with("base_layer.weight"));
    assert_eq!(saved_tensors(ours.path()), theirs, "{case}");
}

/// What PEFT wrote comes out again with the same keys, settings and numbers.
#[test]
fn adapters_of_peft_are_written_again_as_they_were() {
    DECODERS.into_iter().for_each(written_again::<AutoCausalLm>);
    ENCODERS.into_iter().for_each(written_again::<Bert>);
}
