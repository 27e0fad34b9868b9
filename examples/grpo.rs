//! Group relative policy optimization: a model samples answers, rewards score them, and better ones become likelier.
//!
//! ```sh
//! cargo run --release --example grpo -- --model DIR --data questions.jsonl --reward gsm8k --output my-adapter
//! ```
//!
//! Rows have a prompt; `ft::data::PromptSample` lists the forms. Their other columns are there for the rewards. `--reward` is
//! a name (gsm8k, numeric, exact, format, regex:PATTERN, length:TOKENS, json, ...), several with commas, or a JSON file with
//! a list of rewards, weights and settings (see `ft::align::reward`). Held-out prompts are answered greedily before and
//! after.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use ft::align::loss::{Clip, PolicyLoss, PolicySettings, Scaling};
use ft::align::reward::{Reward, WeightedSum, by_name};
use ft::align::{Grpo, GrpoConfig, PolicyWatch};
use ft::core::GenerationConfig;
use ft::data::PromptDataset;
use serde_json::json;

#[path = "shared/alignment.rs"]
#[allow(dead_code)] // The result of pairs.
mod alignment;
use alignment::{Common, reference, usual_reference};

/// Group relative policy optimization.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// gsm8k, numeric, exact, format, regex:PATTERN, length:TOKENS, json, several of them with commas, or a JSON file.
    #[arg(long)]
    reward: String,
    /// grpo, bnpo, dr_grpo, dapo, cispo, gspo, sapo or rloo.
    #[arg(long, default_value = "dapo")]
    loss: PolicyLoss,
    /// Completions of each prompt.
    #[arg(long, default_value_t = 8)]
    group_size: usize,
    /// Prompts that are sampled together.
    #[arg(long, default_value_t = 4)]
    prompts_per_step: usize,
    /// Updates on each set of completions.
    #[arg(long, default_value_t = 1)]
    iterations: usize,
    /// The largest length of a completion, in tokens.
    #[arg(long, default_value_t = 256)]
    max_new_tokens: usize,
    /// Prompts with more tokens are left out.
    #[arg(long, default_value_t = 512)]
    max_prompt_tokens: usize,
    /// The temperature of the sampling.
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// The weight of the KL divergence from the reference; 0 needs none.
    #[arg(long, default_value_t = 0.0)]
    beta: f64,
    /// How far ratios of policies may fall below 1.
    #[arg(long, default_value_t = 0.2)]
    epsilon: f64,
    /// How far they may rise above 1; as --epsilon without it. DAPO uses 0.28.
    #[arg(long)]
    epsilon_high: Option<f64>,
    /// What advantages are divided by: group, batch or none.
    #[arg(long, default_value = "group")]
    scale_rewards: Scaling,
    /// Completions that were cut have no loss.
    #[arg(long)]
    mask_truncated: bool,
    /// How often prompts whose completions are all equally good are replaced.
    #[arg(long, default_value_t = 0)]
    dynamic_sampling: usize,
    /// adapter-off, start, or a model folder; used with --beta.
    #[arg(long)]
    reference: Option<String>,
    /// Seconds that scoring a set of completions may take.
    #[arg(long, default_value_t = 60)]
    reward_seconds: u64,
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let common = &args.common;
    let rewards = rewards(&args.reward)?;
    let start = common.start()?;
    let dataset = PromptDataset::load(&common.data, &start.tokenizer, args.max_prompt_tokens)?;
    eprintln!("{}: {}", common.data.display(), dataset.report);
    let identity = [
        ("rows", dataset.fingerprint().into()),
        ("reward", args.reward.as_str().into()),
        ("loss", args.loss.name().into()),
        ("beta", args.beta.into()),
        ("group_size", args.group_size.into()),
        ("prompts_per_step", args.prompts_per_step.into()),
        ("max_new_tokens", args.max_new_tokens.into()),
        ("temperature", args.temperature.into()),
        ("epsilon", json!([args.epsilon, args.epsilon_high])),
        ("scale_rewards", args.scale_rewards.to_string().into()),
        ("mask_truncated", args.mask_truncated.into()),
        ("dynamic_sampling", args.dynamic_sampling.into()),
        ("iterations", args.iterations.into()),
        ("reference", args.reference.clone().into()),
    ];
    let policy = common.policy(&start)?;
    let reference = match args.beta > 0.0 {
        true => {
            let name = args.reference.as_deref().unwrap_or(usual_reference(common));
            Some(reference(name, &policy, &start)?)
        }
        false => None,
    };
    let generation = GenerationConfig {
        max_new_tokens: args.max_new_tokens,
        temperature: args.temperature,
        repetition_penalty: 1.0,
        ..GenerationConfig::from_pretrained(&start.folder, Some(&start.tokenizer))?
    };
    let config = GrpoConfig {
        loss: args.loss,
        settings: PolicySettings {
            clip: Clip {
                low: args.epsilon,
                high: args.epsilon_high.unwrap_or(args.epsilon),
                two_sided: None,
            },
            ..PolicySettings::default()
        },
        scaling: args.scale_rewards,
        beta: args.beta,
        num_generations: args.group_size,
        prompts_per_batch: args.prompts_per_step,
        num_iterations: args.iterations,
        generation,
        mask_truncated_completions: args.mask_truncated,
        dynamic_sampling: args.dynamic_sampling,
        reward_time_limit: Duration::from_secs(args.reward_seconds),
        ..GrpoConfig::default()
    };
    let (train, held_out) = dataset.split(common.eval_fraction, common.seed)?;
    let (tokenizer, seed) = (start.tokenizer.clone(), Some(common.seed));
    let mut method = Grpo::new(config, rewards, tokenizer, reference, &policy, train, seed)?
        .with_evaluation(held_out)?;
    let began = Instant::now();
    let (_, report) = common.fit(
        &start,
        policy,
        &mut method,
        &identity,
        Some(PolicyWatch::default()),
    )?;
    let sampled = method.sampled();
    let generation = sampled.generation.as_secs_f64();
    let last = report.train_metrics.last().context("no step was taken")?;
    let reward = |evaluation: Option<&ft::train::EvalMetrics>| {
        evaluation.and_then(|evaluation| evaluation.metrics.get("reward").copied())
    };
    let (before, after) = (reward(report.eval_before()), reward(report.eval_after()));
    if let (Some(before), Some(after)) = (before, after) {
        eprintln!("held-out reward {before:.4} -> {after:.4}");
    }
    if common.json {
        let rewards: Vec<f64> = report.train_metrics.iter().map(|m| m["reward"]).collect();
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
            "seconds_update": (began.elapsed() - sampled.generation - sampled.scoring - sampled.evaluation)
                .as_secs_f64(),
            "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
    Ok(())
}

/// The rewards of `--reward`.
fn rewards(text: &str) -> Result<WeightedSum> {
    if Path::new(text).is_file() {
        return Ok(WeightedSum::load(text)?);
    }
    // A pattern may contain commas.
    if text.starts_with("regex:") {
        return Ok(WeightedSum::new([(by_name(text)?, 1.0)])?);
    }
    let parts = text.split(',').map(|name| Ok((by_name(name.trim())?, 1.0)));
    let parts = parts.collect::<Result<Vec<(Arc<dyn Reward>, f64)>>>()?;
    Ok(WeightedSum::new(parts)?)
}
