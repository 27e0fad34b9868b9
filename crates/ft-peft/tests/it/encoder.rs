//! Adapters on an encoder.

use burn::tensor::{Device, Tensor};
use ft_core::{Backbone, Bert, Parts, Pass, TokenBatch};
use ft_peft::{LoraConfig, attach};

use crate::golden::folder;
use crate::laws::{drawing, set};

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
