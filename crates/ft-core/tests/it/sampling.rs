//! Logits processors against transformers (`golden/sampling.py`).

use ft_core::safetensors_folder::read_tensors;
use ft_core::sampling::{min_p, repetition_penalty, top_k, top_p};

use crate::models::golden;

#[test]
fn every_processor_agrees_with_transformers_and_so_does_the_chain() {
    let expected = read_tensors(&golden("sampling.safetensors")).expect("golden");
    let numbers = |name: &str| expected[name].as_slice::<f32>().expect("f32").to_vec();
    let previous = expected["previous"].as_slice::<i64>().expect("i64");
    let previous: Vec<u32> = previous.iter().map(|&id| id as u32).collect();
    let check = |input: &str, output: &str, process: &dyn Fn(&mut [f32])| {
        let mut logits = numbers(input);
        process(&mut logits);
        for (i, (found, expected)) in logits.iter().zip(numbers(output)).enumerate() {
            let same = *found == expected || (found - expected).abs() < 1e-5;
            assert!(same, "{output}, token {i}: {found}, expected {expected}");
        }
    };
    check("logits", "top_k_5", &|l| top_k(l, 5));
    check("logits_ties", "top_k_5_ties", &|l| top_k(l, 5));
    check("logits", "top_p_0.8", &|l| top_p(l, 0.8));
    check("logits", "top_p_0.05", &|l| top_p(l, 0.05));
    check("logits", "min_p_0.1", &|l| min_p(l, 0.1));
    check("logits", "repetition_penalty_1.3", &|l| {
        repetition_penalty(l, &previous, 1.3);
    });
    check("logits", "chain", &|l| {
        repetition_penalty(l, &previous, 1.3);
        l.iter_mut().for_each(|logit| *logit /= 0.7);
        top_k(l, 20);
        top_p(l, 0.9);
        min_p(l, 0.05);
    });
}
