//! Pairs of completions that the policy samples, and rewards of models.

use std::path::Path;
use std::sync::Arc;

use ft_align::reward::{Completion, ModelScore, PromptRef, Reward, WeightedSum, from_fn};
use ft_align::{
    Error, OnlineDpo, OnlineDpoConfig, Reference, best_and_worst, sample_and_score, score_rows,
};
use ft_core::{
    AutoCausalLm, AutoSequenceClassifier, ModelConfig, RolloutConfig, SequenceClassifierConfig,
};
use ft_data::{Sample, tokenize};
use ft_train::{TrainConfig, TrainReport, Trainer};

use crate::grpo::{prompts, rewards, small, tokenizer};
use crate::policy::{config, device, factors, folder, policy};

fn settings() -> OnlineDpoConfig {
    OnlineDpoConfig {
        num_generations: 3,
        prompts_per_batch: 2,
        generation: small().generation,
        ..OnlineDpoConfig::default()
    }
}

fn train(rewards: WeightedSum, steps: usize) -> (AutoCausalLm, TrainReport) {
    let policy = policy();
    let method = OnlineDpo::new(
        settings(),
        rewards,
        tokenizer(),
        Reference::AdaptersOff,
        &policy,
        prompts(4),
        Some(1),
    )
    .unwrap()
    .with_evaluation(prompts(3))
    .unwrap();
    let training = TrainConfig {
        max_steps: Some(steps),
        weight_decay: 0.0,
        ..config()
    };
    Trainer::with_method(training, method).fit(policy).unwrap()
}

fn short() -> WeightedSum {
    let short: Arc<dyn Reward> = Arc::new(from_fn("short", |completion| {
        Ok(Some(-(completion.token_count as f64)))
    }));
    WeightedSum::new([(short, 1.0)]).unwrap()
}

#[test]
fn shorter_completions_are_learned_where_they_are_preferred() {
    let (_, report) = train(short(), 80);
    // The policy is the reference until the first step that has pairs.
    let pairs = |metrics: &ft_train::Metrics| metrics["pairs"] > 0.0;
    let first = report.train_metrics.iter().position(pairs).unwrap();
    assert!((report.train_losses[first] - 2f64.ln()).abs() < 1e-4);
    assert!(report.train_metrics[first]["rewards/margins"].abs() < 1e-4);
    let mean = |steps: std::ops::Range<usize>| {
        let count = steps.len() as f64;
        let lengths = report.train_metrics[steps].iter();
        lengths.map(|m| m["completions/mean_length"]).sum::<f64>() / count
    };
    let (early, late) = (mean(0..10), mean(70..80));
    assert!(late < early - 0.8, "{early} {late}");
    let evaluation = report.eval_after().unwrap();
    assert!((evaluation.loss + evaluation.metrics["reward"]).abs() < 1e-6);
}

#[test]
fn prompts_whose_completions_are_equally_good_teach_nothing() {
    let same: Arc<dyn Reward> = Arc::new(from_fn("same", |_| Ok(Some(1.0))));
    let (trained, report) = train(WeightedSum::new([(same, 1.0)]).unwrap(), 3);
    assert_eq!(report.train_losses, [0.0; 3]);
    assert_eq!(report.train_metrics[0]["pairs"], 0.0);
    assert!(!report.train_metrics[0].contains_key("rewards/margins"));
    assert_eq!(factors(&trained), factors(&policy()));
}

#[test]
fn a_reward_for_every_completion_and_the_best_of_each_prompt() {
    let prompts = prompts(5).examples;
    let limit = std::time::Duration::from_secs(10);
    let rollout = RolloutConfig {
        num_generations: 4,
        generation: small().generation,
        max_rows: 8,
    };
    let policy = burn::module::Module::valid(&policy());
    let found = sample_and_score(
        &policy,
        &tokenizer(),
        &prompts,
        &rewards(),
        &rollout,
        limit,
        3,
    );
    let found = found.unwrap();
    assert_eq!(found.len(), 5);
    for completions in &found {
        assert_eq!(completions.len(), 4);
        if let Some((best, worst)) = best_and_worst(completions) {
            let rewards = completions.iter().filter_map(|row| row.reward);
            assert_eq!(best.reward, rewards.clone().reduce(f64::max));
            assert_eq!(worst.reward, rewards.reduce(f64::min));
        }
    }
    assert!(found.iter().any(|all| best_and_worst(all).is_some()));
}

/// A model of random weights for the tokenizer of the tests.
fn reward_model(labels: usize) -> AutoSequenceClassifier {
    let config = std::fs::read(folder().join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    config["vocab_size"] = tokenizer().vocab_size().into();
    let at = tempfile::tempdir().unwrap();
    std::fs::write(at.path().join("config.json"), config.to_string()).unwrap();
    let config = ModelConfig::from_pretrained(at.path()).unwrap();
    let config = SequenceClassifierConfig::new(config, labels);
    AutoSequenceClassifier::from_config(&config, &device()).unwrap()
}

#[test]
fn a_reward_model_scores_the_prompt_with_the_completion() {
    let model = reward_model(1);
    let reward = ModelScore::new("rm", model.clone(), tokenizer(), 2).unwrap();
    let columns = serde_json::Map::new();
    let texts = ["a", "and b", "", "cde"];
    let completions: Vec<Completion<'_>> = texts
        .iter()
        .map(|text| Completion {
            prompt: PromptRef::Text("to "),
            text,
            token_count: 1,
            finished: true,
            columns: &columns,
        })
        .collect();
    let found = reward.score_all(&completions);
    for ((completion, found), text) in completions.iter().zip(found).zip(texts) {
        let found = found.unwrap().unwrap();
        let sample = Sample::PromptCompletion {
            prompt: "to ".into(),
            completion: text.to_string(),
        };
        let ids = tokenize(&sample, &tokenizer(), usize::MAX)
            .unwrap()
            .input_ids;
        let expected = score_rows(&model, &[ids], 1).unwrap()[0];
        assert!((found - f64::from(expected)).abs() < 1e-5, "{text}");
        let alone = reward.score(completion).unwrap().unwrap();
        assert!((alone - found).abs() < 1e-5);
    }
    let long = "abc ".repeat(300);
    let long = Completion {
        text: &long,
        ..completions[0]
    };
    let found = reward.score_all(&[completions[0], long]);
    assert!(found[0].is_ok());
    let message = found[1].as_ref().unwrap_err().to_string();
    assert!(message.contains("tokens"), "{message}");
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reward_model");
    let small = AutoSequenceClassifier::from_pretrained(&small, &device()).unwrap();
    let error = ModelScore::new("rm", small, tokenizer(), 2).unwrap_err();
    assert!(error.to_string().contains("61"), "{error}");
    let error = ModelScore::new("rm", reward_model(3), tokenizer(), 2).unwrap_err();
    assert!(matches!(&error, Error::Reward { reason, .. } if reason.contains("3 labels")));
}
