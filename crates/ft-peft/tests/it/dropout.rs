//! Dropout of low-rank adapters in blocks that are computed again.

use burn::tensor::{Device, Int, Tensor};
use ft_core::{AutoCausalLm, Backbone, Bert, Parts, Pass, TokenBatch};
use ft_peft::{LoraConfig, TargetModules, attach};

use crate::adapted_models::{drawing, on, set};
use crate::extras::Golden;
use crate::golden::folder;

/// Dropout in the kernel: another mask in every pass, the same when blocks are computed again, none without training.
#[test]
fn dropout_is_the_same_when_blocks_are_computed_again() {
    let _drawing = drawing();
    let config = LoraConfig {
        r: 2,
        lora_dropout: 0.5,
        common: on(TargetModules::names(["q_proj", "down_proj", "lm_head"])),
        ..LoraConfig::default()
    };
    let run = |device: Device, seed: u64| {
        let model = AutoCausalLm::load("llama", &device);
        let mut model = attach(model, &config, "default", 1).expect("attaches");
        model.for_each_linear_mut(&mut |_, linear| {
            for adapter in linear.adapters.iter_mut() {
                let b = adapter.val2("lora_B.weight").ones_like() * 0.1;
                set(adapter, "lora_B.weight", b);
            }
        });
        device.seed(seed);
        let ids = Tensor::<2, Int>::from_data([[3, 14, 15, 9, 26]], &device);
        let loss = model.loss(ids);
        let grads = loss.backward();
        let mut found = vec![loss.into_data()];
        model.for_each_linear(&mut |_, linear| {
            for adapter in linear.adapters.iter() {
                let gradient = adapter.val2("lora_A.weight").grad(&grads);
                found.push(gradient.expect("gradient").into_data());
            }
        });
        found
    };
    let device = Device::default().autodiff();
    let found = run(device.clone(), 3);
    assert_eq!(found, run(device.clone().gradient_checkpointing(), 3));
    assert_eq!(found, run(device.clone(), 3));
    assert_ne!(found, run(device, 4));
}

#[test]
fn adapters_on_an_encoder_drop_out_alike_when_blocks_are_computed_again() {
    let _drawing = drawing();
    let folder = folder("../../../ft-core/tests/golden/bert");
    let device = Device::default().autodiff();
    let config = LoraConfig {
        r: 2,
        lora_dropout: 0.5,
        ..LoraConfig::default()
    };
    let run = |device: Device| {
        let mut model = Bert::from_pretrained(&folder, &device).expect("loads");
        model = attach(model, &config, "default", 1).expect("attaches");
        model.for_each_linear_mut(&mut |_, linear| {
            let b = Tensor::<2>::full([linear.out_features(), 2], 0.1, &device);
            set(&mut linear.adapters[0], "lora_B.weight", b);
        });
        device.seed(3);
        let ids = TokenBatch::from_ids(&[3, 14, 15, 9, 26], &device).input_ids;
        let loss = model
            .forward(model.embed(ids), Pass::default())
            .square()
            .sum();
        let grads = loss.backward();
        let mut found = vec![loss.into_data()];
        model.for_each_linear(&mut |_, linear| {
            let gradient = linear.adapters[0].val2("lora_B.weight").grad(&grads);
            found.push(gradient.expect("gradient").into_data());
        });
        found
    };
    assert_eq!(run(device.clone()), run(device.gradient_checkpointing()));
}
