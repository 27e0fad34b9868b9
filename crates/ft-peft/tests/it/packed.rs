//! Adapters on weights in blocks of few bits: QLoRA. They compute and train as on the decoded weights.

use burn::tensor::{Bytes, Device, f16};
use ft_core::module_path::packed_weights;
use ft_core::{
    AutoCausalLm, CausalLm, ModelConfig, PartMut, Parts, SaveOptions, TokenBatch, causal_lm_loss,
    dequantize,
};
use ft_kernels::{Packed, PackedFormat};
use ft_peft::{merge_adapters, merge_and_unload, trainable_parameters, unmerge_adapters};
use serde_json::json;

use crate::adapted_models::{distance, drawing, logits, methods, with_adapter};
use crate::methods::adapter_gradients;

/// A small model of either layout with all matrices in Q8_0.
fn in_blocks(kind: &str, device: &Device) -> AutoCausalLm {
    let format = PackedFormat::Q8_0;
    let json = match kind {
        "llama" => {
            json!({"model_type": "llama", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2})
        }
        _ => {
            json!({"model_type": "gpt2", "vocab_size": 50, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4})
        }
    };
    let config = ModelConfig::from_json(json).expect("valid");
    let mut model = {
        let _drawing = drawing();
        device.seed(7);
        let model = AutoCausalLm::from_config(&config, device).expect("valid");
        let _ = logits(&model, device);
        model
    };
    let mut seed = 0u32;
    model.for_each_part_mut(&mut |_, mut part| {
        let shape = match &part {
            PartMut::Linear(linear) => [linear.out_features(), linear.in_features()],
            PartMut::Embedding(table) => table.weight.lazy_shape().dims(),
            _ => return,
        };
        let bytes = (0..format.bytes_of(shape[1]) * shape[0]).map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        });
        let mut bytes: Vec<u8> = bytes.collect();
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            block[..2].copy_from_slice(&f16::from_f32(0.002).to_le_bytes());
        }
        let bytes = Bytes::from_bytes_vec(bytes);
        part.set_packed(&Packed::from_bytes(format, bytes, shape, device));
    });
    assert!(packed_weights(&model).len() > 4);
    model
}

fn decoded(model: &AutoCausalLm) -> AutoCausalLm {
    let mut model = model.clone();
    dequantize(&mut model);
    model
}

#[test]
fn adapters_train_as_on_the_decoded_weights() {
    for device in [
        Device::default().autodiff(),
        Device::default().autodiff().gradient_checkpointing(),
    ] {
        for method in methods() {
            for kind in ["llama", "gpt2"] {
                let base = in_blocks(kind, &device);
                let adapted = |base| with_adapter(base, &*method, "default");
                let (packed, dense) = (adapted(base.clone()), adapted(decoded(&base)));
                assert_eq!(trainable_parameters(&packed), trainable_parameters(&dense));
                let gradients = |model: &AutoCausalLm| {
                    let ids = [3, 14, 15, 9, 26];
                    let hidden = model.hidden_states(&TokenBatch::from_ids(&ids, &device), None);
                    let labels = ids.map(i64::from);
                    let loss = causal_lm_loss(hidden, model.head(), &labels);
                    adapter_gradients(model, &loss.sum.backward())
                };
                let (found, expected) = (gradients(&packed), gradients(&dense));
                assert!(!found.is_empty() && found.len() == expected.len());
                for (name, expected) in &expected {
                    let size = expected
                        .iter::<f32>()
                        .fold(1e-3, |most: f32, x| most.max(x.abs()));
                    let worst = distance(&found[name], expected);
                    assert!(
                        worst < 1e-4 * size,
                        "{kind} {name}: {worst} of {size}, {method:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn merging_decodes_the_layers_that_have_adapters() {
    // Where there is autodiff, the exact numbers of blocks are multiplied.
    let device = Device::default().autodiff();
    for method in methods() {
        for kind in ["llama", "gpt2"] {
            let base = in_blocks(kind, &device);
            let count = packed_weights(&base).len();
            let made = with_adapter(base, &*method, "default");
            let expected = logits(&decoded(&made), &device);
            let mut kept = made.clone();
            merge_adapters(&mut kept).expect("merges");
            assert!(distance(&logits(&kept, &device), &expected) < 2e-4);
            unmerge_adapters(&mut kept).expect("merged");
            assert_eq!(packed_weights(&kept).len(), count);
            let merged = merge_and_unload(made).expect("merges");
            // Methods that change norms or biases leave the blocks as they are.
            let name = format!("{method:?}");
            let stays = name.contains("Tuning") || name.contains("BitFit");
            assert_eq!(packed_weights(&merged).len() == count, stays, "{name}");
            assert!(distance(&logits(&merged, &device), &expected) < 2e-4);
            let mut whole = merged;
            dequantize(&mut whole);
            assert!(distance(&logits(&whole, &device), &expected) < 2e-4);
            let folder = tempfile::tempdir().expect("a folder");
            let saved = whole.save_pretrained(folder.path(), &SaveOptions::default());
            assert!(saved.is_ok(), "{saved:?}");
        }
    }
}
