//! Outputs and gradients against PyTorch's, from `golden/operations.py`, which says what is in a case.
//!
//! Each tensor is compared as a whole: no number is off by more than 1e-4 of the tensor's largest.

use std::collections::BTreeSet;

use burn::tensor::{Int, Tensor, TensorData};
use ft_kernels::{
    Activation, AttentionMask, LowRank, apply_rotary, attention, gated_mlp, layer_norm, linear,
    rms_norm,
};
use safetensors::{Dtype, SafeTensors};

use crate::operations::{Leaf, run};
use crate::{device, values};

const FILE: &[u8] = include_bytes!("../golden/operations.safetensors");
const TOLERANCE: f32 = 1e-4;

fn file() -> SafeTensors<'static> {
    SafeTensors::deserialize(FILE).expect("a file of safetensors")
}

fn golden(name: &str) -> TensorData {
    let file = file();
    let tensor = file.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
    let shape = tensor.shape().to_vec();
    match tensor.dtype() {
        Dtype::F32 => {
            let (numbers, _) = tensor.data().as_chunks::<4>();
            let numbers: Vec<f32> = numbers.iter().map(|x| f32::from_le_bytes(*x)).collect();
            TensorData::new(numbers, shape)
        }
        Dtype::I64 => {
            let (numbers, _) = tensor.data().as_chunks::<8>();
            let numbers: Vec<i64> = numbers.iter().map(|x| i64::from_le_bytes(*x)).collect();
            TensorData::new(numbers, shape)
        }
        other => panic!("{name} is of {other:?}"),
    }
}

fn constant<const D: usize>(name: &str) -> Tensor<D> {
    Tensor::from_data(golden(name), &device())
}

fn compare(name: &str, found: &TensorData) {
    let expected = golden(name);
    assert_eq!(found.shape(), expected.shape(), "{name}");
    let (found, expected) = (values(found), values(&expected));
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
        assert!(
            (f - e).abs() <= TOLERANCE * largest,
            "{name}: {f} at {i}, PyTorch has {e}"
        );
    }
}

/// Runs a case of the file: its inputs, its gradient from above; compares output and all gradients.
fn check<const D: usize>(case: &str, inputs: &[&str], f: impl Fn(&[Leaf]) -> Tensor<D>) {
    let data: Vec<TensorData> = inputs
        .iter()
        .map(|i| golden(&format!("{case}.{i}")))
        .collect();
    let d_output = golden(&format!("{case}.dy"));
    let tracked = vec![true; inputs.len()];
    let found = run(&device(), &data, &tracked, Some(d_output), f);
    compare(&format!("{case}.y"), &found.output);
    for (input, gradient) in inputs.iter().zip(found.gradients) {
        let name = format!("{case}.d_{input}");
        compare(&name, &gradient.unwrap_or_else(|| panic!("no {name}")));
    }
}

#[test]
fn norms() {
    check("rms_norm", &["x", "weight"], |x| {
        rms_norm(x[0].tensor::<3>(), x[1].tensor(), 1e-5)
    });
    let inputs = ["x", "weight", "bias"];
    check("layer_norm", &inputs, |x| {
        layer_norm(x[0].tensor::<3>(), x[1].tensor(), x[2].tensor(), 1e-12)
    });
    check("layer_norm_far", &inputs, |x| {
        layer_norm(x[0].tensor::<2>(), x[1].tensor(), x[2].tensor(), 1e-5)
    });
}

#[test]
fn rotary_embedding() {
    for case in ["rotary", "rotary_batch"] {
        let angles = ["cos", "sin"].map(|name| constant(&format!("{case}.{name}")));
        check(case, &["x"], |x| {
            apply_rotary(x[0].tensor(), &angles[0], &angles[1])
        });
    }
}

#[test]
fn gated_products() {
    for (case, act) in [
        ("gated_silu", Activation::Silu),
        ("gated_gelu", Activation::Gelu),
        ("gated_gelu_tanh", Activation::GeluTanh),
        ("gated_relu", Activation::Relu),
    ] {
        check(case, &["gate", "up"], |x| {
            gated_mlp(x[0].tensor::<2>(), x[1].tensor(), act)
        });
    }
}

/// `(case, tokens before the first query, window, whether the case has segments)`
const ATTENTION: [(&str, usize, Option<usize>, bool); 8] = [
    ("causal", 0, None, false),
    ("grouped", 0, None, false),
    ("window", 0, Some(3), false),
    ("segments", 0, None, true),
    ("past", 6, None, false),
    ("one_token", 8, None, false),
    ("everything", 6, Some(4), true),
    ("long", 0, Some(270), false),
];

#[test]
fn attention_with_every_mask() {
    let device = device();
    for (case, past, window, documents) in ATTENTION {
        let case = format!("attention_{case}");
        let segments = documents.then(|| {
            let ids = golden(&format!("{case}.segments"));
            Tensor::<2, Int>::from_data(ids, &device)
        });
        check(&case, &["q", "k", "v"], |x| {
            let [q, k, v] = [0, 1, 2].map(|i| x[i].tensor::<4>());
            let mask = AttentionMask::new(q.dims()[2], past, window, segments.as_ref(), &device);
            attention(q, k, v, 0.37, &mask)
        });
    }
}

#[test]
fn linear_with_and_without_adapter() {
    check("linear", &["x", "weight"], |x| {
        linear(x[0].tensor(), x[1].tensor(), None)
    });
    check("linear_lora", &["x", "weight", "a", "b"], |x| {
        let [a, b] = [x[2].tensor(), x[3].tensor()];
        linear(
            x[0].tensor(),
            x[1].tensor(),
            Some(LowRank {
                a,
                b,
                scale: 1.7,
                dropout: None,
            }),
        )
    });
}

/// A case that no test reads would pass whatever it says.
#[test]
fn every_case_of_the_file_is_compared() {
    let file = file();
    let cases: BTreeSet<&str> = (file.names().into_iter())
        .map(|name| name.split_once('.').expect("CASE.NAME").0)
        .collect();
    let attention = ATTENTION.map(|(case, ..)| format!("attention_{case}"));
    let others = "gated_gelu gated_gelu_tanh gated_relu gated_silu layer_norm layer_norm_far \
        linear linear_lora rms_norm rotary rotary_batch";
    let mut read: BTreeSet<&str> = others.split(' ').collect();
    read.extend(attention.iter().map(String::as_str));
    assert_eq!(cases, read);
}
