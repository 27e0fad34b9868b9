//! Policies that sample their own completions: against TRL on fixed completions, and laws.

use std::path::PathBuf;
use std::sync::Arc;

use burn::module::Module;
use ft_align::loss::{Clip, PolicyLoss, PolicySettings, Scaling};
use ft_align::reward::{Reward, WeightedSum, from_fn};
use ft_align::{Error, Grpo, GrpoConfig, PolicyBatch, Reference, ScoredRollout};
use ft_core::{
    AutoCausalLm, CausalLm, GenerationConfig, Predicted, Rollout, RolloutConfig, TokenBatch,
    Tokenizer, predicted_logps, sample_rollouts,
};
use ft_data::{Prompt, PromptDataset, PromptExample, PromptSample};
use ft_peft::without_adapters;
use ft_train::{BoxError, Method, ModelView, StepContext, StepResult, TrainConfig, Trainer};
use serde_json::Value;

use crate::policy::{KillAfter, config, factors, ids, policy};
use crate::trajectories::{compare, folder, policy as smollm2};

/// A tokenizer whose ids fit the tiny model.
pub(crate) fn tokenizer() -> Tokenizer {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../ft-core/tests/golden/tiny_tokenizer");
    Tokenizer::from_pretrained(&folder).unwrap()
}

pub(crate) fn prompts(count: usize) -> PromptDataset {
    let prompts = (0..count).map(|i| PromptExample {
        input_ids: ids(i, 3 + i % 4),
        sample: PromptSample {
            prompt: Prompt::Text(format!("prompt {i}")),
            tools: None,
            columns: serde_json::Map::new(),
        },
    });
    PromptDataset::from_examples(prompts.collect())
}

/// A reward of any kind: here the share of a completion's characters that are vowels, and its length.
pub(crate) fn rewards() -> WeightedSum {
    let short = from_fn("short", |completion| {
        Ok(Some(-(completion.token_count as f64)))
    });
    let hash = from_fn("hash", |completion| {
        let sum: u32 = completion.text.bytes().map(u32::from).sum();
        Ok(Some(f64::from(sum % 7)))
    });
    let rewards: [(Arc<dyn Reward>, f64); 2] = [(Arc::new(short), 0.5), (Arc::new(hash), 1.0)];
    WeightedSum::new(rewards).unwrap()
}

pub(crate) fn small() -> GrpoConfig {
    GrpoConfig {
        num_generations: 3,
        prompts_per_batch: 2,
        generation: GenerationConfig {
            max_new_tokens: 6,
            temperature: 1.0,
            eos_token_ids: vec![5, 6, 7, 8, 9, 10, 11, 12],
            ..GenerationConfig::default()
        },
        ..GrpoConfig::default()
    }
}

pub(crate) fn grpo(config: GrpoConfig, policy: &AutoCausalLm) -> Grpo<AutoCausalLm> {
    let reference = Some(Reference::AdaptersOff);
    Grpo::new(
        config,
        rewards(),
        tokenizer(),
        reference,
        policy,
        prompts(4),
        Some(1),
    )
    .unwrap()
}

/// The update of a method on completions that are given: sets of four, with two updates each.
struct Fixed {
    method: Grpo<AutoCausalLm>,
    sets: Vec<Vec<ScoredRollout>>,
    held: PolicyBatch,
    metrics: Vec<(String, f64)>,
}

/// Log-probabilities of a completion at a temperature.
pub(crate) fn logps(
    model: &AutoCausalLm,
    prompt: &[u32],
    completion: &[u32],
    temperature: f64,
) -> Vec<f32> {
    let row = [prompt, completion].concat();
    let device = burn::tensor::Device::flex();
    let hidden = model.hidden_states(&TokenBatch::from_ids(&row, &device), None);
    let places = completion.iter().enumerate().map(|(i, &token)| Predicted {
        position: prompt.len() + i - 1,
        token: i64::from(token),
    });
    let found = predicted_logps(hidden, model.head(), &[places.collect()], temperature);
    found.logps.into_data().iter::<f32>().collect()
}

impl Method<AutoCausalLm> for Fixed {
    type Batch = PolicyBatch;

    fn len(&self, _: usize) -> usize {
        2 * self.sets.len()
    }

    fn batch(
        &mut self,
        model: &ModelView<'_, AutoCausalLm>,
        _: usize,
        index: usize,
        _: &StepContext,
    ) -> Result<PolicyBatch, BoxError> {
        if index.is_multiple_of(2) {
            let mut rows = self.sets[index / 2].clone();
            let base = without_adapters(&**model);
            for row in &mut rows {
                let ids = &row.rollout.token_ids;
                row.reference = logps(&base, &row.prompt_ids, ids, 0.9);
                row.rollout.logps = logps(model, &row.prompt_ids, ids, 0.9);
            }
            self.held = PolicyBatch {
                rows,
                off_policy: true,
                metrics: self.metrics.iter().cloned().collect(),
                ..PolicyBatch::default()
            };
        }
        Ok(self.held.clone())
    }

    fn step(
        &mut self,
        model: &AutoCausalLm,
        batch: &PolicyBatch,
        context: &StepContext,
    ) -> StepResult {
        self.method.step(model, batch, context)
    }
}

fn as_in_trl(name: &str, loss: PolicyLoss, beta: f64, clip: Clip, names: &[&str]) {
    let Some(folder) = folder() else {
        return;
    };
    let golden: Value = serde_json::from_str(include_str!("../golden/grpo.json")).unwrap();
    let prompts: Vec<Vec<u32>> = serde_json::from_value(golden["prompts"].clone()).unwrap();
    let answers: Vec<[Vec<u32>; 2]> = serde_json::from_value(golden["answers"].clone()).unwrap();
    let rows = prompts.iter().zip(&answers).flat_map(|(prompt, answers)| {
        let rewards = [1.0, 0.25];
        let advantages = loss.advantages(&rewards.map(Some), 2, Scaling::Group);
        (0..2).map(move |i| ScoredRollout {
            prompt_ids: prompt.clone(),
            rollout: Rollout {
                token_ids: answers[i].clone(),
                finished: true,
                ..Rollout::default()
            },
            reward: Some(rewards[i]),
            advantage: advantages[i],
            reference: Vec::new(),
        })
    });
    let rows: Vec<ScoredRollout> = rows.collect();
    let config = GrpoConfig {
        loss,
        beta,
        num_generations: 2,
        prompts_per_batch: 2,
        num_iterations: 2,
        settings: PolicySettings {
            clip,
            ..PolicySettings::default()
        },
        generation: GenerationConfig {
            max_new_tokens: 64,
            temperature: 0.9,
            eos_token_ids: vec![2],
            ..GenerationConfig::default()
        },
        ..GrpoConfig::default()
    };
    let policy = smollm2(&folder);
    let tokenizer = Tokenizer::from_pretrained(&folder).unwrap();
    let reference = Some(Reference::AdaptersOff);
    let prompts = crate::grpo::prompts(1);
    let method = Grpo::new(
        config,
        rewards(),
        tokenizer,
        reference,
        &policy,
        prompts,
        None,
    )
    .unwrap();
    let fixed = Fixed {
        method,
        sets: rows.chunks(4).map(<[_]>::to_vec).collect(),
        held: PolicyBatch::default(),
        metrics: Vec::new(),
    };
    let config = TrainConfig {
        learning_rate: 1e-3,
        weight_decay: 0.0,
        ..crate::policy::config()
    };
    let (_, report) = Trainer::with_method(config, fixed).fit(policy).unwrap();
    assert_eq!(report.train_losses.len(), 8);
    compare(&report, &golden[name], names);
}

#[test]
fn grpo_on_fixed_completions_is_that_of_trl() {
    let names = ["loss", "kl", "entropy", "clip_ratio/region_mean"];
    as_in_trl("grpo", PolicyLoss::Grpo, 0.1, Clip::default(), &names);
}

#[test]
fn dapo_on_fixed_completions_is_that_of_trl() {
    let clip = Clip {
        high: 0.28,
        ..Clip::default()
    };
    let names = ["loss", "entropy", "clip_ratio/region_mean"];
    as_in_trl("dapo", PolicyLoss::Dapo, 0.0, clip, &names);
}

/// The log-probabilities that come with a completion are those of a pass over prompt and completion; who shares the room
/// does not matter.
#[test]
fn completions_have_the_log_probabilities_of_the_policy() {
    let model = crate::policy::trained_policy().valid();
    let prompts: Vec<Vec<u32>> = (0..5).map(|i| ids(i, 2 + i)).collect();
    let prompts: Vec<&[u32]> = prompts.iter().map(|prompt| &prompt[..]).collect();
    let rollouts = |max_rows: usize| {
        let config = RolloutConfig {
            num_generations: 3,
            generation: GenerationConfig {
                temperature: 0.8,
                ..small().generation
            },
            max_rows,
        };
        sample_rollouts(&model, &tokenizer(), &prompts, &config, 7).unwrap()
    };
    let together = rollouts(100);
    for (prompt, group) in prompts.iter().zip(&together) {
        for rollout in group {
            let expected = logps(&model, prompt, &rollout.token_ids, 0.8);
            assert_eq!(rollout.logps.len(), rollout.token_ids.len());
            for (found, expected) in rollout.logps.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-4);
            }
            let last = rollout.token_ids.last().unwrap();
            assert_eq!(rollout.finished, (5..=12).contains(last));
            assert!(rollout.finished || rollout.token_ids.len() == 6);
        }
        assert!(group[0] != group[1] || group[1] != group[2]);
    }
    let tokens = |groups: &[Vec<Rollout>]| {
        let rows = groups.iter().flatten();
        rows.map(|rollout| rollout.token_ids.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(tokens(&rollouts(3)), tokens(&together));
}

#[test]
fn every_loss_of_policies_trains_and_reports() {
    for loss in PolicyLoss::ALL {
        let policy = policy();
        let config = GrpoConfig {
            loss,
            beta: 0.05,
            num_iterations: 2,
            minibatches: 2,
            mask_truncated_completions: loss == PolicyLoss::Dapo,
            dynamic_sampling: usize::from(loss == PolicyLoss::Dapo) * 2,
            entropy_coef: if loss == PolicyLoss::Bnpo { 0.01 } else { 0.0 },
            top_entropy_quantile: if loss == PolicyLoss::Cispo { 0.3 } else { 1.0 },
            scaling: if loss == PolicyLoss::DrGrpo {
                Scaling::None
            } else {
                Scaling::Group
            },
            ..small()
        };
        let method = grpo(config, &policy).with_evaluation(prompts(3)).unwrap();
        let before = factors(&policy);
        let trainer = Trainer::with_method(crate::policy::config(), method);
        let (after, report) = trainer.fit(policy).unwrap();
        // Two sets of prompts, two iterations, two parts.
        assert_eq!(report.steps, 8, "{loss}");
        assert_ne!(factors(&after), before);
        for name in [
            "reward",
            "reward_std",
            "rewards/short/mean",
            "rewards/hash/std",
            "frac_reward_zero_std",
            "completions/mean_length",
            "completions/clipped_ratio",
            "entropy",
            "kl",
            "clip_ratio/region_mean",
        ] {
            let found = report.train_metrics[0].get(name);
            // If all completions of a part are cut, no token of it counts.
            let of_tokens = ["kl", "entropy"].contains(&name) || name.starts_with("clip_ratio");
            let own = [PolicyLoss::Cispo, PolicyLoss::Sapo].contains(&loss)
                && name.starts_with("clip_ratio");
            let may_lack = own || of_tokens && loss == PolicyLoss::Dapo;
            let value = found.or(may_lack.then_some(&0.0));
            assert!(
                value.is_some_and(|value| value.is_finite()),
                "{loss}: {name}"
            );
        }
        let evaluation = report.eval_after().unwrap();
        assert!((evaluation.loss + evaluation.metrics["reward"]).abs() < 1e-6);
    }
}

/// On the first update the ratios are 1, and the gradient is that of the advantages.
#[test]
fn the_first_update_has_no_clipping_and_a_loss_of_0() {
    let policy = policy();
    let method = grpo(
        GrpoConfig {
            loss: PolicyLoss::Grpo,
            num_iterations: 2,
            ..small()
        },
        &policy,
    );
    let (_, report) = Trainer::with_method(config(), method).fit(policy).unwrap();
    assert!(
        report.train_losses[0].abs() < 1e-5,
        "{:?}",
        report.train_losses
    );
    assert_eq!(report.train_metrics[0]["clip_ratio/region_mean"], 0.0);
    assert!(
        report.train_losses[1].abs() > 1e-4,
        "{:?}",
        report.train_losses
    );
}

/// The last set of an epoch has fewer prompts than the others, and fewer than parts.
#[test]
fn sets_of_any_size_are_split_into_parts() {
    for count in [1, 3, 5] {
        let policy = policy();
        let config = GrpoConfig {
            minibatches: 2,
            ..small()
        };
        let method = Grpo::new(
            config,
            rewards(),
            tokenizer(),
            None,
            &policy,
            prompts(count),
            None,
        );
        let trainer = Trainer::with_method(crate::policy::config(), method.unwrap());
        let (_, report) = trainer.fit(policy).unwrap();
        assert_eq!(report.steps, count.div_ceil(2) * 2);
    }
}

#[test]
fn a_trained_adapter_and_accumulation_over_updates_are_refused() {
    let policy = crate::policy::trained_policy();
    let config = GrpoConfig {
        beta: 0.1,
        ..small()
    };
    let method = grpo(config, &policy);
    let error = Trainer::with_method(crate::policy::config(), method)
        .fit(policy)
        .unwrap_err();
    assert!(error.to_string().contains("earlier stage"), "{error}");

    let policy = crate::policy::policy();
    let config = GrpoConfig {
        num_iterations: 2,
        ..small()
    };
    let method = grpo(config, &policy);
    let training = TrainConfig {
        gradient_accumulation_steps: 2,
        ..crate::policy::config()
    };
    let error = Trainer::with_method(training, method)
        .fit(policy)
        .unwrap_err();
    assert!(
        error.to_string().contains("gradient_accumulation_steps"),
        "{error}"
    );
}

#[test]
fn a_policy_that_is_killed_between_updates_and_resumed_ends_with_the_same_bits() {
    let training = |folder: &std::path::Path, resume: bool| TrainConfig {
        output_dir: Some(folder.to_path_buf()),
        save_every: Some(1),
        eval_every: Some(3),
        resume,
        ..config()
    };
    let method = |policy: &AutoCausalLm| {
        let config = GrpoConfig {
            beta: 0.05,
            num_iterations: 3,
            ..small()
        };
        grpo(config, policy).with_evaluation(prompts(2)).unwrap()
    };
    let whole = tempfile::tempdir().unwrap();
    let start = policy();
    let made = method(&start);
    let trainer = Trainer::with_method(training(whole.path(), false), made);
    let (expected, report) = trainer.fit(start).unwrap();
    assert_eq!(report.steps, 6);
    for kill in 2..=6 {
        let folder = tempfile::tempdir().unwrap();
        let start = policy();
        let made = method(&start);
        let killed = Trainer::with_method(training(folder.path(), false), made)
            .with_callback(KillAfter(kill))
            .fit(start);
        assert!(killed.is_err());
        let start = policy();
        let made = method(&start);
        let trainer = Trainer::with_method(training(folder.path(), true), made);
        let (found, again) = trainer.fit(start).unwrap();
        assert_eq!(factors(&found), factors(&expected), "after {kill}");
        assert_eq!(again.train_losses, report.train_losses);
        assert_eq!(again.train_metrics, report.train_metrics);
        assert_eq!(again.evaluations, report.evaluations);
    }
}

#[test]
fn settings_that_make_no_sense_are_refused_together() {
    let policy = policy();
    let config = GrpoConfig {
        num_generations: 1,
        minibatches: 3,
        beta: -1.0,
        generation: GenerationConfig {
            temperature: 0.0,
            eos_token_ids: Vec::new(),
            ..small().generation
        },
        ..small()
    };
    let new = |config: GrpoConfig, reference| {
        let made = Grpo::new(
            config,
            rewards(),
            tokenizer(),
            reference,
            &policy,
            prompts(2),
            None,
        );
        made.map(|_| ()).unwrap_err()
    };
    let Error::Settings(mistakes) = new(config, None) else {
        panic!("another error");
    };
    assert_eq!(mistakes.len(), 5, "{mistakes:?}");
    let config = GrpoConfig {
        beta: 0.1,
        ..small()
    };
    assert!(
        new(config.clone(), None)
            .to_string()
            .contains("Reference::AdaptersOff")
    );
    let precomputed = new(config, Some(Reference::Precomputed)).to_string();
    assert!(precomputed.contains("during the training"), "{precomputed}");
}
