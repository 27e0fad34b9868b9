//! Every architecture against transformers: hidden states, logits, loss and all gradients.
//!
//! The golden folders are made by `golden/models.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, FloatDType, Gradients, Int, Tensor, TensorData};
use ft_core::module_path::{PathVisitor, visit_params};
use ft_core::safetensors_folder::read_tensors;
use ft_core::{
    AutoCausalLm, CausalLm, ModelConfig, SaveOptions, TokenBatch, Weights, causal_lm_loss,
};

/// Largest allowed difference, relative to the largest number of the expected tensor.
const TOLERANCE: f32 = 2e-5;

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

pub(crate) fn ints(data: &TensorData, device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(data.clone(), device)
}

pub(crate) fn host(data: &TensorData) -> Vec<i64> {
    data.clone().convert::<i64>().try_to_vec().expect("i64")
}

/// Compares whole tensors, relative to the largest expected number.
pub(crate) fn assert_close(what: &str, found: TensorData, expected: &TensorData, tolerance: f32) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let found = found.convert::<f32>();
    let found = found.as_slice::<f32>().expect("f32");
    let expected = expected.as_slice::<f32>().expect("f32");
    let scale = expected.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    let worst = found
        .iter()
        .zip(expected)
        .map(|(a, b)| {
            if a.is_nan() {
                f32::INFINITY
            } else {
                (a - b).abs()
            }
        })
        .fold(0.0, f32::max);
    assert!(
        worst <= tolerance * scale,
        "{what}: differs by {worst}, largest number {scale}"
    );
}

fn agrees_with_transformers(name: &str) {
    let device = Device::default();
    let expected = read_tensors(&golden(name).join("golden.safetensors")).expect("golden");
    let model = AutoCausalLm::from_pretrained(&golden(name), &device).expect("loads");
    let ids = ints(&expected["input_ids"], &device);
    let tokens = TokenBatch::new(ids.clone());

    let hidden = model.hidden_states(&tokens, None);
    assert_close(
        "hidden",
        hidden.clone().into_data(),
        &expected["hidden"],
        TOLERANCE,
    );
    let logits = model.head().forward(hidden);
    assert_close("logits", logits.into_data(), &expected["logits"], TOLERANCE);

    // Kept or computed again block by block: the gradients are the same.
    let device = device.autodiff();
    for device in [device.clone(), device.gradient_checkpointing()] {
        let model = AutoCausalLm::from_pretrained(&golden(name), &device).expect("loads");
        gradients_agree(model, &device, &expected);
    }
}

/// The mean loss over `labels = input_ids`, and its gradient for every parameter.
fn gradients_agree(model: AutoCausalLm, device: &Device, expected: &BTreeMap<String, TensorData>) {
    let ids = ints(&expected["input_ids"], device);
    let hidden = model.hidden_states(&TokenBatch::new(ids.clone()), None);
    let loss = causal_lm_loss(hidden, model.head(), &host(&expected["input_ids"]));
    let mean = loss.sum / loss.count as f64;
    let golden = expected["loss"].as_slice::<f32>().expect("f32")[0];
    let found = mean.clone().into_scalar::<f32>();
    assert!(
        (found - golden).abs() < 1e-5 * golden,
        "loss {found}, expected {golden}"
    );

    assert_gradients(&model, mean.backward(), expected);
}

/// Compares the gradient of every parameter with `grad.<parameter>`; none is left over.
pub(crate) fn assert_gradients(
    model: &impl Module,
    grads: Gradients,
    expected: &BTreeMap<String, TensorData>,
) {
    struct Check<'a> {
        grads: Gradients,
        expected: &'a BTreeMap<String, TensorData>,
        seen: usize,
    }
    impl PathVisitor for Check<'_> {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            let grad = param.val().grad(&self.grads);
            let grad = grad.unwrap_or_else(|| panic!("{path} has no gradient"));
            let expected = &self.expected[&format!("grad.{path}")];
            assert_close(path, grad.into_data(), expected, 1e-4);
            self.seen += 1;
        }
    }
    let mut check = Check {
        grads,
        expected,
        seen: 0,
    };
    visit_params(model, &mut check);
    let known = expected
        .keys()
        .filter(|key| key.starts_with("grad."))
        .count();
    assert_eq!(check.seen, known, "parameters with golden gradients");
}

#[test]
fn tied_llama_agrees() {
    agrees_with_transformers("llama");
}

#[test]
fn llama_with_padding_agrees() {
    agrees_with_transformers("llama_padding");
}

#[test]
fn untied_llama_with_biases_and_wide_heads_agrees() {
    agrees_with_transformers("llama_untied_bias");
}

#[test]
fn llama3_rope_scaling_agrees() {
    agrees_with_transformers("llama3_rope");
}

#[test]
fn linear_rope_scaling_agrees() {
    agrees_with_transformers("llama_linear_rope");
}

#[test]
fn yarn_rope_scaling_agrees() {
    agrees_with_transformers("llama_yarn");
}

#[test]
fn dynamic_rope_scaling_beyond_the_context_of_pretraining_agrees() {
    agrees_with_transformers("llama_dynamic");
}

#[test]
fn longrope_agrees_within_and_beyond_the_context_of_pretraining() {
    agrees_with_transformers("llama_longrope_short");
    agrees_with_transformers("llama_longrope");
}

#[test]
fn mistral_with_a_window_shorter_than_the_text_agrees() {
    agrees_with_transformers("mistral");
}

#[test]
fn qwen2_agrees() {
    agrees_with_transformers("qwen2");
}

#[test]
fn qwen2_with_windows_in_some_layers_agrees() {
    agrees_with_transformers("qwen2_window");
}

#[test]
fn qwen3_agrees() {
    agrees_with_transformers("qwen3");
}

#[test]
fn gpt2_agrees() {
    agrees_with_transformers("gpt2");
}

#[test]
fn phi_agrees_with_and_without_norms_on_heads() {
    agrees_with_transformers("phi");
    agrees_with_transformers("phi_qk_norm");
}

#[test]
fn phi3_agrees_with_a_window_and_with_longrope_on_a_part_of_each_head() {
    agrees_with_transformers("phi3");
    agrees_with_transformers("phi3_longrope");
}

#[test]
fn gpt_neox_agrees_with_parallel_and_with_sequential_blocks() {
    agrees_with_transformers("gpt_neox");
    agrees_with_transformers("gpt_neox_sequential");
}

#[test]
fn falcon_agrees_in_its_four_forms() {
    for name in ["falcon_rw", "falcon_7b", "falcon_40b", "falcon_11b"] {
        agrees_with_transformers(name);
    }
}

#[test]
fn gemma_agrees() {
    agrees_with_transformers("gemma");
}

#[test]
fn gemma2_with_caps_and_windows_agrees() {
    agrees_with_transformers("gemma2");
}

#[test]
fn gemma3_with_two_sets_of_frequencies_agrees() {
    agrees_with_transformers("gemma3");
}

#[test]
fn smollm3_agrees() {
    agrees_with_transformers("smollm3");
}

#[test]
fn smollm3_with_windows_where_positions_do_not_rotate_agrees() {
    agrees_with_transformers("smollm3_window");
}

#[test]
fn olmo2_agrees() {
    agrees_with_transformers("olmo2");
}

#[test]
fn granite_agrees() {
    agrees_with_transformers("granite");
}

#[test]
fn sharded_checkpoints_agree() {
    agrees_with_transformers("llama_sharded");
}

#[test]
fn bf16_checkpoints_agree() {
    agrees_with_transformers("llama_bf16");
}

#[test]
fn f16_checkpoints_agree() {
    agrees_with_transformers("llama_f16");
}

/// Also where transformers 4 keeps some of the settings beside the scaling.
#[test]
fn configurations_of_transformers_4_and_5_say_the_same() {
    for name in [
        "llama3_rope",
        "llama_yarn",
        "llama_dynamic",
        "llama_longrope",
    ] {
        let read = |file: &str| {
            let text = std::fs::read_to_string(golden(name).join(file)).expect("file");
            let json = serde_json::from_str(&text).expect("json");
            let written = ModelConfig::from_json(json).expect("valid").to_json();
            let keys = [
                "rope_theta",
                "rotary_emb_base",
                "rope_scaling",
                "partial_rotary_factor",
                "rotary_pct",
                "max_position_embeddings",
                "original_max_position_embeddings",
            ];
            keys.map(|key| written.get(key).cloned())
        };
        assert_eq!(read("config.json"), read("config_v4.json"), "{name}");
    }
}

/// Padding on the left changes nothing for the tokens that are not padding.
#[test]
fn left_padded_rows_agree() {
    for name in [
        "llama",
        "llama_dynamic",
        "llama_longrope",
        "mistral",
        "qwen3",
        "gpt2",
        "phi",
        "phi3",
        "gpt_neox",
        "falcon_rw",
        "falcon_7b",
        "gemma",
        "gemma2",
        "gemma3",
        "smollm3_window",
        "olmo2",
        "granite",
    ] {
        let device = Device::default();
        let expected = read_tensors(&golden(name).join("golden.safetensors")).expect("golden");
        let model = AutoCausalLm::from_pretrained(&golden(name), &device).expect("loads");
        let mask = &expected["attention_mask"];
        let [rows, seq] = mask.shape().dims();
        let mask_values = mask.as_slice::<i64>().expect("i64").to_vec();
        let positions: Vec<i64> = mask_values
            .chunks(seq)
            .flat_map(|row| {
                row.iter().scan(-1, |position, real| {
                    *position += real;
                    Some((*position).max(0))
                })
            })
            .collect();
        let tokens = TokenBatch {
            input_ids: ints(&expected["input_ids_padded"], &device),
            position_ids: Some(ints(&TensorData::new(positions, [rows, seq]), &device)),
            segment_ids: Some(ints(mask, &device)),
            token_type_ids: None,
        };
        let real = |data: TensorData| {
            let vocab = data.shape()[2];
            let mut values = data.convert::<f32>().try_into_vec::<f32>().expect("f32");
            for (logits, real) in values.chunks_mut(vocab).zip(&mask_values) {
                logits.iter_mut().for_each(|logit| *logit *= *real as f32);
            }
            TensorData::new(values, [rows, seq, vocab])
        };
        let found = real(model.logits(&tokens, None).into_data());
        assert_close(
            name,
            found,
            &real(expected["logits_padded"].clone()),
            TOLERANCE,
        );
    }
}

/// Documents packed into one row, told apart by segments, give what they give alone.
#[test]
fn packed_equals_separate() {
    for name in [
        "llama",
        "mistral",
        "qwen2",
        "gpt2",
        "phi",
        "phi3",
        "gpt_neox",
        "falcon_rw",
        "falcon_40b",
        "gemma",
        "gemma2",
        "gemma3",
        "smollm3_window",
        "olmo2",
        "granite",
    ] {
        let device = Device::default();
        let model = AutoCausalLm::from_pretrained(&golden(name), &device).expect("loads");
        let documents: [Vec<u32>; 3] = [vec![5, 9, 2, 44], vec![7], vec![61, 3, 3, 8, 90, 12]];
        let alone: Vec<_> = documents
            .iter()
            .map(|ids| model.logits(&TokenBatch::from_ids(ids, &device), None))
            .collect();
        let row = |values: Vec<i64>| {
            let len = values.len();
            Tensor::<2, Int>::from_data(TensorData::new(values, [1, len]), &device)
        };
        let all = |f: &dyn Fn(usize, usize) -> i64| {
            let places = documents
                .iter()
                .enumerate()
                .flat_map(|(d, ids)| (0..ids.len()).map(move |i| (d, i)));
            row(places.map(|(d, i)| f(d, i)).collect())
        };
        let packed = TokenBatch {
            input_ids: all(&|d, i| i64::from(documents[d][i])),
            position_ids: Some(all(&|_, i| i as i64)),
            segment_ids: Some(all(&|d, _| d as i64 + 1)),
            token_type_ids: None,
        };
        let found = model.logits(&packed, None).into_data();
        assert_close(name, found, &Tensor::cat(alone, 1).into_data(), TOLERANCE);
    }
}

/// A model in 16 bits, held so, computes what it computes when it is widened first; nothing of it trains.
#[test]
fn weights_held_as_they_are_stored_give_the_same() {
    struct Held(Vec<DType>);
    impl PathVisitor for Held {
        fn visit<const D: usize>(&mut self, _: &str, param: &Param<Tensor<D>>) {
            assert!(!param.val().is_tracked());
            if D == 2 {
                self.0.push(param.val().dtype());
            }
        }
    }
    for name in [
        "llama",
        "llama_untied_bias",
        "qwen3",
        "gpt2",
        "phi",
        "phi3",
        "gpt_neox",
        "falcon_rw",
        "falcon_40b",
        "gemma",
        "gemma2",
        "gemma3",
        "olmo2",
        "granite",
    ] {
        for (dtype, held) in [
            (FloatDType::BF16, DType::BF16),
            (FloatDType::F16, DType::F16),
            (FloatDType::F32, DType::F32),
        ] {
            let device = Device::default().autodiff();
            let folder = tempfile::TempDir::new().expect("temporary folder");
            let options = SaveOptions {
                dtype,
                ..SaveOptions::default()
            };
            AutoCausalLm::from_pretrained(&golden(name), &device)
                .and_then(|model| model.save_pretrained(folder.path(), &options))
                .expect("saves");
            let [wide, narrow] = [Weights::F32, Weights::Stored].map(|weights| {
                AutoCausalLm::from_pretrained_with(folder.path(), &device, weights).expect("loads")
            });
            let mut dtypes = Held(Vec::new());
            visit_params(&narrow, &mut dtypes);
            assert!(
                dtypes.0.iter().all(|dtype| *dtype == held),
                "{:?}",
                dtypes.0
            );
            let ids: Vec<u32> = (0..23).map(|i| i * 7 % 90).collect();
            let labels: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
            let run = |model: &AutoCausalLm| {
                let tokens = TokenBatch::from_ids(&ids, &device);
                let logits = model.logits(&tokens, None);
                let hidden = model.hidden_states(&tokens, None);
                let loss = causal_lm_loss(hidden, model.head(), &labels).sum;
                (logits.into_data(), loss.into_scalar::<f32>())
            };
            let ((found, loss), (expected, wide_loss)) = (run(&narrow), run(&wide));
            assert_close(name, found, &expected, 2e-6);
            assert!(
                (loss - wide_loss).abs() < 1e-5 * wide_loss,
                "{loss} {wide_loss}"
            );
        }
    }
}
