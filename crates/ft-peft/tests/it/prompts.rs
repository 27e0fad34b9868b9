//! Prompt tuning, p-tuning and prefix tuning of PEFT (`golden/prompts.py`): outputs, gradients, files, generation.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use ft_core::module_path::{PathVisitor, visit_params};
use ft_core::safetensors_folder::read_tensors;
use ft_core::{
    AutoCausalLm, CausalLm, Decoder, GenerationConfig, Parts, TokenBatch, causal_lm_loss, generate,
};
use ft_peft::{
    Method, PTuningConfig, PrefixTuningConfig, PromptTuningConfig, adapter_config, attach,
    load_adapter, read_config, save_adapter, to_json,
};
use serde_json::{Value, json};

use crate::golden::{assert_close, folder, saved_settings, saved_tensors};

const BASES: [&str; 2] = ["llama", "gpt2"];
const CASES: [&str; 4] = ["prompt", "p_tuning", "prefix", "projected"];
/// Cases whose virtual tokens are computed by a network.
const COMPUTED: [&str; 2] = ["p_tuning", "projected"];

fn adapter_folder(base: &str, case: &str) -> PathBuf {
    folder("prompts").join(format!("{base}-{case}"))
}

fn base_model(base: &str, device: &Device) -> AutoCausalLm {
    AutoCausalLm::from_pretrained(&folder(&format!("peft_{base}")), device).expect("loads")
}

fn golden(base: &str) -> BTreeMap<String, TensorData> {
    read_tensors(&folder("prompts").join(format!("{base}.safetensors"))).expect("golden")
}

/// The model with PEFT's adapter.
fn loaded(base: &str, case: &str, trainable: bool, device: &Device) -> AutoCausalLm {
    let model = base_model(base, device);
    load_adapter(model, &adapter_folder(base, case), "default", trainable).expect("loads")
}

/// A new adapter with the settings of the case, whose tensors are those of PEFT before it computed the virtual tokens.
fn with_network(base: &str, case: &str, device: &Device) -> AutoCausalLm {
    let config = read_config(&adapter_folder(base, case)).expect("reads");
    let mut model = attach(base_model(base, device), &*config, "default", 1).expect("attaches");
    let golden = golden(base);
    model.for_each_part_mut(&mut |_, mut part| {
        for adapter in part.adapters().iter_mut() {
            for tensor in &mut adapter.tensors {
                let key = format!("{case}.start.{}", tensor.name());
                tensor.set(golden[&key].clone());
            }
        }
    });
    model
}

/// Every gradient of the loss of the golden file, by the name of the adapter's tensor.
fn gradients(
    model: &AutoCausalLm,
    golden: &BTreeMap<String, TensorData>,
    device: &Device,
) -> (f32, BTreeMap<String, TensorData>) {
    struct Collect(burn::tensor::Gradients, BTreeMap<String, TensorData>);
    impl PathVisitor for Collect {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            let grad = param.val().grad(&self.0);
            match path.split_once(".adapters.default.") {
                None => assert!(grad.is_none(), "{path} of the base has a gradient"),
                Some((_, name)) => {
                    let grad = grad.unwrap_or_else(|| panic!("{path} has no gradient"));
                    self.1.insert(name.to_string(), grad.into_data());
                }
            }
        }
    }
    let ids = golden["input_ids"].clone().convert::<i64>();
    let labels: Vec<i64> = ids.try_to_vec().expect("i64");
    let tokens = TokenBatch::new(Tensor::from_data(golden["input_ids"].clone(), device));
    let loss = causal_lm_loss(model.hidden_states(&tokens, None), model.head(), &labels);
    let mean = loss.sum / loss.count as f64;
    let value = mean.clone().into_scalar::<f32>();
    let mut collect = Collect(mean.backward(), BTreeMap::new());
    visit_params(model, &mut collect);
    (value, collect.1)
}

fn agrees(model: &AutoCausalLm, base: &str, case: &str, device: &Device) {
    let golden = golden(base);
    let tokens = TokenBatch::new(Tensor::from_data(golden["input_ids"].clone(), device));
    let found = model.logits(&tokens, None).into_data();
    assert_close(
        &format!("{base} {case}"),
        &found,
        &golden[&format!("{case}.logits")],
        2e-5,
    );
    let (loss, found) = gradients(model, &golden, device);
    let expected = golden[&format!("{case}.loss")]
        .iter::<f32>()
        .next()
        .expect("one");
    assert!(
        (loss - expected).abs() < 1e-5 * expected,
        "{base} {case}: {loss}, {expected}"
    );
    for (name, found) in &found {
        let expected = match golden.get(&format!("{case}.grad.{name}")) {
            Some(expected) => expected,
            // The virtual tokens of a network have no gradient in the golden file.
            None => {
                assert!(COMPUTED.contains(&case) && name == "prompt_embeddings");
                continue;
            }
        };
        assert_close(&format!("{base} {case} {name}"), found, expected, 1e-4);
    }
    assert!(!found.is_empty());
}

#[test]
fn adapters_of_peft_agree_with_blocks_stored_and_computed_again() {
    let plain = Device::default().autodiff();
    for device in [plain.clone(), plain.gradient_checkpointing()] {
        for base in BASES {
            for case in CASES {
                agrees(&loaded(base, case, true, &device), base, case, &device);
            }
        }
    }
}

#[test]
fn networks_agree_with_peft_and_save_what_they_compute() {
    let plain = Device::default().autodiff();
    for device in [plain.clone(), plain.gradient_checkpointing()] {
        for base in BASES {
            for case in COMPUTED {
                let model = with_network(base, case, &device);
                agrees(&model, base, case, &device);
                let ours = tempfile::tempdir().expect("temporary folder");
                save_adapter(&model, "default", ours.path()).expect("saves");
                let found = saved_tensors(ours.path());
                let expected = saved_tensors(&adapter_folder(base, case));
                assert_eq!(found.keys().collect::<Vec<_>>(), ["prompt_embeddings"]);
                let key = "prompt_embeddings";
                assert_close(key, &found[key], &expected[key], 1e-6);
            }
        }
    }
}

/// What PEFT wrote comes out again with the same keys, settings and numbers.
#[test]
fn prompts_of_peft_are_written_again_as_they_were() {
    for base in BASES {
        for case in CASES {
            let theirs = adapter_folder(base, case);
            let model = loaded(base, case, false, &Device::default());
            let ours = tempfile::tempdir().expect("temporary folder");
            save_adapter(&model, "default", ours.path()).expect("saves");
            assert_eq!(saved_settings(ours.path()), saved_settings(&theirs));
            assert_eq!(saved_tensors(ours.path()), saved_tensors(&theirs));
        }
    }
}

/// New settings are written as PEFT writes them, but for the number of heads where it has no effect.
#[test]
fn new_settings_have_the_sizes_of_the_model() {
    for base in BASES {
        for (case, config) in CASES.iter().zip(configs(5)) {
            let model = attach(base_model(base, &Device::default()), &*config, "default", 1);
            let config = adapter_config(&model.expect("attaches"), "default").expect("there");
            let mut found = to_json(&*config, false);
            let mut expected = saved_settings(&adapter_folder(base, case));
            if !["prefix", "projected"].contains(case) {
                expected["num_attention_heads"] = Value::Null;
            }
            expected["base_model_name_or_path"] = Value::Null;
            // The version of the writer.
            for json in [&mut found, &mut expected] {
                json["peft_version"] = Value::Null;
            }
            if COMPUTED.contains(case) {
                found["encoder_hidden_size"] = json!(12);
            }
            assert_eq!(found, expected, "{base} {case}");
        }
    }
}

/// A setting of every kind.
pub(crate) fn configs(num_virtual_tokens: usize) -> [Box<dyn Method>; 4] {
    [
        Box::new(PromptTuningConfig {
            num_virtual_tokens,
            ..PromptTuningConfig::default()
        }),
        Box::new(PTuningConfig {
            num_virtual_tokens,
            ..PTuningConfig::default()
        }),
        Box::new(PrefixTuningConfig {
            num_virtual_tokens,
            ..PrefixTuningConfig::default()
        }),
        Box::new(PrefixTuningConfig {
            num_virtual_tokens,
            prefix_projection: true,
            ..PrefixTuningConfig::default()
        }),
    ]
}

/// The prompts of the golden file, and PEFT's continuations.
fn texts(base: &str, case: &str) -> [(Vec<u32>, Vec<u32>); 2] {
    let golden = golden(base);
    let ids = golden["input_ids"].clone().convert::<i64>();
    let ids: Vec<u32> = ids.iter::<i64>().map(|id| id as u32).collect();
    [(0, 7), (1, 3)].map(|(row, len)| {
        let text = golden[&format!("{case}.generated.{row}")]
            .clone()
            .convert::<i64>();
        (
            ids[row * 12..][..len].to_vec(),
            text.iter::<i64>().map(|id| id as u32).collect(),
        )
    })
}

pub(crate) fn greedy(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens,
        ..GenerationConfig::default()
    }
}

/// Prompts of different lengths in one batch, and rows that join later and leave earlier.
#[test]
fn generation_agrees_with_peft_row_by_row() {
    let device = Device::default();
    for base in BASES {
        for case in CASES {
            let model = loaded(base, case, false, &device);
            let [(first, one), (second, two)] = texts(base, case);
            let prompts = [first.clone(), second.clone(), first.clone()];
            let mut listen = |_: ft_core::Streamed<'_>| ControlFlow::Continue(());
            let found = generate(&model, None, &prompts, &greedy(8), &device, &mut listen);
            let found: Vec<Vec<u32>> = found
                .expect("generates")
                .into_iter()
                .map(|g| g.token_ids)
                .collect();
            assert_eq!(
                found,
                [one.clone(), two.clone(), one.clone()],
                "{base} {case}"
            );

            let mut decoder = Decoder::new(&model, None, &device);
            let mut found = BTreeMap::<_, Vec<u32>>::new();
            let short = decoder.join(&first, &greedy(4)).expect("joins");
            let mut ids = vec![short];
            for step in 0.. {
                if step == 2 {
                    ids.extend(decoder.join_many(&second, 2, &greedy(8)).expect("joins"));
                }
                if step == 3 {
                    ids.push(decoder.join(&first, &greedy(8)).expect("joins"));
                }
                if step > 3 && decoder.is_empty() {
                    break;
                }
                for next in decoder.step().expect("steps") {
                    found.entry(next.row).or_default().push(next.token_id);
                }
            }
            let found: Vec<&[u32]> = ids.iter().map(|id| &found[id][..]).collect();
            assert_eq!(found, [&one[..4], &two, &two, &one], "{base} {case}");
        }
    }
}
