//! LoRA+: `B` learns faster than `A`.

use std::sync::Arc;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use ft_core::Parts;
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor, At, Layout, Linear};
use ft_train::{AdamW, OptimizerStates, TrainConfig, lora_plus};

use crate::model::{alone, device, parameters};

#[derive(Module, Parts, Debug)]
struct One {
    layer: Linear,
}

#[derive(Debug)]
struct LowRank;

impl AdapterKind for LowRank {
    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        let factor = |name| at.adapter.val2(name).transpose();
        let low = x
            .clone()
            .matmul(factor("lora_A.weight"))
            .matmul(factor("lora_B.weight"));
        (y + low) * at.adapter.val1("lora_magnitude_vector").unsqueeze()
    }
}

/// With AdamW the first step of each number is the learning rate of its group.
#[test]
fn b_and_magnitudes_learn_faster_by_the_ratio() {
    let _turn = alone();
    let tensors = vec![
        AdapterTensor::new("lora_A.weight", Tensor::<2>::ones([2, 4], &device())),
        AdapterTensor::new("lora_B.weight", Tensor::<2>::ones([3, 2], &device())),
        AdapterTensor::new("lora_magnitude_vector", Tensor::<1>::ones([3], &device())),
    ];
    let mut model = One {
        layer: Linear::new(4, 3, false, Layout::OutIn, 0.1, &device()),
    }
    .no_grad();
    let mut adapter = Adapter::new("default", Arc::new(LowRank), tensors, 0.0, Arc::new(()));
    adapter.set_trainable(true);
    model.layer.adapters.push(adapter);

    let rate = 1e-3;
    let config = TrainConfig {
        learning_rate: rate,
        weight_decay: 0.0,
        ..TrainConfig::default()
    };
    let optimizer = OptimizerStates::<AdamW>::adamw(&config);
    let groups = [lora_plus(rate, 16.0)];
    let mut optimizer = optimizer
        .with_groups(&model, &groups, &config)
        .expect("there are factors");
    let before = parameters(&model);
    let x = Tensor::<3>::ones([1, 2, 4], &device());
    let gradients = model.layer.forward(x).sum().backward();
    let gradients = GradientsParams::from_grads(gradients, &model);
    let after = parameters(&optimizer.step(model, gradients, rate, 1.0));

    let expected = [
        ("layer.weight", 0.0),
        ("layer.adapters.default.lora_A.weight", rate),
        ("layer.adapters.default.lora_B.weight", 16.0 * rate),
        ("layer.adapters.default.lora_magnitude_vector", 16.0 * rate),
    ];
    assert_eq!(before.len(), expected.len());
    for (path, expected) in expected {
        let pairs = before[path].iter().zip(&after[path]);
        let step = pairs
            .map(|(a, b)| f64::from((a - b).abs()))
            .fold(0.0, f64::max);
        assert!(
            (step - expected).abs() < 1e-3 * rate,
            "{path}: {step}, not {expected}"
        );
    }
}
