//! The loss through heads is that of TRL's GKDTrainer (`golden/gkd.py`).

use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_distill::Divergence;
use ft_kernels::{DistillationOptions, LogitOptions, Teacher, distillation_sum};
use serde_json::Value;

const SEQ: usize = 5;
const VOCAB: usize = 5003;
/// Widths of student and teacher.
const OWN: usize = 6;
const OTHER: usize = 4;

/// The numbers that both sides make.
fn waves<const D: usize>(step: f64, scale: f64, shape: [usize; D], device: &Device) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let numbers = (1..=count).map(|i| (scale * (step * i as f64).sin()) as f32);
    Tensor::from_data(
        TensorData::new(numbers.collect::<Vec<f32>>(), shape),
        device,
    )
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap();
    values.iter().map(|x| x.as_f64().unwrap()).collect()
}

/// Gradients are differences of terms as large as `terms`, which are rounded to 24 bits.
fn close(found: &[f64], expected: &[f64], terms: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-6f64, |most, x| most.max(x.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= 2e-5 * scale + 1e-7 * terms,
            "{what}: {found}, expected {expected}"
        );
    }
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

#[test]
fn divergences_through_heads_are_those_of_trl() {
    let golden: Value = serde_json::from_str(include_str!("../golden/gkd.json")).unwrap();
    let labels: Vec<i64> = numbers(&golden["labels"])
        .iter()
        .map(|&x| x as i64)
        .collect();
    // The positions whose next token has a label.
    let counted = (0..labels.len()).filter(|i| i % SEQ + 1 < SEQ && labels[i + 1] >= 0);
    let counted: Vec<usize> = counted.collect();
    let targets: Vec<i64> = counted.iter().map(|i| labels[i + 1]).collect();
    let device = Device::default().autodiff();
    let index: Vec<i64> = counted.iter().map(|&i| i as i64).collect();
    let index = Tensor::<1, Int>::from_data(index.as_slice(), &device);
    let teacher = Teacher::Head {
        hidden: waves(0.71, 2.0, [labels.len(), OTHER], &device).select(0, index.clone()),
        weight: waves(0.37, 1.5, [VOCAB, OTHER], &device).into(),
        logits: LogitOptions::default(),
    };
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 20);
    for case in cases {
        let (beta, temperature) = (
            case["beta"].as_f64().unwrap(),
            case["temperature"].as_f64().unwrap(),
        );
        let what = format!("beta {beta}, temperature {temperature}");
        let hidden = waves(0.53, 1.0, [labels.len(), OWN], &device).require_grad();
        let head = waves(0.29, 1.2, [VOCAB, OWN], &device).require_grad();
        let options = DistillationOptions {
            divergence: match beta {
                0.0 => Divergence::Forward,
                1.0 => Divergence::Reverse,
                beta => Divergence::JensenShannon(beta),
            },
            temperature,
            ..DistillationOptions::default()
        };
        let states = hidden.clone().select(0, index.clone());
        let found = distillation_sum(states, head.clone(), &teacher, &targets, options);
        let expected = case["divergence"].as_f64().unwrap();
        let terms = expected.max(1.0);
        close(&flat(found.divergence), &[expected], 0.0, &what);
        // The loss has T², TRL's has not.
        let square = temperature * temperature;
        let scaled = |value: &Value| -> Vec<f64> {
            numbers(value).into_iter().map(|x| x * square).collect()
        };
        let gradients = found.loss.backward();
        let of_hidden = hidden.grad(&gradients).unwrap();
        close(&flat(of_hidden), &scaled(&case["gradient"]), terms, &what);
        let of_head = head.grad(&gradients).unwrap();
        let device = of_head.device();
        let some = Tensor::<1, Int>::from_data([0, 7, 4095, 4096, 5002], &device);
        let found = flat(of_head.clone().select(0, some));
        close(&found, &scaled(&case["gradient_of_head"]), terms, &what);
        let weighted = of_head * waves(0.83, 1.0, [VOCAB, OWN], &device);
        let expected = case["sum_of_head"].as_f64().unwrap() * square;
        let largest = scaled(&case["gradient_of_head"])
            .iter()
            .fold(expected.abs(), |most, x| most.max(x.abs()));
        let found = flat(weighted.sum())[0];
        assert!(
            (found - expected).abs() <= 1e-4 * largest + 1e-6 * terms,
            "{what}: {found}, expected {expected}"
        );
    }
}
