//! Proximal policy optimization: rewards, values and advantages against the formulas, and laws.

use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::module::Module;
use ft_align::reward::{Reward, WeightedSum, from_fn};
use ft_align::{ActorCritic, Ppo, PpoBatch, PpoConfig, PpoRow, Reference};
use ft_core::{
    AutoCausalLm, AutoSequenceClassifier, ModelConfig, SequenceClassifierConfig, TokenBatch,
    Weights,
};
use ft_peft::{Common, LoraConfig, attach, without_adapters};
use ft_train::{
    BoxError, Method, ModelView, StepContext, StepResult, TrainConfig, TrainReport, Trainer,
};

use crate::grpo::{logps, prompts, rewards, small, tokenizer};
use crate::policy::{KillAfter, config, device, factors, folder, lora, policy};

fn value(labels: usize) -> AutoSequenceClassifier {
    let config = ModelConfig::from_pretrained(&folder()).unwrap();
    let config = SequenceClassifierConfig::new(config, labels);
    AutoSequenceClassifier::from_causal_lm(&folder(), &config, 7, &device(), Weights::F32).unwrap()
}

pub(crate) fn model() -> ActorCritic<AutoCausalLm> {
    let adapter = LoraConfig {
        common: Common {
            modules_to_save: vec!["score".into()],
            ..LoraConfig::default().common
        },
        ..lora()
    };
    let value = attach(value(1), &adapter, "default", 5).unwrap();
    ActorCritic::new(policy(), value).unwrap()
}

pub(crate) fn settings() -> PpoConfig {
    let small = small();
    PpoConfig {
        beta: 0.1,
        lambda: 0.9,
        gamma: 0.97,
        missing_eos_penalty: 0.5,
        num_generations: 2,
        prompts_per_batch: 2,
        num_iterations: 2,
        minibatches: 2,
        generation: small.generation,
        ..PpoConfig::default()
    }
}

pub(crate) fn ppo(
    config: PpoConfig,
    rewards: WeightedSum,
    model: &ActorCritic<AutoCausalLm>,
) -> Ppo<AutoCausalLm> {
    let reference = Some(Reference::AdaptersOff);
    let train = prompts(4);
    Ppo::new(
        config,
        rewards,
        tokenizer(),
        reference,
        model,
        train,
        Some(1),
    )
    .unwrap()
}

/// What was there when a batch was made: the batch and the model.
type Seen = Arc<Mutex<Vec<(PpoBatch, ActorCritic<AutoCausalLm>)>>>;

/// A method that remembers its batches.
struct Watched(Ppo<AutoCausalLm>, Seen);

impl Method<ActorCritic<AutoCausalLm>> for Watched {
    type Batch = PpoBatch;

    fn len(&self, epoch: usize) -> usize {
        self.0.len(epoch)
    }

    fn batch(
        &mut self,
        model: &ModelView<'_, ActorCritic<AutoCausalLm>>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<PpoBatch, BoxError> {
        let batch = self.0.batch(model, epoch, index, context)?;
        let seen = (batch.clone(), (**model).clone());
        self.1.lock().unwrap().push(seen);
        Ok(batch)
    }

    fn step(
        &mut self,
        model: &ActorCritic<AutoCausalLm>,
        batch: &PpoBatch,
        context: &StepContext,
    ) -> StepResult {
        self.0.step(model, batch, context)
    }
}

fn watched(config: PpoConfig) -> (Vec<(PpoBatch, ActorCritic<AutoCausalLm>)>, TrainReport) {
    let model = model();
    let seen = Seen::default();
    let method = Watched(ppo(config, rewards(), &model), Arc::clone(&seen));
    let (_, report) = Trainer::with_method(crate::policy::config(), method)
        .fit(model)
        .unwrap();
    let seen = seen.lock().unwrap().clone();
    (seen, report)
}

fn rows(batch: &PpoBatch) -> &[PpoRow] {
    match batch {
        PpoBatch::Training { rows, .. } => rows,
        PpoBatch::Evaluation(_) => panic!("an evaluation"),
    }
}

/// Each number is computed again from the model as it was, with a row of its own for every token.
#[test]
fn advantages_and_returns_are_those_of_the_formulas() {
    let (seen, report) = watched(settings());
    assert_eq!((report.steps, seen.len()), (8, 8));
    // The first two batches are the halves of the first set.
    let model = &seen[0].1;
    let base = without_adapters(&model.policy);
    let set: Vec<&PpoRow> = seen[..2]
        .iter()
        .flat_map(|(batch, _)| rows(batch))
        .collect();
    assert_eq!(set.len(), 4);
    let (mut raw, mut found) = (Vec::new(), Vec::new());
    for row in &set {
        let (prompt, ids) = (&row.scored.prompt_ids, &row.scored.rollout.token_ids);
        let own = logps(&model.policy, prompt, ids, 1.0);
        let reference = logps(&base, prompt, ids, 1.0);
        let values: Vec<f64> = (0..ids.len())
            .map(|token| {
                let state = [&prompt[..], &ids[..token]].concat();
                let tokens = TokenBatch::from_ids(&state, &burn::tensor::Device::flex());
                let score = model.value.scores(&tokens, &[state.len()]);
                f64::from(score.into_scalar::<f32>())
            })
            .collect();
        let mut rewards: Vec<f64> = own
            .iter()
            .zip(&reference)
            .map(|(own, reference)| -0.1 * f64::from(own - reference))
            .collect();
        let penalty = if row.scored.rollout.finished {
            0.0
        } else {
            0.5
        };
        *rewards.last_mut().unwrap() += row.scored.reward.unwrap() - penalty;
        let mut advantage = 0.0;
        let mut advantages = vec![0.0; ids.len()];
        for token in (0..ids.len()).rev() {
            let next = values.get(token + 1).copied().unwrap_or(0.0);
            advantage = rewards[token] + 0.97 * next - values[token] + 0.97 * 0.9 * advantage;
            advantages[token] = advantage;
            let expected = advantage + values[token];
            assert!((f64::from(row.returns[token]) - expected).abs() < 1e-4);
            assert!((f64::from(row.values[token]) - values[token]).abs() < 1e-4);
        }
        raw.extend(advantages);
        found.extend(row.advantages.iter().map(|&number| f64::from(number)));
    }
    let count = raw.len() as f64;
    let mean = raw.iter().sum::<f64>() / count;
    let variance = raw.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
    assert!(variance > 0.1, "the rewards differ");
    for (found, raw) in found.iter().zip(&raw) {
        let expected = (raw - mean) / variance.sqrt();
        assert!((found - expected).abs() < 1e-3, "{found} {expected}");
    }

    // The first loss: ratios are 1, and values are the old ones.
    let half = rows(&seen[0].0);
    let tokens: usize = half.iter().map(|row| row.values.len()).sum();
    let advantages: f32 = half.iter().flat_map(|row| &row.advantages).sum();
    let errors = half
        .iter()
        .flat_map(|row| row.values.iter().zip(&row.returns))
        .map(|(value, result)| 0.5 * (value - result).powi(2));
    let errors: f32 = errors.sum();
    let expected = f64::from(-advantages + 0.1 * errors) / tokens as f64;
    let loss = report.train_losses[0];
    assert!((loss - expected).abs() < 1e-4, "{loss} {expected}");
    let first = &report.train_metrics[0];
    assert!((first["val/ratio"] - 1.0).abs() < 1e-5 && first["policy/clipfrac_avg"] == 0.0);
    assert!((first["loss/value_avg"] - f64::from(errors) / tokens as f64).abs() < 1e-4);
    // The second set's policy has left the reference.
    assert!(report.train_metrics[4]["objective/kl"].abs() > 1e-4);
}

#[test]
fn rewards_rise_and_values_learn() {
    let reward: Arc<dyn Reward> = Arc::new(from_fn("short", |completion| {
        Ok(Some(-(completion.token_count as f64)))
    }));
    let model = model();
    let rewards = WeightedSum::new([(reward, 1.0)]).unwrap();
    let method = ppo(
        PpoConfig {
            beta: 0.01,
            num_generations: 4,
            prompts_per_batch: 4,
            value_coef: 0.5,
            minibatches: 1,
            missing_eos_penalty: 0.0,
            ..settings()
        },
        rewards,
        &model,
    );
    let training = TrainConfig {
        max_steps: Some(40),
        ..config()
    };
    let (_, report) = Trainer::with_method(training, method).fit(model).unwrap();
    let mean = |name: &str, steps: std::ops::Range<usize>| {
        let count = steps.len() as f64;
        let metrics = report.train_metrics[steps].iter();
        metrics.map(|metrics| metrics[name]).sum::<f64>() / count
    };
    let (early, late) = (mean("reward", 0..8), mean("reward", 32..40));
    assert!(late > early + 1.0, "{early} {late}");
    let (early, late) = (mean("loss/value_avg", 0..4), mean("loss/value_avg", 32..40));
    assert!(late < 0.3 * early, "{early} {late}");
}

#[test]
fn the_weight_of_the_divergence_follows_the_target() {
    let (_, report) = watched(PpoConfig {
        adaptive_kl: Some((1.0, 10.0)),
        ..settings()
    });
    let betas: Vec<f64> = report.train_metrics.iter().map(|m| m["beta"]).collect();
    assert_eq!(betas[..4], [0.1; 4]);
    // Before the first update there is no divergence, which is below the target: four completions change the weight by
    // 20% · 4/10.
    assert!(
        (betas[4] - 0.1 * (1.0 - 0.2 * 0.4)).abs() < 1e-6,
        "{betas:?}"
    );
}

#[test]
fn killed_between_updates_and_resumed_ends_with_the_same_bits() {
    let training = |folder: &Path, resume: bool| TrainConfig {
        output_dir: Some(folder.to_path_buf()),
        save_every: Some(1),
        resume,
        ..config()
    };
    let settings = || PpoConfig {
        adaptive_kl: Some((0.5, 20.0)),
        ..settings()
    };
    let fit = |training: TrainConfig, kill: Option<usize>| {
        let model = model();
        let method = ppo(settings(), rewards(), &model)
            .with_evaluation(prompts(2))
            .unwrap();
        let mut trainer = Trainer::with_method(training, method);
        if let Some(step) = kill {
            trainer = trainer.with_callback(KillAfter(step));
        }
        trainer.fit(model)
    };
    let whole = tempfile::tempdir().unwrap();
    let (expected, report) = fit(training(whole.path(), false), None).unwrap();
    assert!(report.eval_after().unwrap().metrics["reward"].is_finite());
    for kill in [2, 5, 7] {
        let folder = tempfile::tempdir().unwrap();
        assert!(fit(training(folder.path(), false), Some(kill)).is_err());
        let (found, again) = fit(training(folder.path(), true), None).unwrap();
        assert_eq!(factors(&found.policy), factors(&expected.policy), "{kill}");
        let values = |model: &ActorCritic<AutoCausalLm>| {
            ft_core::safetensors_folder::module_tensors(&model.value.clone().valid())
        };
        assert_eq!(values(&found), values(&expected), "{kill}");
        assert_eq!(again.train_metrics, report.train_metrics);
    }
}

#[test]
fn models_that_do_not_fit_are_refused() {
    let error = ActorCritic::new(policy(), value(2)).unwrap_err();
    assert!(error.to_string().contains("2 labels"), "{error}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reward_model");
    let other = AutoSequenceClassifier::from_pretrained(&folder, &device()).unwrap();
    let error = ActorCritic::new(policy(), other).unwrap_err();
    assert!(error.to_string().contains("same tokenizer"), "{error}");

    let model = model();
    let new = |reference| {
        Ppo::new(
            settings(),
            rewards(),
            tokenizer(),
            reference,
            &model,
            prompts(2),
            None,
        )
        .map(|_| ())
        .unwrap_err()
        .to_string()
    };
    assert!(new(None).contains("Reference::AdaptersOff"));
    assert!(new(Some(Reference::Precomputed)).contains("during the training"));
}
