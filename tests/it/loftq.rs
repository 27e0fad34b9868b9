//! LoftQ: base and adapter together are nearer to the weights than the base alone.

use std::collections::BTreeMap;

use ft::burn::tensor::{DType, Device, Tensor};
use ft::core::{AutoCausalLm, CausalLm, Parts, TokenBatch};
use ft::kernels::PackedFormat;
use ft::peft::{InitLoraWeights, LoraConfig, load_adapter, save_adapter, unload};
use ft::quant::pack_model;
use ft::{loftq_initialise, peft};

use crate::shipped_model::load;

fn norm(x: Tensor<2>) -> f64 {
    f64::from(x.square().sum().into_scalar::<f32>()).sqrt()
}

/// The weights of linear layers, `[out, in]`, decoded.
fn matrices(model: &AutoCausalLm) -> BTreeMap<String, Tensor<2>> {
    let mut found = BTreeMap::new();
    model.for_each_linear(&mut |path, linear| {
        found.insert(path.to_string(), linear.matrix().detach().cast(DType::F32));
    });
    found
}

/// `s·BA` by layer.
fn changes(model: &AutoCausalLm, config: &LoraConfig) -> BTreeMap<String, Tensor<2>> {
    let mut found = BTreeMap::new();
    model.for_each_linear(&mut |path, linear| {
        for adapter in linear.adapters.iter() {
            let product = adapter
                .val2("lora_B.weight")
                .matmul(adapter.val2("lora_A.weight"));
            found.insert(path.to_string(), product.detach() * config.scaling_of(path));
        }
    });
    found
}

fn logits(model: &AutoCausalLm) -> Tensor<3> {
    let tokens = TokenBatch::from_ids(&[5, 81, 200, 17, 950, 3], &Device::default());
    model.logits(&tokens, None)
}

/// The norm of the error falls in every layer, for each format, scale and number of iterations. That of outputs need not.
#[test]
fn base_and_adapter_together_are_nearer_to_the_weights() {
    let (dense, _) = load(&Device::default());
    let weights = matrices(&dense);
    let config = |use_rslora| LoraConfig {
        r: 8,
        lora_alpha: 32.0,
        use_rslora,
        ..LoraConfig::default()
    };
    for (format, config) in [
        (PackedFormat::NF4, config(false)),
        (PackedFormat::NF4, config(true)),
        (PackedFormat::Q4_K, config(false)),
    ] {
        let mut plain = dense.clone();
        pack_model(&mut plain, format).expect("packs");
        let rounded = matrices(&plain);
        let mut sums = Vec::new();
        for iterations in [1, 4] {
            let made = loftq_initialise(dense.clone(), format, &config, "default", iterations, 1);
            let (made, layers) = made.expect("initialises");
            assert_eq!(layers.len(), 35);
            let (base, changes) = (matrices(&made), changes(&made, &config));
            let mut sum = 0.0;
            for layer in &layers {
                let w = &weights[&layer.path];
                let size = norm(w.clone());
                let alone = norm(w.clone() - rounded[&layer.path].clone()) / size;
                let both = w.clone() - base[&layer.path].clone() - changes[&layer.path].clone();
                let both = norm(both) / size;
                assert!(
                    both < 0.98 * alone,
                    "{format} {}: {both} {alone}",
                    layer.path
                );
                assert!(
                    (both - layer.error).abs() < 1e-3 * both,
                    "{both} {}",
                    layer.error
                );
                assert!((alone - layer.rounding).abs() < 1e-3 * alone);
                sum += both;
            }
            sums.push(sum);
        }
        assert!(sums[1] <= sums[0], "{sums:?}");
    }
}

/// The file is that of plain LoRA, for the base that was rounded.
#[test]
fn the_adapter_loads_on_the_rounded_base() {
    let (dense, _) = load(&Device::default());
    let config = LoraConfig {
        init_lora_weights: InitLoraWeights::Loftq,
        ..LoraConfig::default()
    };
    let made = loftq_initialise(dense, PackedFormat::NF4, &config, "default", 2, 1);
    let (made, _) = made.expect("initialises");
    let folder = tempfile::tempdir().expect("folder");
    save_adapter(&made, "default", folder.path()).expect("saves");
    let saved = LoraConfig::from_pretrained(folder.path()).expect("reads");
    assert_eq!(saved.init_lora_weights, InitLoraWeights::Kaiming);
    let again = load_adapter(unload(made.clone()), folder.path(), "default", false).expect("loads");
    assert_eq!(logits(&again).into_data(), logits(&made).into_data());
    let (trains, _) = peft::trainable_parameters(&made);
    assert_eq!(trains, 0, "nothing trains without autodiff");
}

#[test]
fn settings_that_loftq_cannot_use_are_refused() {
    let (dense, _) = load(&Device::default());
    let refused = |config: LoraConfig, iterations, part: &str| {
        let made = loftq_initialise(
            dense.clone(),
            PackedFormat::NF4,
            &config,
            "default",
            iterations,
            1,
        );
        let error = made.map(|_| ()).expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(LoraConfig::default(), 0, "at least 1 iteration");
    let dora = LoraConfig {
        use_dora: true,
        ..LoraConfig::default()
    };
    refused(dora, 1, "exclude each other");
    let pissa = LoraConfig {
        init_lora_weights: InitLoraWeights::Pissa,
        ..LoraConfig::default()
    };
    refused(pissa, 1, "leave init_lora_weights out");
    let large = LoraConfig {
        r: 4000,
        ..LoraConfig::default()
    };
    refused(large, 1, "has ranks from 1 to");
}
