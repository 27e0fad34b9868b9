//! What the programs that sample completions have in common: how they are sampled, what scores them, the result.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use ft::align::Sampled;
use ft::align::reward::{ModelScore, Reward, StepScore, WeightedSum, by_names};
use ft::core::{
    AutoSequenceClassifier, AutoTokenClassifier, GenerationConfig, HubOptions,
    SequenceClassifierConfig, Tokenizer, Weights, resolve,
};
use ft::train::{EvalMetrics, TrainReport};
use serde_json::{Value, json};

use crate::alignment::{Common, Start, with_contents};
use crate::judge::JudgeOptions;

/// Options of programs that sample completions and score them.
#[derive(Args, Clone)]
pub(crate) struct Sampling {
    /// gsm8k, numeric, exact, format, regex:PATTERN, length:TOKENS, json, several of them with commas, a JSON file, or the
    /// folder or hub id of a reward model or of a scorer of steps.
    #[arg(long)]
    pub(crate) reward: Option<String>,
    /// The largest length of a completion, in tokens.
    #[arg(long, default_value_t = 256)]
    pub(crate) max_new_tokens: usize,
    /// Prompts with more tokens are left out.
    #[arg(long, default_value_t = 512)]
    pub(crate) max_prompt_tokens: usize,
    /// The temperature of the sampling.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) temperature: f32,
    #[command(flatten)]
    pub(crate) judge: JudgeOptions,
    /// Seconds that a reward may take for a completion; reward models score several at a time.
    #[arg(long, default_value_t = 60)]
    pub(crate) reward_seconds: u64,
}

impl Sampling {
    /// How completions are sampled. The end tokens are those of the model's folder.
    pub(crate) fn generation(&self, start: &Start) -> Result<GenerationConfig> {
        Ok(GenerationConfig {
            max_new_tokens: self.max_new_tokens,
            temperature: self.temperature,
            repetition_penalty: 1.0,
            ..GenerationConfig::from_pretrained(&start.folder, Some(&start.tokenizer))?
        })
    }

    pub(crate) fn reward_time_limit(&self) -> Duration {
        Duration::from_secs(self.reward_seconds)
    }

    /// The rewards of `--reward`; names come before files and folders. A reward model is put on the device of the run.
    pub(crate) fn rewards(&self, common: &Common) -> Result<WeightedSum> {
        let text = (self.reward.as_ref()).context(
            "give --reward, such as --reward gsm8k, or --judge-endpoint or --judge-local",
        )?;
        let path = Path::new(text);
        let named = by_names(text);
        // A hub id is ORGANIZATION/NAME.
        let is_id =
            text.split('/').count() == 2 && !text.contains([':', ',']) && !text.ends_with(".json");
        let named = match named {
            Err(error) if !(path.exists() || is_id) => return Err(error.into()),
            named => named.ok(),
        };
        if let Some(rewards) = named {
            return Ok(WeightedSum::new(
                rewards.into_iter().map(|reward| (reward, 1.0)),
            )?);
        }
        if path.is_file() {
            return Ok(WeightedSum::load(text)?);
        }
        let folder = resolve(text, &HubOptions::from_env())?;
        let device = common.computation.device()?;
        let tokenizer = Tokenizer::from_pretrained(&folder)?;
        let weights = Weights::Stored;
        let config = SequenceClassifierConfig::from_pretrained(&folder)?;
        let reward: Arc<dyn Reward> = match config.step_separator {
            Some(_) => {
                let model = AutoTokenClassifier::from_pretrained_with(&folder, &device, weights)?;
                Arc::new(StepScore::new("step_scores", model, tokenizer, None, 8)?)
            }
            None => {
                let model =
                    AutoSequenceClassifier::from_pretrained_with(&folder, &device, weights)?;
                Arc::new(ModelScore::new("reward_model", model, tokenizer, 8)?)
            }
        };
        Ok(WeightedSum::new([(reward, 1.0)])?)
    }

    /// The rewards of `--reward`, and the verdicts of a judge on a scale from 1 to `points`, which count `weight` times. One of the
    /// two may be missing.
    pub(crate) fn rewards_and_judge(
        &self,
        common: &Common,
        points: u32,
        weight: f64,
    ) -> Result<WeightedSum> {
        let Some(judge) = self.judge.model(&common.computation.device)? else {
            return self.rewards(common);
        };
        std::fs::create_dir_all(&common.output)
            .with_context(|| format!("cannot create {}", common.output.display()))?;
        let replies = common.output.join("judge_replies.jsonl");
        let judge: Arc<dyn Reward> = Arc::new(self.judge.reward(judge, points, &replies)?);
        Ok(match self.reward {
            Some(_) => self.rewards(common)?.and(judge, weight)?,
            None => WeightedSum::new([(judge, weight)])?,
        })
    }

    /// What a resumed run must have in common with the one that it continues.
    pub(crate) fn identity(&self) -> Result<Vec<(&'static str, Value)>> {
        Ok(vec![
            ("reward", with_contents(self.reward.as_deref())?),
            ("max_new_tokens", self.max_new_tokens.into()),
            ("temperature", self.temperature.into()),
            ("judge", self.judge.identity()?),
        ])
    }
}

/// The result of a training on sampled completions, for people and for `--json`.
pub(crate) fn report_policy(
    common: &Common,
    report: &TrainReport,
    sampled: Sampled,
    seconds: Duration,
) -> Result<()> {
    let generation = sampled.generation.as_secs_f64();
    let last = report.train_metrics.last().context("no step was taken")?;
    let reward = |evaluation: Option<&EvalMetrics>| {
        evaluation.and_then(|evaluation| evaluation.metrics.get("reward").copied())
    };
    let (before, after) = (reward(report.eval_before()), reward(report.eval_after()));
    if let (Some(before), Some(after)) = (before, after) {
        eprintln!("held-out reward {before:.4} -> {after:.4}");
    }
    if common.json {
        let rewards: Vec<Option<f64>> = report
            .train_metrics
            .iter()
            .map(|m| m.get("reward").copied())
            .collect();
        let update = seconds - sampled.generation - sampled.scoring - sampled.evaluation;
        let line = json!({
            "rewards": rewards,
            "eval_reward_before": before,
            "eval_reward_after": after,
            "mean_length": last.get("completions/mean_length"),
            "kl": last.get("kl"),
            "steps": report.steps,
            "generation_tokens_per_s": sampled.tokens as f64 / generation.max(1e-9),
            "seconds_generation": generation,
            "seconds_scoring": sampled.scoring.as_secs_f64(),
            "seconds_update": update.as_secs_f64(),
            "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
    Ok(())
}
