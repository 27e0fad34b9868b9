//! Loss, log-probabilities and entropies against PyTorch (`golden/head_loss.py`).

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use ft_kernels::{
    LogitOptions, LossOptions, cross_entropy_sum, portable, token_logps, token_logps_and_entropy,
};
use safetensors::{Dtype, SafeTensors};

use crate::{assert_close, device, gradient, weighted_sum};

/// PyTorch computed in `f64`; the largest difference was less than 5e-7 of the largest number.
const TOLERANCE: f32 = 1e-5;

const CASES: [&str; 6] = [
    "plain",
    "smooth",
    "all_smooth",
    "scale",
    "softcap",
    "everything",
];

struct Golden {
    tensors: BTreeMap<String, TensorData>,
    targets: Vec<i64>,
    hidden: Tensor<2>,
    weight: Tensor<2>,
}

impl Golden {
    fn read(device: &Device) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/head_loss.safetensors");
        let bytes = std::fs::read(path).expect("the golden file");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let mut targets = Vec::new();
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let (shape, data) = (view.shape().to_vec(), view.data());
            if view.dtype() == Dtype::I64 {
                let (numbers, _) = data.as_chunks::<8>();
                targets = numbers.iter().map(|b| i64::from_le_bytes(*b)).collect();
            } else {
                let (numbers, _) = data.as_chunks::<4>();
                let numbers: Vec<f32> = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
                tensors.insert(name, TensorData::new(numbers, shape));
            }
        }
        let leaf = |name: &str| Tensor::from_data(tensors[name].clone(), device).require_grad();
        Self {
            targets,
            hidden: leaf("hidden"),
            weight: leaf("weight"),
            tensors,
        }
    }

    fn options(&self, case: &str) -> LossOptions {
        let numbers = self.tensors[&format!("{case}.options")].as_slice::<f32>();
        let [scale, softcap, label_smoothing] = numbers.expect("f32")[..] else {
            panic!("three options")
        };
        // As decimals, which is how PyTorch got them.
        let [scale, softcap, label_smoothing] = [scale, softcap, label_smoothing]
            .map(|x| format!("{x}").parse::<f64>().expect("a number"));
        LossOptions {
            label_smoothing,
            logits: LogitOptions {
                scale,
                softcap: (softcap > 0.0).then_some(softcap),
            },
        }
    }

    fn check(&self, name: &str, found: TensorData) {
        assert_close(name, found, self.tensors[name].clone(), TOLERANCE);
    }

    fn check_gradients(&self, name: &str, scalar: Tensor<1>) {
        let grads = scalar.backward();
        self.check(&format!("{name}_hidden"), gradient(&self.hidden, &grads));
        self.check(&format!("{name}_weight"), gradient(&self.weight, &grads));
    }

    fn upstream(&self, name: &str) -> Tensor<1> {
        Tensor::from_data(self.tensors[name].clone(), &self.hidden.device())
    }
}

#[test]
fn losses_and_gradients_agree_with_pytorch() {
    let golden = Golden::read(&device());
    for case in CASES {
        for f in [cross_entropy_sum, portable::cross_entropy_sum] {
            let (hidden, weight) = (golden.hidden.clone(), golden.weight.clone());
            let loss = f(hidden, weight, &golden.targets, golden.options(case));
            golden.check(&format!("{case}.loss"), loss.to_data());
            golden.check_gradients(&format!("{case}.loss"), loss);
        }
    }
}

#[test]
fn log_probabilities_and_gradients_agree_with_pytorch() {
    let golden = Golden::read(&device());
    for case in CASES {
        for f in [token_logps, portable::token_logps] {
            let (hidden, weight) = (golden.hidden.clone(), golden.weight.clone());
            let logps = f(hidden, weight, &golden.targets, golden.options(case).logits);
            golden.check(&format!("{case}.logps"), logps.to_data());
            let scalar = (logps * golden.upstream("d_logps")).sum();
            golden.check_gradients(&format!("{case}.logps"), scalar);
        }
    }
}

#[test]
fn entropies_and_gradients_agree_with_pytorch() {
    let golden = Golden::read(&device());
    for case in CASES {
        for f in [token_logps_and_entropy, portable::token_logps_and_entropy] {
            let (hidden, weight) = (golden.hidden.clone(), golden.weight.clone());
            let [logps, entropy] = f(hidden, weight, &golden.targets, golden.options(case).logits);
            golden.check(&format!("{case}.logps"), logps.to_data());
            golden.check(&format!("{case}.entropy"), entropy.to_data());
            let scalar = (logps * golden.upstream("d_logps")).sum()
                + (entropy * golden.upstream("d_entropy")).sum();
            golden.check_gradients(&format!("{case}.both"), scalar);
        }
    }
}

/// The portable twin finds its gradient in another way when the weight does not train.
#[test]
fn a_frozen_weight_leaves_the_hidden_states_the_same_gradient() {
    let golden = Golden::read(&device());
    for case in CASES {
        for f in [token_logps_and_entropy, portable::token_logps_and_entropy] {
            let (hidden, weight) = (
                golden.hidden.clone(),
                golden.weight.clone().set_require_grad(false),
            );
            let [logps, entropy] = f(hidden, weight, &golden.targets, golden.options(case).logits);
            golden.check(&format!("{case}.logps"), logps.to_data());
            golden.check(&format!("{case}.entropy"), entropy.to_data());
            let scalar = (logps * golden.upstream("d_logps")).sum()
                + (entropy * golden.upstream("d_entropy")).sum();
            let grads = scalar.backward();
            let found = gradient(&golden.hidden, &grads);
            golden.check(&format!("{case}.both_hidden"), found);
            assert!(golden.weight.grad(&grads).is_none());
        }
    }
}

/// A head that is held in 16 bits, as tied embeddings of a frozen model are.
#[test]
fn a_frozen_head_of_16_bits_gives_what_its_numbers_give() {
    use burn::tensor::DType;
    let hidden = crate::cross_entropy::fixed(5, 33, 1.3).require_grad();
    let targets = [0, 1008, 3, 77, 3];
    let options = LossOptions {
        label_smoothing: 0.1,
        logits: LogitOptions {
            scale: 0.7,
            softcap: Some(3.0),
        },
    };
    for dtype in [DType::BF16, DType::F16] {
        if !crate::has(dtype) {
            continue;
        }
        let narrow = crate::cross_entropy::fixed(1009, 33, 0.754).cast(dtype);
        let wide = narrow.clone().cast(DType::F32);
        let run = |weight: &Tensor<2>| {
            let loss = cross_entropy_sum(hidden.clone(), weight.clone(), &targets, options);
            let logps = token_logps(hidden.clone(), weight.clone(), &targets, options.logits);
            let by_loss = gradient(&hidden, &loss.clone().backward());
            let by_logps = gradient(&hidden, &weighted_sum(logps.clone()).backward());
            [loss.into_data(), by_loss, logps.into_data(), by_logps]
        };
        for (found, expected) in run(&narrow).into_iter().zip(run(&wide)) {
            assert_close("16 bits", found, expected, 1e-6);
        }
    }
}
