//! A model whose attention has a window beside one whose attention has none: both read the same batch.

use burn::module::Module;
use ft_align::{ActorCritic, Dpo, DpoConfig, Ppo, PpoConfig, Reference};
use ft_core::{
    AutoCausalLm, AutoSequenceClassifier, ModelConfig, SequenceClassifierConfig, Weights,
};
use ft_train::{Method, ModelView, StepContext, Trainer};
use tempfile::TempDir;

use crate::grpo::{logps, prompts, rewards, small, tokenizer};
use crate::policy::{config, device, folder, pairs, policy};

/// The tiny Llama as a Mistral with a window of 4 tokens.
fn windowed() -> TempDir {
    let at = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, at.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let path = at.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["model_type"] = "mistral".into();
    config["architectures"] = serde_json::json!(["MistralForCausalLM"]);
    config["sliding_window"] = 4.into();
    std::fs::write(&path, config.to_string()).unwrap();
    at
}

#[test]
fn a_reference_with_a_window_reads_every_answer_in_a_row_of_its_own() {
    let at = windowed();
    let windowed = AutoCausalLm::from_pretrained(at.path(), &device()).unwrap();
    let (policy, pairs) = (policy(), pairs(2));
    let reference = Reference::start(&windowed);
    let settings = DpoConfig::default();
    let mut method = Dpo::new(settings, reference, &policy, pairs.clone(), 2, None).unwrap();
    let context = StepContext::training(&device(), 1, 1, 0);
    let batch = method
        .batch(&ModelView::new(&policy), 0, 0, &context)
        .unwrap();
    let found = batch.reference.unwrap();
    let chosen = pairs.examples.iter().map(|pair| &pair.chosen);
    let rejected = pairs.examples.iter().map(|pair| &pair.rejected);
    for (found, answer) in found.iter().zip(chosen.chain(rejected)) {
        let begin = answer.labels.iter().position(|&label| label >= 0).unwrap();
        let (prompt, completion) = answer.input_ids.split_at(begin);
        let expected: f32 = logps(&windowed.valid(), prompt, completion, 1.0)
            .iter()
            .sum();
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
    Trainer::with_method(config(), method).fit(policy).unwrap();
}

#[test]
fn a_value_model_with_a_window_too() {
    let at = windowed();
    let body = ModelConfig::from_pretrained(at.path()).unwrap();
    let body = SequenceClassifierConfig::new(body, 1);
    let (seed, weights) = (3, Weights::F32);
    let value = AutoSequenceClassifier::from_causal_lm(at.path(), &body, seed, &device(), weights);
    let model = ActorCritic::new(policy(), value.unwrap()).unwrap();
    let settings = PpoConfig {
        num_generations: 3,
        prompts_per_batch: 2,
        generation: small().generation,
        ..PpoConfig::default()
    };
    let reference = Some(Reference::AdaptersOff);
    let train = prompts(2);
    let method = Ppo::new(
        settings,
        rewards(),
        tokenizer(),
        reference,
        &model,
        train,
        None,
    );
    Trainer::with_method(config(), method.unwrap())
        .fit(model)
        .unwrap();
}
