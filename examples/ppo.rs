//! Proximal policy optimization: a model samples answers, a reward scores them, and a value model learns what to expect.
//!
//! ```sh
//! cargo run --release --example ppo -- --model DIR --data questions.jsonl --reward gsm8k --output my-adapter
//! ```
//!
//! Rows have a prompt; `ft::data::PromptSample` lists the forms. `--reward` is as in the example `grpo`, such as the folder of
//! a reward model (`reward_model -- --merged`). The value model is a new head on the body of the model, or the model of
//! `--value-model`. It trains an adapter of its own, which is written to `value` in the output folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use ft::align::{ActorCritic, PolicyWatch, Ppo, PpoConfig};
use ft::core::{
    AutoCausalLm, AutoSequenceClassifier, ModelConfig, SaveOptions, SequenceClassifierConfig,
    StageManifest, Weights,
};
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
use alignment::{
    Common, InCheckpoints, POLICY_RATES, Start, reference, save_adapter, usual_reference,
    with_contents,
};
use sampling::{Sampling, report_policy};

/// Proximal policy optimization.
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
    /// Folder of the value model, a sequence classifier with one label; without it a new head on the body of --model.
    #[arg(long)]
    value_model: Option<PathBuf>,
    /// Prompts that are sampled together.
    #[arg(long, default_value_t = 4)]
    prompts_per_step: usize,
    /// Completions of each prompt.
    #[arg(long, default_value_t = 1)]
    group_size: usize,
    /// Updates on each set of completions.
    #[arg(long, default_value_t = 4)]
    iterations: usize,
    /// The weight of the KL divergence from the reference; 0 needs none.
    #[arg(long, default_value_t = 0.05)]
    beta: f64,
    /// The KL divergence of a completion, in nats, that the weight is changed for.
    #[arg(long)]
    target_kl: Option<f64>,
    /// After how many completions the weight may have changed by 20%.
    #[arg(long, default_value_t = 10_000.0)]
    kl_horizon: f64,
    /// The discount of later rewards.
    #[arg(long, default_value_t = 1.0)]
    gamma: f64,
    /// How far advantages look ahead, from 0 to 1.
    #[arg(long, default_value_t = 0.95)]
    lambda: f64,
    /// How far ratios of policies may leave 1.
    #[arg(long, default_value_t = 0.2)]
    epsilon: f64,
    /// The weight of the loss of the values.
    #[arg(long, default_value_t = 0.1)]
    value_coef: f64,
    /// Divide the rewards of tokens by their deviation.
    #[arg(long)]
    whiten_rewards: bool,
    /// What is subtracted from the reward of a completion that was cut.
    #[arg(long, default_value_t = 0.0)]
    missing_eos_penalty: f64,
    /// adapter-off, start, or a model folder; used with --beta.
    #[arg(long)]
    reference: Option<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (common, sampling) = (&args.common, &args.sampling);
    ensure!(
        common.grad_accum == 1 || args.iterations == 1,
        "--grad-accum puts several batches into an update, but a set of completions has {} updates: use --iterations 1, or more \
         --prompts-per-step",
        args.iterations
    );
    let start = common.start("ppo")?;
    let (points, weight) = (args.judge_points, args.judge_weight);
    let rewards = sampling.rewards_and_judge(common, points, weight)?;
    let prompts = sampling.max_prompt_tokens;
    let dataset = PromptDataset::load(&common.data, &start.tokenizer, prompts)?;
    eprintln!("{}: {}", common.data.display(), dataset.report);
    let value_model = args.value_model.as_deref().and_then(Path::to_str);
    let mut identity = vec![
        ("rows", dataset.fingerprint().into()),
        ("value_model", with_contents(value_model)?),
        ("group_size", args.group_size.into()),
        ("prompts_per_step", args.prompts_per_step.into()),
        ("iterations", args.iterations.into()),
        ("kl", json!([args.beta, args.target_kl, args.kl_horizon])),
        ("advantages", json!([args.gamma, args.lambda])),
        ("epsilon", args.epsilon.into()),
        ("value_coef", args.value_coef.into()),
        ("whiten_rewards", args.whiten_rewards.into()),
        ("missing_eos_penalty", args.missing_eos_penalty.into()),
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
    let model = ActorCritic::new(policy, value(&args, &start)?)?;
    let config = PpoConfig {
        beta: args.beta,
        adaptive_kl: args.target_kl.map(|target| (target, args.kl_horizon)),
        gamma: args.gamma,
        lambda: args.lambda,
        clip_range: args.epsilon,
        value_coef: args.value_coef,
        whiten_rewards: args.whiten_rewards,
        missing_eos_penalty: args.missing_eos_penalty,
        num_generations: args.group_size,
        prompts_per_batch: args.prompts_per_step,
        num_iterations: args.iterations,
        generation: sampling.generation(&start)?,
        reward_time_limit: sampling.reward_time_limit(),
        ..PpoConfig::default()
    };
    let load = |file: &Path| PromptDataset::load(file, &start.tokenizer, prompts);
    let (train, held_out) = common.split(dataset, load)?;
    let (tokenizer, seed) = (start.tokenizer.clone(), Some(common.seed));
    let mut method = Ppo::new(config, rewards, tokenizer, reference, &model, train, seed)?
        .with_evaluation(held_out)?;
    let began = Instant::now();
    let train_config = common.train_config(POLICY_RATES);
    let stage = common.manifest(&start, &train_config, &identity);
    let value_stage = value_stage(&args, &start, &stage)?;
    let mut trainer = common
        .trainer(&start, train_config, &mut method, &identity)?
        .with_callback(PolicyWatch::default());
    if !common.full {
        let (stage, value_stage) = (stage.clone(), value_stage.clone());
        let tokenizer = start.own_tokenizer().cloned();
        let save = move |model: &ActorCritic<AutoCausalLm>, folder: &Path| {
            save_adapter(&model.policy, folder, &stage, tokenizer.as_ref(), &[])?;
            save_adapter(&model.value, &folder.join("value"), &value_stage, None, &[])
        };
        trainer = trainer.with_callback(InCheckpoints(save));
    }
    let (model, report) = trainer.fit(model)?;
    common.save(&start, &model.policy, &stage)?;
    let folder = common.output.join("value");
    match common.full {
        true => {
            model
                .value
                .save_pretrained(&folder, &SaveOptions::default())?;
            start.tokenizer.save_pretrained(&folder)?;
            value_stage.save_model(&folder)?;
        }
        false => save_adapter(&model.value, &folder, &value_stage, None, &[])?,
    }
    report_policy(common, &report, method.sampled(), began.elapsed())
}

/// What the value model trains from.
fn value_stage(args: &Args, start: &Start, policy: &StageManifest) -> Result<StageManifest> {
    let mut stage = StageManifest {
        stage: "ppo_value".into(),
        ..policy.clone()
    };
    // The value model has the weights as they are stored.
    stage.settings.remove("base_format");
    if let Some(folder) = &args.value_model {
        let base = folder.display().to_string();
        let name = &stage.stage;
        let begun = StageManifest::begin(name, &base, folder, None, &start.tokenizer)?;
        (stage.base, stage.base_weights) = (begun.base, begun.base_weights);
        stage.previous = begun.previous;
    }
    Ok(stage)
}

/// The value model, with an adapter of its own unless all weights train.
fn value(args: &Args, start: &Start) -> Result<AutoSequenceClassifier> {
    let common = &args.common;
    let weights = match common.full {
        true => Weights::F32,
        false => Weights::Stored,
    };
    let model = match &args.value_model {
        Some(folder) => {
            AutoSequenceClassifier::from_pretrained_with(folder, &start.device, weights)?
        }
        None => {
            let config = ModelConfig::from_pretrained(&start.folder)?;
            let config = SequenceClassifierConfig::new(config, 1);
            let (folder, device) = (&start.folder, &start.device);
            AutoSequenceClassifier::from_causal_lm(folder, &config, common.seed, device, weights)?
        }
    };
    if common.full {
        return Ok(model);
    }
    let settings = json!({
        "r": common.r,
        "lora_alpha": 2 * common.r,
        "modules_to_save": ["score"],
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": args.value_model.as_ref().map_or(common.model.clone(), |folder| folder.display().to_string()),
    });
    let settings = settings.as_object().cloned().unwrap_or_default();
    let lora = ft::peft::method("lora", &settings)?;
    Ok(ft::peft::attach(model, &*lora, "default", common.seed)?)
}
