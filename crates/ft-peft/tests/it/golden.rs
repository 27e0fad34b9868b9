//! Adapters that PEFT saved, against what PEFT computes with them (`golden/adapters.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use ft_core::module_path::{PathVisitor, visit_params};
use ft_core::safetensors_folder::read_tensors;
use ft_core::{AutoCausalLm, CausalLm, TokenBatch, causal_lm_loss};
use ft_peft::{load_adapter, merge_and_unload, save_adapter};
use serde_json::Value;

use crate::adapted_models::distance;

pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// The settings in an adapter's folder, without the version of PEFT, which differs between writers.
pub(crate) fn saved_settings(folder: &Path) -> Value {
    let bytes = std::fs::read(folder.join("adapter_config.json")).expect("reads");
    let mut json: Value = serde_json::from_slice(&bytes).expect("json");
    json["peft_version"] = Value::Null;
    json
}

/// The tensors in an adapter's folder.
pub(crate) fn saved_tensors(folder: &Path) -> BTreeMap<String, TensorData> {
    read_tensors(&folder.join("adapter_model.safetensors")).expect("reads")
}

/// Whole tensors agree, relative to the largest expected number.
pub(crate) fn assert_close(what: &str, found: &TensorData, expected: &TensorData, tolerance: f32) {
    let scale = expected.iter::<f32>().fold(1e-3f32, |m, x| m.max(x.abs()));
    let worst = distance(found, expected);
    assert!(
        worst <= tolerance * scale,
        "{what}: differs by {worst}, largest number {scale}"
    );
}

fn agrees_with_peft(base: &str, adapter: &str, prefix: &str) {
    let expected = read_tensors(&folder(base).join("golden.safetensors")).expect("golden");
    let golden = |name: &str| &expected[&format!("{prefix}{name}")];
    let device = Device::default().autodiff();
    let ids = Tensor::<2, Int>::from_data(expected["input_ids"].clone(), &device);
    let tokens = TokenBatch::new(ids);
    let labels = expected["input_ids"].clone().convert::<i64>();
    let labels: Vec<i64> = labels.try_to_vec().expect("i64");
    let model = AutoCausalLm::from_pretrained(&folder(base), &device).expect("loads");
    let before = model.logits(&tokens, None).into_data();
    assert_close("base", &before, &expected["logits_base"], 2e-5);

    let model = load_adapter(model, &folder(base).join(adapter), "default", true).expect("loads");
    let logits = model.logits(&tokens, None).into_data();
    assert_close("logits", &logits, golden("logits"), 2e-5);

    let loss = causal_lm_loss(model.hidden_states(&tokens, None), model.head(), &labels);
    let mean = loss.sum / loss.count as f64;
    assert_close("loss", &mean.to_data(), golden("loss"), 1e-5);
    factors_agree(&model, mean.backward(), &expected, prefix);

    let merged = merge_and_unload(model.valid()).expect("merges");
    let plain = TokenBatch::new(tokens.input_ids.inner());
    let logits = merged.logits(&plain, None).into_data();
    assert_close("merged", &logits, golden("logits_merged"), 1e-4);
}

fn factors_agree(
    model: &AutoCausalLm,
    grads: Gradients,
    expected: &BTreeMap<String, TensorData>,
    prefix: &str,
) {
    struct Check<'a> {
        grads: Gradients,
        expected: &'a BTreeMap<String, TensorData>,
        prefix: &'a str,
        seen: usize,
    }
    impl PathVisitor for Check<'_> {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            let grad = param.val().grad(&self.grads);
            let Some((layer, factor)) = path.split_once(".adapters.default.") else {
                assert!(grad.is_none(), "{path} of the base has a gradient");
                return;
            };
            let key = format!("{}grad.base_model.model.{layer}.{factor}", self.prefix);
            let grad = grad.unwrap_or_else(|| panic!("{path} has no gradient"));
            assert_close(path, &grad.into_data(), &self.expected[&key], 1e-4);
            self.seen += 1;
        }
    }
    let mut check = Check {
        grads,
        expected,
        prefix,
        seen: 0,
    };
    visit_params(model, &mut check);
    let start = format!("{prefix}grad.");
    let known = expected
        .keys()
        .filter(|key| key.starts_with(&start))
        .count();
    assert_eq!(check.seen, known);
}

#[test]
fn a_llama_adapter_of_peft_agrees() {
    agrees_with_peft("peft_llama", "adapter", "");
}

#[test]
fn a_rank_stabilised_adapter_of_peft_agrees() {
    agrees_with_peft("peft_llama", "adapter_rslora", "rslora.");
}

#[test]
fn a_gpt2_adapter_of_peft_agrees() {
    agrees_with_peft("peft_gpt2", "adapter", "");
}

/// What PEFT wrote comes out again with the same keys, settings and numbers.
#[test]
fn an_adapter_of_peft_is_written_again_as_it_was() {
    for (base, adapter) in [
        ("peft_llama", "adapter"),
        ("peft_llama", "adapter_rslora"),
        ("peft_gpt2", "adapter"),
    ] {
        let theirs = folder(base).join(adapter);
        let model = AutoCausalLm::from_pretrained(&folder(base), &Device::default());
        let model = load_adapter(model.expect("loads"), &theirs, "default", false).expect("loads");
        let ours = tempfile::tempdir().expect("temporary folder");
        save_adapter(&model, "default", ours.path()).expect("saves");
        assert_eq!(saved_settings(ours.path()), saved_settings(&theirs));
        assert_eq!(saved_tensors(ours.path()), saved_tensors(&theirs));
    }
}
