//! Generation in steps: whatever rows join and leave, each gets what it gets alone.

use std::collections::BTreeMap;

use burn::tensor::{Device, activation};
use ft_core::{
    AutoCausalLm, CausalLm, Decoder, FinishReason, GenerationConfig, NextToken, RowId, TokenBatch,
    mix_seed,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::models::golden;

fn load(name: &str) -> AutoCausalLm {
    AutoCausalLm::from_pretrained(&golden(name), &Device::default()).expect("loads")
}

fn decoder(model: &AutoCausalLm) -> Decoder<'_, AutoCausalLm> {
    Decoder::new(model, None, &Device::default()).with_logps()
}

fn random_prompt(rng: &mut StdRng) -> Vec<u32> {
    let len = rng.random_range(1..12);
    (0..len).map(|_| rng.random_range(0..97)).collect()
}

fn random_settings(rng: &mut StdRng) -> GenerationConfig {
    let sampled = rng.random_range(0..2) == 0;
    GenerationConfig {
        max_new_tokens: rng.random_range(1..20),
        temperature: if sampled { 0.8 } else { 0.0 },
        top_k: if sampled { 20 } else { 0 },
        repetition_penalty: [1.0, 1.2][rng.random_range(0..2)],
        // Ends some rows early.
        eos_token_ids: (0..3).map(|_| rng.random_range(0..97)).collect(),
        seed: rng.random(),
        ..GenerationConfig::default()
    }
}

/// A row of a schedule: what it was asked, and what it got.
struct Asked {
    prompt: Vec<u32>,
    config: GenerationConfig,
    got: Vec<NextToken>,
    left: bool,
}

/// Rows join and leave at random, up to five at once, some with the same prompt, while others run.
fn random_schedule(model: &AutoCausalLm, rng: &mut StdRng) -> BTreeMap<RowId, Asked> {
    let mut decoder = decoder(model);
    let mut rows: BTreeMap<RowId, Asked> = BTreeMap::new();
    while rows.len() < 12 || !decoder.is_empty() {
        let joining = match rows.len() {
            0..12 => rng.random_range(0..3),
            _ => 0,
        };
        for _ in 0..joining {
            let (prompt, config) = (random_prompt(rng), random_settings(rng));
            let asked = |config| Asked {
                prompt: prompt.clone(),
                config,
                got: Vec::new(),
                left: false,
            };
            if rng.random_range(0..3) == 0 {
                let ids = decoder.join_many(&prompt, 3, &config).expect("joins");
                for (i, id) in ids.into_iter().enumerate() {
                    let seed = mix_seed(config.seed, i as u64);
                    let config = config.clone();
                    rows.insert(id, asked(GenerationConfig { seed, ..config }));
                }
            } else {
                let id = decoder.join(&prompt, &config).expect("joins");
                rows.insert(id, asked(config));
            }
        }
        let runs =
            |row: &Asked| !row.left && row.got.last().is_none_or(|t| t.finish_reason.is_none());
        let running: Vec<RowId> = (rows.iter().filter(|(_, row)| runs(row)))
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(decoder.len(), running.len());
        if !running.is_empty() && rng.random_range(0..6) == 0 {
            let id = running[rng.random_range(0..running.len())];
            assert_eq!(decoder.leave(id).expect("leaves").as_deref(), Some(""));
            assert_eq!(decoder.leave(id).expect("has left"), None);
            rows.get_mut(&id).expect("known").left = true;
        }
        let running: Vec<RowId> = (rows.iter().filter(|(_, row)| runs(row)))
            .map(|(id, _)| *id)
            .collect();
        let step = decoder.step().expect("steps");
        let stepped: Vec<RowId> = step.iter().map(|next| next.row).collect();
        assert_eq!(stepped, running, "a token for each row, in order");
        for next in step {
            rows.get_mut(&next.row).expect("known").got.push(next);
        }
    }
    rows
}

#[test]
fn a_row_gets_what_it_gets_alone_whoever_joins_and_leaves() {
    for (i, name) in ["llama", "mistral", "gpt2", "qwen3"]
        .into_iter()
        .enumerate()
    {
        let model = load(name);
        let mut rng = StdRng::seed_from_u64(i as u64);
        let (mut ended, mut compared) = (0, 0);
        for _ in 0..6 {
            for row in random_schedule(&model, &mut rng).into_values() {
                let mut alone = decoder(&model);
                alone.join(&row.prompt, &row.config).expect("joins");
                let count = row.got.len();
                for (step, found) in row.got.into_iter().enumerate() {
                    let expected = alone.step().expect("steps").remove(0);
                    let what = format!("{name}, prompt {:?}, token {step} of {count}", row.prompt);
                    assert_eq!(found.token_id, expected.token_id, "{what}");
                    assert_eq!(found.finish_reason, expected.finish_reason, "{what}");
                    let (a, b) = (found.logps.expect("asked"), expected.logps.expect("asked"));
                    assert!((a.model - b.model).abs() < 1e-4, "{what}: {a:?}, {b:?}");
                    assert!(
                        (a.sampling - b.sampling).abs() < 1e-4,
                        "{what}: {a:?}, {b:?}"
                    );
                    compared += 1;
                }
                assert!(row.left || alone.is_empty(), "{name}: it ended too early");
                ended += usize::from(alone.is_empty());
            }
        }
        assert!(ended > 40 && compared > 400, "{name}: {ended}, {compared}");
    }
}

/// Against the logits of the whole sequence, read without a cache.
#[test]
fn log_probabilities_are_those_of_the_model_and_of_the_temperature() {
    let device = Device::default();
    let prompt = [5, 9, 2, 44];
    for name in ["llama", "gpt2"] {
        let model = load(name);
        let config = GenerationConfig {
            max_new_tokens: 10,
            temperature: 0.6,
            top_k: 5,
            repetition_penalty: 1.2,
            ..GenerationConfig::default()
        };
        let mut decoder = decoder(&model);
        let rows = decoder.join_many(&prompt, 2, &config).expect("joins");
        let mut got: BTreeMap<RowId, Vec<NextToken>> = BTreeMap::new();
        while !decoder.is_empty() {
            for next in decoder.step().expect("steps") {
                got.entry(next.row).or_default().push(next);
            }
        }
        let [first, second] = [0, 1].map(|i| &got[&rows[i]]);
        assert!(
            first
                .iter()
                .zip(second)
                .any(|(a, b)| a.token_id != b.token_id)
        );
        for row in [first, second] {
            let mut ids = prompt.to_vec();
            ids.extend(row.iter().map(|next| next.token_id));
            let logits = model.logits(&TokenBatch::from_ids(&ids, &device), None);
            let logps = |temperature: f32| {
                let logps = activation::log_softmax(logits.clone() / temperature, 2);
                logps.into_data().try_into_vec::<f32>().expect("f32")
            };
            let (model_logps, sampling_logps) = (logps(1.0), logps(0.6));
            for (i, next) in row.iter().enumerate() {
                let at = (prompt.len() + i - 1) * 97 + next.token_id as usize;
                let logps = next.logps.expect("asked");
                assert!(
                    (logps.model - model_logps[at]).abs() < 1e-4,
                    "{name}, {i}: {logps:?}"
                );
                assert!(
                    (logps.sampling - sampling_logps[at]).abs() < 1e-4,
                    "{name}, {i}: {logps:?}"
                );
            }
        }
    }
}

#[test]
fn a_refused_row_leaves_the_others_alone() {
    let model = load("llama");
    let mut decoder = decoder(&model);
    let config = GenerationConfig {
        max_new_tokens: 2,
        ..GenerationConfig::default()
    };
    decoder.join(&[5], &config).expect("joins");
    decoder
        .join(&[97], &config)
        .expect_err("not in the vocabulary");
    decoder.join_many(&[], 2, &config).expect_err("no token");
    assert_eq!(decoder.len(), 1);
    assert_eq!(decoder.step().expect("steps").len(), 1);
    let last = decoder.step().expect("steps").remove(0);
    assert_eq!(last.finish_reason, Some(FinishReason::Length));
    assert_eq!(decoder.step().expect("steps"), []);
}
