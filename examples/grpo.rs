//! Group relative policy optimization: a model samples answers, rewards score them, and better ones become likelier.
//!
//! ```sh
//! cargo run --release --example grpo -- --model DIR --data questions.jsonl --reward gsm8k --output my-adapter
//! ```
//!
//! Rows have a prompt; `ft::data::PromptSample` lists the forms. Their other columns are there for the rewards. `--reward` is
//! a name (gsm8k, numeric, exact, format, regex:PATTERN, length:TOKENS, json, ...), several with commas, or a JSON file with
//! a list of rewards, weights and settings (see `ft::align::reward`), or the folder of a reward model or of a scorer of steps
//! (`reward_model -- --process`). With `--judge-endpoint` or `--judge-local` a chat model rates the answers by `--criteria`, alone or
//! beside the rewards. Held-out prompts are answered greedily before and after, and every `--eval-every` steps.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use ft::align::loss::{PolicyLoss, PolicySettings, Scaling};
use ft::align::{Grpo, GrpoConfig, PolicyWatch};
use ft::data::PromptDataset;
use serde_json::json;

#[path = "shared/alignment.rs"]
#[allow(dead_code)] // The result of pairs.
mod alignment;
#[path = "shared/judge.rs"]
#[allow(dead_code)] // Requests about pairs.
mod judge;
#[path = "shared/sampling.rs"]
mod sampling;
use alignment::{Common, reference, usual_reference, with_contents};
use sampling::{Sampling, report_policy};

/// Group relative policy optimization.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    sampling: Sampling,
    /// The best verdict of a judge; the worst is 1, and the reward goes from 0 to 1.
    #[arg(long, default_value_t = 10, requires = "a_judge")]
    judge_points: u32,
    /// How much the judge counts beside --reward.
    #[arg(long, default_value_t = 1.0, requires = "a_judge")]
    judge_weight: f64,
    /// grpo, bnpo, dr_grpo, dapo, cispo, gspo, sapo or rloo.
    #[arg(long, default_value = "dapo")]
    loss: PolicyLoss,
    /// Prompts that are sampled together.
    #[arg(long, default_value_t = 4)]
    prompts_per_step: usize,
    /// Completions of each prompt.
    #[arg(long, default_value_t = 8)]
    group_size: usize,
    /// Updates on each set of completions.
    #[arg(long, default_value_t = 1)]
    iterations: usize,
    /// The weight of the KL divergence from the reference; 0 needs none.
    #[arg(long, default_value_t = 0.0)]
    beta: f64,
    /// How far ratios of policies may fall below 1. Without it 0.2, for gspo 3e-4.
    #[arg(long)]
    epsilon: Option<f64>,
    /// How far they may rise above 1; as --epsilon without it, for gspo 4e-4. DAPO uses 0.28. For cispo the largest ratio itself, 5
    /// without it.
    #[arg(long)]
    epsilon_high: Option<f64>,
    /// The largest ratio where the advantage is negative (two-sided clipping), such as 4; none without it.
    #[arg(long)]
    two_sided_clip: Option<f64>,
    /// The weight of a bonus for entropy.
    #[arg(long, default_value_t = 0.0)]
    entropy_coef: f64,
    /// The share of the tokens, those with the highest entropies, that learn; 0.2 in the paper, 1 for all.
    #[arg(long, default_value_t = 1.0)]
    top_entropy_quantile: f64,
    /// What advantages are divided by: group, batch or none. Without it group.
    #[arg(long)]
    scale_rewards: Option<Scaling>,
    /// Completions that were cut have no loss.
    #[arg(long)]
    mask_truncated: bool,
    /// How often prompts whose completions are all equally good are replaced.
    #[arg(long, default_value_t = 0)]
    dynamic_sampling: usize,
    /// adapter-off, start, or a model folder; used with --beta.
    #[arg(long)]
    reference: Option<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (common, sampling) = (&args.common, &args.sampling);
    ensure!(
        args.loss != PolicyLoss::Rloo || args.scale_rewards.is_none(),
        "--scale-rewards has no effect on rloo, whose advantages are not scaled: leave it out"
    );
    let loss_settings = settings(&args)?;
    let start = common.start("grpo")?;
    let (points, weight) = (args.judge_points, args.judge_weight);
    let rewards = sampling.rewards_and_judge(common, points, weight)?;
    let dataset = PromptDataset::load(&common.data, &start.tokenizer, sampling.max_prompt_tokens)?;
    eprintln!("{}: {}", common.data.display(), dataset.report);
    let mut identity = vec![
        ("rows", dataset.fingerprint().into()),
        ("loss", args.loss.name().into()),
        ("beta", args.beta.into()),
        ("group_size", args.group_size.into()),
        ("prompts_per_step", args.prompts_per_step.into()),
        (
            "clip",
            json!([args.epsilon, args.epsilon_high, args.two_sided_clip]),
        ),
        (
            "entropy",
            json!([args.entropy_coef, args.top_entropy_quantile]),
        ),
        (
            "scale_rewards",
            args.scale_rewards.map(|scaling| scaling.to_string()).into(),
        ),
        ("mask_truncated", args.mask_truncated.into()),
        ("dynamic_sampling", args.dynamic_sampling.into()),
        ("iterations", args.iterations.into()),
        ("reference", with_contents(args.reference.as_deref())?),
    ];
    let scale = sampling.judge.any().then_some((points, weight));
    identity.push(("judge_scale", json!(scale)));
    identity.extend(sampling.identity()?);
    let policy = common.policy(&start)?;
    let reference = match args.beta > 0.0 {
        true => {
            let name = args.reference.as_deref().unwrap_or(usual_reference(common));
            Some(reference(name, &policy, &start)?)
        }
        false => None,
    };
    let config = GrpoConfig {
        loss: args.loss,
        settings: loss_settings,
        scaling: args.scale_rewards.unwrap_or_default(),
        beta: args.beta,
        num_generations: args.group_size,
        prompts_per_batch: args.prompts_per_step,
        num_iterations: args.iterations,
        generation: sampling.generation(&start)?,
        mask_truncated_completions: args.mask_truncated,
        dynamic_sampling: args.dynamic_sampling,
        entropy_coef: args.entropy_coef,
        top_entropy_quantile: args.top_entropy_quantile,
        reward_time_limit: sampling.reward_time_limit(),
        ..GrpoConfig::default()
    };
    let load =
        |file: &Path| PromptDataset::load(file, &start.tokenizer, sampling.max_prompt_tokens);
    let (train, held_out) = common.split(dataset, load)?;
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
    report_policy(common, &report, method.sampled(), began.elapsed())
}

/// The numbers of the loss.
fn settings(args: &Args) -> Result<PolicySettings> {
    let (loss, mut settings) = (args.loss, args.loss.settings());
    let (low, high) = (args.epsilon, args.epsilon_high);
    if !loss.clips() {
        ensure!(
            low.is_none() && args.two_sided_clip.is_none(),
            "--epsilon and --two-sided-clip have no effect on {loss}: leave them out"
        );
        ensure!(
            high.is_none() || loss == PolicyLoss::Cispo,
            "--epsilon-high has no effect on {loss}: leave it out"
        );
        settings.cispo_cap = high.unwrap_or(settings.cispo_cap);
        return Ok(settings);
    }
    let clip = &mut settings.clip;
    clip.high = high.or(low).unwrap_or(clip.high);
    clip.low = low.unwrap_or(clip.low);
    clip.two_sided = args.two_sided_clip;
    Ok(settings)
}
