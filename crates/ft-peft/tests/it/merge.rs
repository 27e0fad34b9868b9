//! Weights that adapters are merged into and taken out of again, and how they are rounded.

use std::collections::BTreeMap;

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use ft_core::{AutoCausalLm, Parts};
use ft_peft::{
    LnTuningConfig, Method, active_adapters, adapter_names, delete, merge_adapters,
    merge_and_unload, merge_report, read_settings, set_active, unload, unmerge_adapters,
};
use serde_json::json;

use crate::adapted_models::{bits, distance, logits, lora, methods, model, with_adapter};

#[test]
fn unmerged_is_as_before_to_the_bit() {
    let device = Device::default();
    for method in methods() {
        for kind in ["llama", "gpt2"] {
            let made = with_adapter(model(kind, &device), &*method, "one");
            let mut made = with_adapter(made, &lora(3), "two");
            set_active(&mut made, &["one", "two"]).expect("known");
            let (before, expected) = (bits(&made), logits(&made, &device));
            let mut merged = made.clone();
            merge_adapters(&mut merged).expect("merges");
            assert!(distance(&logits(&merged, &device), &expected) < 2e-4);
            assert_eq!(active_adapters(&merged), ["merged"]);
            assert!(merge_adapters(&mut merged).is_err());
            // Another adapter in the place of the merged weights acts on the base.
            let mut other = merged.clone();
            set_active(&mut other, &["two"]).expect("known");
            let mut two = made.clone();
            set_active(&mut two, &["two"]).expect("known");
            assert_eq!(logits(&other, &device), logits(&two, &device));
            unmerge_adapters(&mut merged).expect("merged");
            assert_eq!(bits(&merged), before);
            assert_eq!(logits(&merged, &device), expected);
            assert_eq!(adapter_names(&merged), adapter_names(&made));
            assert!(unmerge_adapters(&mut merged).is_err());
        }
    }
}

#[test]
fn numbers_that_are_not_finite_are_not_merged_and_the_model_stays() {
    let device = Device::default();
    for (method, tensor) in [
        (Box::new(lora(4)) as Box<dyn Method>, "lora_B.weight"),
        (
            Box::new(LnTuningConfig::default()),
            "ln_tuning_layers.weight",
        ),
    ] {
        let mut made = with_adapter(model("llama", &device), &*method, "default");
        let mut done = false;
        made.for_each_part_mut(&mut |_, mut part| {
            for adapter in part.adapters().iter_mut() {
                let mut tensors = adapter.tensors.iter_mut();
                let found = tensors.find(|found| found.name() == tensor && !done);
                if let Some(found) = found {
                    let shape = found.shape().to_vec();
                    let count = shape.iter().product();
                    found.set(TensorData::new(vec![f32::NAN; count], shape));
                    done = true;
                }
            }
        });
        let before = bits(&made);
        let error = merge_adapters(&mut made)
            .expect_err("not finite")
            .to_string();
        assert!(error.contains("adapter \"default\""), "{error}");
        assert_eq!(active_adapters(&made), ["default"]);
        // NaN is not equal to itself: compare the texts.
        assert_eq!(format!("{before:?}"), format!("{:?}", bits(&made)));
        assert!(merge_and_unload(made).is_err());
    }
}

fn weights(model: &AutoCausalLm) -> BTreeMap<String, Tensor<2>> {
    let mut found = BTreeMap::new();
    model.for_each_linear(&mut |path, linear| {
        found.insert(path.to_string(), linear.weight.val());
    });
    found
}

#[test]
fn a_report_gives_the_rounding_of_merged_weights() {
    let device = Device::default();
    for kind in ["llama", "gpt2"] {
        let made = with_adapter(model(kind, &device), &lora(4), "default");
        let exact = merge_report(&made, FloatDType::F32).expect("merges");
        assert_eq!(exact.error, 0.0);
        let report = merge_report(&made, FloatDType::BF16).expect("merges");
        let base = weights(&unload(made.clone()));
        let merged = weights(&merge_and_unload(made).expect("merges"));
        assert_eq!(report.layers.len(), exact.layers.len());
        for layer in &report.layers {
            let (base, merged) = (&base[&layer.layer], &merged[&layer.layer]);
            let rounded = merged.clone().cast(FloatDType::BF16).cast(FloatDType::F32);
            let norm = |x: Tensor<2>| f64::from(x.square().sum().sqrt().into_scalar::<f32>());
            let rounding = norm(rounded - merged.clone());
            let change = norm(merged.clone() - base.clone());
            assert!((layer.rounding - rounding).abs() < 1e-5 * rounding);
            assert!((layer.error - rounding / change).abs() < 1e-4 * layer.error);
            // 8 bits of mantissa: at most 2⁻⁹ of each number.
            assert!(layer.rounding > 0.0 && layer.rounding < norm(merged.clone()) / 512.0);
        }
        assert!(report.error > 0.0 && report.error < 0.1, "{}", report.error);
    }
}

/// What is no matrix is rounded too, and what an adapter does not change is not counted.
#[test]
fn a_report_counts_norms_and_biases() {
    let device = Device::default();
    for (method, kind, layers) in [
        (json!({"peft_type": "LN_TUNING"}), "llama", 5),
        (json!({"peft_type": "LN_TUNING"}), "gpt2", 5),
        (json!({"peft_type": "BITFIT"}), "gpt2", 13),
        (
            json!({"peft_type": "BITFIT", "add_missing": true}),
            "llama",
            14,
        ),
    ] {
        let method = read_settings(&method).expect("settings");
        let made = with_adapter(model(kind, &device), &*method, "default");
        let report = merge_report(&made, FloatDType::BF16).expect("merges");
        assert_eq!(report.layers.len(), layers, "{method:?} on {kind}");
        assert!(
            report.error > 0.0 && report.error < 0.2,
            "{method:?} on {kind}: {}",
            report.error
        );
        let all = |of: fn(&ft_peft::LayerRounding) -> f64| {
            report
                .layers
                .iter()
                .map(|layer| of(layer).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let expected = all(|layer| layer.rounding) / all(|layer| layer.change);
        assert!((report.error - expected).abs() < 1e-9);
        // The matrices have other numbers than those of 16 bits, and none of that is the adapter's.
        let exact = merge_report(&made, FloatDType::F32).expect("merges");
        assert_eq!((exact.error, exact.layers.len()), (0.0, layers));
    }
}

/// Adapters of several kinds on the same layers, in both orders of attachment.
#[test]
fn stacks_of_different_kinds_merge_as_they_act() {
    let device = Device::default();
    let all = "all-linear";
    let methods = [
        json!({"peft_type": "LORA", "r": 3, "target_modules": all}),
        json!({"peft_type": "LORA", "r": 3, "lora_bias": true, "target_modules": all}),
        json!({"peft_type": "LORA", "r": 3, "use_dora": true, "target_modules": all}),
        json!({"peft_type": "LOKR", "r": 2, "target_modules": all}),
        json!({"peft_type": "BOFT", "target_modules": all}),
        json!({"peft_type": "OFT", "oft_block_size": 4, "target_modules": all}),
        json!({"peft_type": "IA3", "target_modules": all}),
        json!({"peft_type": "LORA", "r": 3, "target_modules": ["lm_head"]}),
        json!({"peft_type": "LORA", "r": 3, "target_modules": ["q_proj"],
            "trainable_token_indices": {"lm_head": [3, 9, 14]}}),
    ];
    let methods = methods.map(|json| read_settings(&json).expect("settings"));
    for (i, first) in methods.iter().enumerate() {
        for (j, second) in methods.iter().enumerate().filter(|(j, _)| *j != i) {
            let made = with_adapter(model("llama", &device), &**first, "one");
            let mut made = with_adapter(made, &**second, "two");
            set_active(&mut made, &["one", "two"]).expect("known");
            let expected = logits(&made, &device);
            let merged = logits(&merge_and_unload(made).expect("merges"), &device);
            let off = distance(&merged, &expected);
            assert!(
                off < 5e-4,
                "{i} {}, then {j} {}: {off}",
                first.peft_type(),
                second.peft_type()
            );
        }
    }
}

#[test]
fn what_cannot_be_unmerged_stays_merged() {
    let device = Device::default();
    let mut made = with_adapter(model("llama", &device), &lora(4), "one");
    merge_adapters(&mut made).expect("merges");
    delete(&mut made, "one").expect("known");
    let before = logits(&made, &device);
    let error = unmerge_adapters(&mut made)
        .expect_err("deleted")
        .to_string();
    assert!(error.contains("\"one\""), "{error}");
    assert_eq!(active_adapters(&made), ["merged"]);
    assert_eq!(logits(&made, &device), before);
}
