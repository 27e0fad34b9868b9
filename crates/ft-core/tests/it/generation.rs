//! Decoding: against transformers, and its laws.

use std::ops::ControlFlow;

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use ft_core::safetensors_folder::read_tensors;
use ft_core::{
    AutoCausalLm, CausalLm, FinishReason, Generated, GenerationConfig, Parts, TokenBatch, generate,
};

use crate::models::golden;

fn run(model: &AutoCausalLm, prompts: &[Vec<u32>], config: &GenerationConfig) -> Vec<Generated> {
    let mut listen = |_: ft_core::Streamed<'_>| ControlFlow::Continue(());
    generate(
        model,
        None,
        prompts,
        config,
        &Device::default(),
        &mut listen,
    )
    .expect("generates")
}

fn load(name: &str) -> AutoCausalLm {
    AutoCausalLm::from_pretrained(&golden(name), &Device::default()).expect("loads")
}

fn greedy(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens,
        ..GenerationConfig::default()
    }
}

/// The next tokens without a cache: the whole sequence is read for every token.
fn greedy_without_cache(model: &AutoCausalLm, prompt: &[u32], count: usize) -> Vec<u32> {
    let device = Device::default();
    let mut ids = prompt.to_vec();
    for _ in 0..count {
        let logits: Tensor<3> = model.logits(&TokenBatch::from_ids(&ids, &device), None);
        let last = logits.narrow(1, ids.len() - 1, 1).into_data();
        ids.push(ft_core::sampling::argmax(
            last.as_slice::<f32>().expect("f32"),
        ));
    }
    ids.split_off(prompt.len())
}

#[test]
fn greedy_tokens_agree_with_transformers_with_and_without_cache() {
    for name in [
        "gemma",
        "gemma2",
        "gemma3",
        "smollm3",
        "smollm3_window",
        "olmo2",
        "granite",
        "llama",
        "llama_untied_bias",
        "llama3_rope",
        "llama_dynamic",
        "llama_longrope",
        "mistral",
        "qwen2",
        "qwen3",
        "gpt2",
        "phi",
        "phi3",
        "phi3_longrope",
        "gpt_neox",
        "falcon_rw",
        "falcon_7b",
        "falcon_40b",
    ] {
        let expected = read_tensors(&golden(name).join("golden.safetensors")).expect("golden");
        let row = expected["input_ids"].as_slice::<i64>().expect("i64");
        let prompt: Vec<u32> = row[..6].iter().map(|&id| id as u32).collect();
        let greedy_ids = expected["greedy"].as_slice::<i64>().expect("i64");
        let greedy_ids: Vec<u32> = greedy_ids.iter().map(|&id| id as u32).collect();
        let model = load(name);
        let with_cache = run(
            &model,
            std::slice::from_ref(&prompt),
            &greedy(greedy_ids.len()),
        );
        assert_eq!(with_cache[0].token_ids, greedy_ids, "{name}");
        // Keys of a cache keep the rotation of their pass, which was shorter.
        if name == "llama_dynamic" {
            continue;
        }
        assert_eq!(
            greedy_without_cache(&model, &prompt, greedy_ids.len()),
            greedy_ids,
            "{name} without cache"
        );
    }
}

#[test]
fn a_left_padded_batch_gives_what_each_row_gives_alone() {
    let prompts = [vec![5, 9, 2, 44, 7], vec![61], vec![3, 8, 90]];
    for name in ["llama", "mistral", "gpt2", "gpt_neox", "falcon_rw"] {
        let model = load(name);
        let together = run(&model, &prompts, &greedy(12));
        for (prompt, row) in prompts.iter().zip(together) {
            let alone = run(&model, std::slice::from_ref(prompt), &greedy(12));
            assert_eq!(row, alone[0], "{name}, prompt {prompt:?}");
        }
    }
}

/// A padding token that was added without a row of the embedding is never looked up.
#[test]
fn padding_may_lie_outside_the_vocabulary() {
    let prompts = [vec![5, 9, 2, 44, 7], vec![61]];
    let model = load("llama");
    let outside = GenerationConfig {
        pad_token_id: model.dims().vocab_size as u32,
        ..greedy(5)
    };
    assert_eq!(
        run(&model, &prompts, &outside),
        run(&model, &prompts, &greedy(5))
    );
}

#[test]
fn weights_that_are_not_numbers_are_an_error() {
    let mut model = load("llama");
    model.for_each_linear_mut(&mut |_, linear| {
        linear.weight = Param::from_tensor(linear.weight.val() * f32::NAN).into();
    });
    let mut silent = |_: ft_core::Streamed<'_>| ControlFlow::Continue(());
    let device = Device::default();
    let result = generate(&model, None, &[vec![5]], &greedy(3), &device, &mut silent);
    let error = result.expect_err("NaN").to_string();
    assert!(error.contains("not numbers"), "{error}");
}

#[test]
fn rows_that_end_early_leave_the_others_alone() {
    let model = load("llama");
    let prompts = [vec![5, 9, 2, 44, 7], vec![61], vec![3, 8, 90]];
    let whole = run(&model, &prompts, &greedy(12));
    // The third token of the first row ends that row (and any other that gives it).
    let eos = whole[0].token_ids[2];
    let config = GenerationConfig {
        eos_token_ids: vec![eos],
        ..greedy(12)
    };
    for (short, long) in run(&model, &prompts, &config).iter().zip(&whole) {
        let end = long.token_ids.iter().position(|id| *id == eos);
        let end = end.map_or(long.token_ids.len(), |at| at + 1);
        assert_eq!(short.token_ids, long.token_ids[..end]);
    }
}

#[test]
fn the_same_seed_gives_the_same_sample_and_another_seed_another() {
    let model = load("llama");
    let sample = |seed| {
        let config = GenerationConfig {
            temperature: 1.0,
            top_k: 40,
            top_p: 0.95,
            seed,
            ..greedy(20)
        };
        run(&model, &[vec![5, 9, 2]], &config).remove(0).token_ids
    };
    assert_eq!(sample(1), sample(1));
    assert_ne!(sample(1), sample(2));
}

#[test]
fn the_listener_can_stop_and_sees_every_token() {
    let model = load("llama");
    let mut seen = Vec::new();
    let mut listen = |token: ft_core::Streamed<'_>| {
        seen.push(token.token_id);
        if seen.len() == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let prompts = [vec![5, 9, 2]];
    let device = Device::default();
    let out = generate(&model, None, &prompts, &greedy(20), &device, &mut listen).expect("runs");
    assert_eq!(out[0].finish_reason, FinishReason::Stopped);
    assert_eq!(out[0].token_ids, seen);
}

#[test]
fn nonsense_is_refused_before_anything_runs() {
    let model = load("llama");
    let device = Device::default();
    let mut listen = |_: ft_core::Streamed<'_>| ControlFlow::Continue(());
    let mut fails = |prompt: Vec<u32>, config: &GenerationConfig, expected: &str| {
        let error = generate(&model, None, &[prompt], config, &device, &mut listen)
            .expect_err("refused")
            .to_string();
        assert!(error.contains(expected), "{error}");
    };
    fails(vec![], &greedy(4), "at least one token");
    fails(vec![97], &greedy(4), "vocabulary of 97");
    fails(vec![1; 100_000], &greedy(4), "max_position_embeddings");
    let config = GenerationConfig {
        temperature: -1.0,
        top_p: 0.0,
        ..greedy(0)
    };
    fails(vec![1], &config, "max_new_tokens");
    fails(vec![1], &config, "top_p");
    let config = GenerationConfig {
        stop_strings: vec!["x".into()],
        ..greedy(4)
    };
    fails(vec![1], &config, "tokenizer");
}

/// Row 1 of one repeat must not be row 0 of the next.
#[test]
fn rows_of_neighbouring_seeds_draw_different_tokens() {
    let model = load("llama");
    let prompts = vec![vec![5, 9, 2]; 3];
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..3 {
        let config = GenerationConfig {
            temperature: 1.0,
            seed,
            ..greedy(20)
        };
        let rows = run(&model, &prompts, &config);
        seen.extend(rows.into_iter().map(|row| row.token_ids));
    }
    assert_eq!(seen.len(), 9);
}

#[test]
fn greedy_takes_the_repetition_penalty_of_the_folder_as_transformers_does() {
    let expected = read_tensors(&golden("generation.safetensors")).expect("golden");
    let ids = |name: &str| -> Vec<u32> {
        let ids = expected[name].as_slice::<i64>().expect("i64");
        ids.iter().map(|&id| id as u32).collect()
    };
    let folder = tempfile::TempDir::new().expect("temporary folder");
    let file = r#"{"repetition_penalty": 1.3, "do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.8,
        "max_new_tokens": 2048, "stop_strings": "END", "eos_token_id": null}"#;
    std::fs::write(folder.path().join("generation_config.json"), file).expect("writes");
    let config = GenerationConfig::from_pretrained(folder.path(), None).expect("reads");
    let taken = GenerationConfig {
        repetition_penalty: 1.3,
        stop_strings: vec!["END".into()],
        ..GenerationConfig::default()
    };
    assert_eq!(config, taken, "nothing else is taken over");

    let config = GenerationConfig {
        max_new_tokens: 16,
        stop_strings: Vec::new(),
        ..config
    };
    let found = run(&load("llama"), &[ids("prompt")], &config);
    assert_eq!(found[0].token_ids, ids("penalty_1.3"));
}

#[test]
fn settings_of_the_folder_that_make_no_sense_are_an_error() {
    for (file, expected) in [
        (r#"{"repetition_penalty": "1.3"}"#, "repetition_penalty"),
        (r#"{"repetition_penalty": 0}"#, "repetition_penalty"),
        (r#"{"stop_strings": [1]}"#, "stop_strings"),
        (r#"{"stop_strings": ["a", ""]}"#, "stop_strings"),
    ] {
        let folder = tempfile::TempDir::new().expect("temporary folder");
        let path = folder.path().join("generation_config.json");
        std::fs::write(&path, file).expect("writes");
        let error = GenerationConfig::from_pretrained(folder.path(), None);
        let error = error.expect_err(file).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("generation_config.json"), "{error}");
    }
}
