//! A trajectory of PyTorch's AdamW, with transformers' schedule and clipping: `golden/adamw_trajectory.py`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Tensor, TensorData};
use ft_core::LossSum;
use ft_core::safetensors_folder::read_tensors;
use ft_data::Batches;
use ft_train::{
    Callback, ModelView, Schedule, StepContext, StepRecord, TrainConfig, Trainer, Verdict,
};

use crate::model::{alone, device};

struct Golden(BTreeMap<String, TensorData>);

impl Golden {
    fn read() -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/adamw_trajectory.safetensors");
        Self(read_tensors(&path).expect("the golden file is there"))
    }

    fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        Tensor::from_data(self.0[name].clone(), &device())
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        self.0[name].iter::<f32>().collect()
    }

    /// Burn's linear layer has its weight transposed.
    fn layer(&self, step: usize) -> Linear {
        let weight = self.tensor::<2>(&format!("weight.{step}")).transpose();
        let mut layer = LinearConfig::new(5, 4).init(&device());
        layer.weight = Param::from_tensor(weight.detach());
        layer.bias = Some(Param::from_tensor(self.tensor(&format!("bias.{step}"))));
        layer
    }
}

impl Batches for Golden {
    type Batch = usize;
    fn len(&self, _: usize) -> usize {
        6
    }
    fn batch(&self, _: usize, index: usize) -> usize {
        index
    }
}

/// Compares every step's record and parameters.
struct Compare(Golden);

impl Callback<Linear> for Compare {
    fn on_step(&mut self, model: &ModelView<'_, Linear>, record: &StepRecord) -> Verdict {
        let place = record.step - 1;
        for (name, value, tolerance) in [
            ("losses", record.loss, 1e-5),
            ("norms", record.grad_norm, 1e-5),
            ("rates", record.learning_rate, 1e-8),
        ] {
            let expected = f64::from(self.0.numbers(name)[place]);
            assert!(
                (value - expected).abs() <= tolerance * expected.abs().max(1.0),
                "step {}: {name} {value}, expected {expected}",
                record.step
            );
        }
        let expected = crate::model::parameters(&self.0.layer(record.step));
        for (name, values) in crate::model::parameters(&**model) {
            for (a, b) in values.iter().zip(&expected[&name]) {
                assert!((a - b).abs() < 2e-6, "step {}: {name} {a} {b}", record.step);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

#[test]
fn six_steps_of_adamw_are_those_of_pytorch() {
    let _turn = alone();
    let golden = Golden::read();
    let (x, y) = (golden.tensor::<3>("x"), golden.tensor::<3>("y"));
    let config = TrainConfig {
        learning_rate: 0.05,
        schedule: Schedule::Linear,
        warmup_steps: 2,
        max_grad_norm: Some(1.5),
        weight_decay: 0.1,
        betas: (0.9, 0.99),
        progress: false,
        ..TrainConfig::default()
    };
    let step = move |model: &Linear, index: &usize, _: &StepContext| {
        let x = x.clone().narrow(0, *index, 1).reshape([3, 5]);
        let y = y.clone().narrow(0, *index, 1).reshape([3, 4]);
        let sum = (model.forward(x) - y).square().sum();
        Ok(LossSum { sum, count: 3 }.into())
    };
    let layer = golden.layer(0);
    let (_, report) = Trainer::new(config, golden, step)
        .with_callback(Compare(Golden::read()))
        .fit(layer)
        .expect("trains");
    assert_eq!(report.steps, 6);
}
