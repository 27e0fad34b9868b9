//! Models whose weights are blocks of few bits: the same functions as with the decoded weights, and nothing forgets them.

use burn::module::{Module, Param};
use burn::tensor::{Bytes, Device, Int, Tensor, TensorData, f16};
use ft_core::layers::{Layout, WeightParam};
use ft_core::module_path::{packed_weights, shapes};
use ft_core::safetensors_folder::module_tensors;
use ft_core::{
    AutoCausalLm, CausalLm, ModelConfig, PartMut, Parts, SaveOptions, TokenBatch, causal_lm_loss,
    dequantize, score_tokens, token_logps,
};
use ft_kernels::{Packed, PackedFormat};
use serde_json::json;

use crate::models::assert_close;

/// Blocks with different numbers and a scale of 0.01.
pub(crate) fn noise(format: PackedFormat, shape: [usize; 2], seed: u32, device: &Device) -> Packed {
    let size = format.bytes_of(shape[1]) * shape[0];
    let mut state = seed;
    let bytes = (0..size).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let mut bytes: Vec<u8> = bytes.collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        let scale = if format == PackedFormat::Q8_0 {
            0.001
        } else {
            0.01
        };
        block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        if format == PackedFormat::Q4_1 {
            block[2..4].copy_from_slice(&f16::from_f32(-0.07).to_le_bytes());
        }
    }
    Packed::from_bytes(format, Bytes::from_bytes_vec(bytes), shape, device)
}

/// A small model of each family that lays its matrices out differently.
fn configs() -> Vec<ModelConfig> {
    let llama = json!({"model_type": "llama", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true});
    let mut untied = llama.clone();
    untied["tie_word_embeddings"] = false.into();
    let gpt2 = json!({"model_type": "gpt2", "vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32});
    [llama, untied, gpt2]
        .into_iter()
        .map(|json| ModelConfig::from_json(json).unwrap())
        .collect()
}

/// Puts blocks in the place of all matrices, in different formats.
fn packed(config: &ModelConfig, device: &Device) -> AutoCausalLm {
    let mut model = AutoCausalLm::from_config(config, device).unwrap().no_grad();
    let mut seed = 0;
    model.for_each_part_mut(&mut |_, mut part| {
        seed += 1;
        let format = PackedFormat::ALL[seed as usize % 3];
        let format = [PackedFormat::Q4_0, PackedFormat::Q4_1, PackedFormat::Q8_0]
            .into_iter()
            .find(|one| *one == format)
            .unwrap_or(PackedFormat::Q8_0);
        let shape = match &part {
            PartMut::Linear(linear) => [linear.out_features(), linear.in_features()],
            PartMut::Embedding(table) => table.weight.lazy_shape().dims(),
            _ => return,
        };
        assert!(part.set_packed(&noise(format, shape, seed, device)));
    });
    model
}

fn decoded(model: &AutoCausalLm) -> AutoCausalLm {
    let mut model = model.clone();
    assert!(dequantize(&mut model) > 0);
    model
}

fn ids(device: &Device) -> Tensor<2, Int> {
    let numbers: Vec<i64> = (0..20).map(|i| i * 7 % 96).collect();
    Tensor::from_data(TensorData::new(numbers, [2, 10]), device)
}

#[test]
fn a_packed_model_computes_what_its_decoded_one_does() {
    let device = Device::default();
    for config in configs() {
        let model = packed(&config, &device);
        let dense = decoded(&model);
        let labels: Vec<i64> = (0..20).map(|i| i * 5 % 96).collect();
        let all = |model: &AutoCausalLm| {
            let hidden = model.hidden_states(&TokenBatch::new(ids(&device)), None);
            let rows = hidden.clone().reshape([20, 64]);
            let logps = token_logps(hidden.clone(), model.head(), &labels, 1.0).logps;
            let scores = score_tokens(rows, model.head(), &labels);
            let scores: Vec<f32> = scores.iter().map(|score| score.logp).collect();
            [
                model.head().forward(hidden.clone()).into_data(),
                causal_lm_loss(hidden, model.head(), &labels)
                    .sum
                    .into_data(),
                logps.into_data(),
                TensorData::new(scores, [20]),
            ]
        };
        // Products of blocks may round activations to 8 bits.
        for (found, expected) in all(&model).into_iter().zip(all(&dense)) {
            assert_close(config.model_type(), found, &expected, 0.03);
        }
    }
}

#[test]
fn the_gradient_goes_through_packed_layers() {
    for device in [
        Device::default().autodiff(),
        Device::default().autodiff().gradient_checkpointing(),
    ] {
        for config in configs() {
            let model = packed(&config, &device);
            let gradients = |mut model: AutoCausalLm| {
                // The norms of the first block train: the gradient passes all layers after them.
                let mut norm = None;
                model.for_each_part_mut(&mut |path, part| {
                    let weight = match part {
                        PartMut::RmsNorm(norm) if path.ends_with("0.input_layernorm") => {
                            &mut norm.weight
                        }
                        PartMut::LayerNorm(norm) if path.ends_with("0.ln_1") => &mut norm.weight,
                        _ => return,
                    };
                    *weight = Param::from_tensor(weight.val().detach());
                    norm = Some(weight.clone());
                });
                let hidden = model.hidden_states(&TokenBatch::new(ids(&device)), None);
                let labels: Vec<i64> = (0..20).map(|i| i * 5 % 96).collect();
                let loss = causal_lm_loss(hidden, model.head(), &labels).sum;
                let grads = loss.clone().backward();
                let norm = norm.expect("there is one");
                [
                    loss.inner().into_data(),
                    norm.val().grad(&grads).expect("trains").into_data(),
                ]
            };
            let dense = decoded(&model);
            for (found, expected) in gradients(model).into_iter().zip(gradients(dense)) {
                assert_close(config.model_type(), found, &expected, 1e-4);
            }
        }
    }
}

#[test]
fn nothing_forgets_packed_weights() {
    let device = Device::default();
    for config in configs() {
        let model = packed(&config, &device);
        let dense = decoded(&model);
        let count = packed_weights(&model).len();
        assert!(count > 8);
        assert_eq!(packed_weights(&dense).len(), 0);
        assert_eq!(shapes(&model), shapes(&dense));
        assert_eq!(module_tensors(&model), module_tensors(&dense));
        assert_eq!(model.devices(), dense.devices());
        let moved = [
            model.clone().train(),
            model.clone().train().valid(),
            model.clone().fork(&device),
            // To a device with autodiff and back.
            (model.clone().to_device(&device.clone().autodiff())).to_device(&device),
            model.clone().no_grad(),
            model.clone().materialize(),
        ];
        for model in moved {
            assert_eq!(packed_weights(&model).len(), count);
            assert_eq!(module_tensors(&model), module_tensors(&dense));
        }
    }
}

#[test]
fn packed_models_are_not_saved_or_resized_until_they_are_decoded() {
    let device = Device::default();
    let mut model = packed(&configs()[1], &device);
    let folder = tempfile::tempdir().unwrap();
    let error = model
        .save_pretrained(folder.path(), &SaveOptions::default())
        .expect_err("refused");
    assert!(error.to_string().contains("dequantize"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let error = model.resize_token_embeddings(100).expect_err("refused");
    assert!(error.to_string().contains("dequantize"), "{error}");
    let expected = module_tensors(&model);
    dequantize(&mut model);
    model
        .save_pretrained(folder.path(), &SaveOptions::default())
        .unwrap();
    let again = AutoCausalLm::from_pretrained(folder.path(), &device).unwrap();
    assert_eq!(module_tensors(&again), expected);
    model.resize_token_embeddings(100).unwrap();
}

#[test]
fn a_packed_weight_has_the_shape_of_its_layout() {
    let device = Device::default();
    let blocks = noise(PackedFormat::Q4_1, [96, 64], 3, &device);
    let mut linear = ft_core::Linear::new(64, 96, false, Layout::InOut, 0.02, &device);
    linear.set_packed(&blocks);
    assert_eq!(linear.weight.lazy_shape().dims(), [64, 96]);
    assert_eq!(
        linear.weight.val().into_data(),
        blocks.dequantize().transpose().into_data()
    );
    assert_eq!(linear.matrix().into_data(), blocks.dequantize().into_data());
    assert!(
        matches!(&linear.weight, WeightParam::Packed(packed) if packed.num_bytes() == 96 * 2 * 20)
    );
}
