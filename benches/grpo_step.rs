//! Time and memory of GRPO steps, sampling and update apart; prints one JSON line.
//!
//! What is sampled differs from program to program, its amount does not: prompts are rows of an Alpaca file in file order,
//! `instruction` or `instruction\ninput` as one user message; rows with more than `prompt_tokens` ids are left out. Each of
//! the `prompts` of a step has `generations` completions of exactly `new_tokens` tokens, at temperature 1. The reward is the
//! share of the letter `e`. One update a step, LoRA of rank 16 on all linear layers. Seconds are medians of the steps after
//! the first two.
//!
//! ```sh
//! cargo bench --bench grpo_step -- --model DIR --data alpaca.json
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use clap::Parser;
use ft::align::loss::PolicyLoss;
use ft::align::reward::{Reward, WeightedSum, from_fn};
use ft::align::{Grpo, GrpoConfig, Reference};
use ft::core::{GenerationConfig, Message, Tokenizer};
use ft::data::{Prompt, PromptDataset, PromptSample};
use ft::kernels::{Precision, set_precision};
use ft::peft::LoraConfig;
use serde_json::{Map, Value, json};

#[path = "shared/held.rs"]
mod held;
use held::Held;

#[path = "shared/method_step.rs"]
mod method_step;
use method_step::{Stepper, median, round};

#[derive(Parser)]
struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    data: PathBuf,
    #[arg(long, default_value_t = 4)]
    prompts: usize,
    /// Completions of each prompt.
    #[arg(long, default_value_t = 4)]
    generations: usize,
    #[arg(long = "new_tokens", default_value_t = 64)]
    new_tokens: usize,
    #[arg(long = "prompt_tokens", default_value_t = 128)]
    prompt_tokens: usize,
    #[arg(long, default_value_t = 5)]
    steps: usize,
    #[arg(long = "loss_type", default_value = "dapo")]
    loss_type: PolicyLoss,
    #[arg(long, default_value_t = 0.0)]
    beta: f64,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 5e-5)]
    lr: f64,
    /// Compute each block again in the backward pass.
    #[arg(long)]
    recompute: bool,
    /// The type of the frozen weights: f32, stored (that of the file), or a packed format, such as int8 or nf4.
    #[arg(long, default_value_t = Held::Stored)]
    weights: Held,
    /// Of matrix products: f32 or bf16.
    #[arg(long, default_value_t)]
    matmul_precision: Precision,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        args.steps > 2,
        "--steps must be at least 3: the first two are not timed"
    );
    ft::compute_threads(Some(args.threads));
    let possible = set_precision(args.matmul_precision);
    anyhow::ensure!(possible, "this processor has no instructions for bf16");
    let mut device = ft::device("cpu")?.autodiff();
    if args.recompute {
        device = device.gradient_checkpointing();
    }
    device.seed(0);
    let tokenizer = Tokenizer::from_pretrained(&args.model)?;
    let prompts = prompts(&args, &tokenizer)?;
    let prompt_tokens: Vec<usize> = (prompts.examples.chunks(args.prompts))
        .map(|prompts| {
            let tokens: usize = prompts.iter().map(|prompt| prompt.input_ids.len()).sum();
            tokens * args.generations
        })
        .collect();

    let base = args.weights.load(&args.model, &device)?;
    let lora = LoraConfig {
        r: 16,
        lora_alpha: 32.0,
        ..LoraConfig::default()
    };
    let mut model = ft::peft::attach(base, &lora, "default", 0)?;
    let config = GrpoConfig {
        loss: args.loss_type,
        beta: args.beta,
        num_generations: args.generations,
        prompts_per_batch: args.prompts,
        generation: GenerationConfig {
            max_new_tokens: args.new_tokens,
            temperature: 1.0,
            // None of the vocabulary: every completion has the full length.
            eos_token_ids: vec![u32::MAX],
            ..GenerationConfig::default()
        },
        ..GrpoConfig::default()
    };
    let share_of_e = from_fn("share_of_e", |completion| {
        let count = completion.text.chars().count();
        let e = completion.text.chars().filter(|&c| c == 'e').count();
        Ok(Some(e as f64 / count.max(1) as f64))
    });
    let share_of_e: Arc<dyn Reward> = Arc::new(share_of_e);
    let rewards = WeightedSum::new([(share_of_e, 1.0)])?;
    let reference = Some(Reference::AdaptersOff);
    let mut method = Grpo::new(config, rewards, tokenizer, reference, &model, prompts, None)?;
    let mut stepper = Stepper::new(&device, args.lr);
    let loaded = ft::peak_rss_mb();
    let (mut generation, mut other, mut update, mut all) = (vec![], vec![], vec![], vec![]);
    let (mut losses, mut rewards) = (Vec::new(), Vec::new());
    for _ in 0..args.steps {
        let earlier = method.sampled().generation;
        let step;
        (model, step) = stepper.step(&mut method, model)?;
        let sampling = (method.sampled().generation - earlier).as_secs_f64();
        generation.push(sampling);
        other.push(step.batch_s - sampling);
        update.push(step.all_s - step.batch_s);
        all.push(step.all_s);
        losses.push(round(step.loss, 6));
        rewards.push(round(step.metric("reward")?, 5));
    }
    let [generation, other, update, all] =
        [generation, other, update, all].map(|times| round(median(&times), 3));
    let sampled = args.prompts * args.generations * args.new_tokens;
    let line = json!({
        "peer": concat!("ft ", env!("CARGO_PKG_VERSION")),
        "matmul_precision": args.matmul_precision.to_string(),
        "loss_type": args.loss_type.to_string(),
        "beta": args.beta,
        "prompts": args.prompts,
        "generations": args.generations,
        "new_tokens": args.new_tokens,
        "recompute": args.recompute,
        "trainable": ft::peft::trainable_parameters(&model).0,
        "seconds": {"generation": generation, "update": update, "other": other, "step": all},
        "completions_tokens_per_s": round(sampled as f64 / generation, 1),
        "steps_per_hour": round(3600.0 / all, 1),
        "prompt_tokens": prompt_tokens,
        "loaded_rss_mb": loaded,
        "weights": args.weights.to_string(),
        "peak_rss_mb": ft::peak_rss_mb(),
        "losses": losses,
        "rewards": rewards,
    });
    println!("{line}");
    Ok(())
}

/// The prompts of all steps.
fn prompts(args: &Args, tokenizer: &Tokenizer) -> Result<PromptDataset> {
    let text = std::fs::read_to_string(&args.data)?;
    let rows: Vec<Value> = serde_json::from_str(&text)?;
    let samples = rows.iter().map(|row| {
        let parts =
            [&row["instruction"], &row["input"]].map(|part| part.as_str().unwrap_or_default());
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        PromptSample {
            prompt: Prompt::Messages(vec![Message::new("user", parts.join("\n"))]),
            tools: None,
            columns: Map::new(),
        }
    });
    let mut all = PromptDataset::from_samples(samples.collect(), tokenizer, args.prompt_tokens)?;
    let needed = args.prompts * args.steps;
    ensure!(
        all.len() >= needed,
        "only {} rows fit, {needed} are needed",
        all.len()
    );
    all.examples.truncate(needed);
    Ok(all)
}
