//! Adapters on an encoder.

use burn::tensor::{Device, Tensor};
use ft_core::{Backbone, Bert, Lora, Parts, Pass, TokenBatch};

use crate::golden::folder;
use crate::laws::drawing;

#[test]
fn adapters_on_an_encoder_drop_out_alike_when_blocks_are_computed_again() {
    let _drawing = drawing();
    let folder = folder("../../../ft-core/tests/golden/bert");
    let device = Device::default().autodiff();
    let run = |device: Device| {
        let mut model = Bert::from_pretrained(&folder, &device).expect("loads");
        model.for_each_linear_mut(&mut |_, linear| {
            let (outputs, inputs) = (linear.out_features(), linear.in_features());
            let a = Tensor::full([2, inputs], 0.1, &device);
            let b = Tensor::full([outputs, 2], 0.1, &device);
            linear.adapters.push(Lora::new("default", a, b, 1.0, 0.5));
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
            let gradient = linear.adapters[0].lora_b.val().grad(&grads);
            found.push(gradient.expect("gradient").into_data());
        });
        found
    };
    assert_eq!(run(device.clone()), run(device.gradient_checkpointing()));
}
