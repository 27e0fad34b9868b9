//! Losses and gradients are those of PyTorch (`golden/losses.py`).

use burn::tensor::{Device, Tensor, TensorData};
use ft_distill::Divergence;
use ft_distill::loss::{
    attention_kl, attention_mse, cosine, divergence, hidden_mse, relation_kl, soft_targets,
    split_heads, standardized, universal,
};
use serde_json::Value;

fn flat(value: &Value, into: &mut Vec<f32>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flat(value, into)),
        number => into.push(number.as_f64().unwrap() as f32),
    }
}

fn shape(value: &Value) -> Vec<usize> {
    match value.as_array() {
        Some(values) => [vec![values.len()], shape(&values[0])].concat(),
        None => Vec::new(),
    }
}

fn tensor<const D: usize>(value: &Value, device: &Device) -> Tensor<D> {
    let mut numbers = Vec::new();
    flat(value, &mut numbers);
    Tensor::from_data(TensorData::new(numbers, shape(value)), device)
}

fn close(found: &TensorData, expected: &Value, what: &str) {
    let mut numbers = Vec::new();
    flat(expected, &mut numbers);
    let found: Vec<f32> = found.iter::<f32>().collect();
    assert_eq!(found.len(), numbers.len(), "{what}");
    let scale = numbers.iter().fold(1e-6f32, |most, x| most.max(x.abs()));
    for (found, expected) in found.iter().zip(&numbers) {
        assert!(
            (found - expected).abs() <= 1e-5 * scale,
            "{what}: {found}, expected {expected}"
        );
    }
}

#[test]
fn every_loss_and_gradient_is_that_of_pytorch() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../golden/losses.json")).unwrap();
    let device = Device::default().autodiff();
    let mut names = std::collections::BTreeSet::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        names.insert(name);
        let number = |key: &str| case[key].as_f64().unwrap();
        if name == "relation_kl" {
            let student = tensor::<3>(&case["student"], &device).require_grad();
            let mask = tensor(&case["mask"], &device);
            let loss = relation_kl(student.clone(), tensor(&case["teacher"], &device), &mask);
            check(case, loss, |grads| student.grad(grads).unwrap().into_data());
            continue;
        }
        let student = tensor::<2>(&case["student"], &device).require_grad();
        let teacher = tensor::<2>(&case["teacher"], &device);
        let projection = case
            .get("projection")
            .map(|value| tensor::<2>(value, &device).require_grad());
        let s = student.clone();
        let loss = match name {
            "soft_targets" => soft_targets(s, teacher, number("temperature")),
            "standardized" => standardized(s, teacher, number("temperature")),
            "divergence" => {
                let kind = match number("beta") {
                    0.0 => Divergence::Forward,
                    1.0 => Divergence::Reverse,
                    beta => Divergence::JensenShannon(beta),
                };
                divergence(s, teacher, kind)
            }
            "universal" => universal(s, teacher),
            "cosine" => cosine(s, teacher),
            "hidden_mse" => hidden_mse(s, teacher, projection.clone()),
            "attention_mse" => attention_mse(s, teacher),
            "attention_kl" => attention_kl(s, teacher),
            other => panic!("{other}"),
        };
        check(case, loss, |grads| {
            if let Some(projection) = &projection {
                let found = projection.grad(grads).unwrap().into_data();
                close(&found, &case["gradient_of_projection"], "projection");
            }
            student.grad(grads).unwrap().into_data()
        });
    }
    assert_eq!(names.len(), 9);
}

fn check(
    case: &Value,
    loss: Tensor<1>,
    gradient: impl FnOnce(&burn::tensor::Gradients) -> TensorData,
) {
    let name = case["name"].as_str().unwrap();
    let count = loss.dims()[0];
    close(&loss.to_data(), &case["loss"], name);
    let weights: Vec<f32> = (1..=count).map(|i| i as f32 / count as f32).collect();
    let weights = Tensor::<1>::from_data(TensorData::new(weights, [count]), &loss.device());
    let grads = (loss * weights).sum().backward();
    close(&gradient(&grads), &case["gradient"], name);
}

#[test]
fn heads_are_cut_anew() {
    let device = Device::default();
    let vectors = Tensor::<2>::from_data([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], &device);
    let expected = TensorData::from([[[1.0f32, 2.0], [5.0, 6.0]], [[3.0, 4.0], [7.0, 8.0]]]);
    assert_eq!(split_heads(vectors, 2).into_data(), expected);
}
