//! Time, memory, losses and margins of preference steps on fixed batches; prints one JSON line.
//!
//! The batches are those of the peer's script: rows of a LLaMA-Factory preference file in file order, prompt and answers
//! through the chat template, with all that it writes after the answer learnt, cut on the right to `seq` tokens; a row whose
//! prompt alone is as long is left out. `tokens_per_s` counts the tokens of prompts and answers as if each answer had its
//! own prompt, without padding, by the median of the steps after the first two.
//!
//! ```sh
//! cargo bench --bench dpo_step -- --model DIR --data dpo.json
//! ```

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::align::loss::{PairLosses, PairSettings};
use ft::align::{Dpo, DpoConfig, Reference};
use ft::core::{IGNORE_INDEX, Message, Tokenizer};
use ft::data::{PreferenceDataset, PreferenceExample, Tokenized};
use ft::kernels::{Precision, set_precision};
use ft::peft::LoraConfig;
use serde_json::{Value, json};

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
    /// Pairs.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    #[arg(long, default_value_t = 256)]
    seq: usize,
    #[arg(long, default_value_t = 8)]
    steps: usize,
    #[arg(long = "loss_type", default_value = "sigmoid")]
    loss_type: PairLosses,
    #[arg(long, default_value_t = 0.1)]
    beta: f64,
    #[arg(long = "label_smoothing", default_value_t = 0.0)]
    label_smoothing: f64,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 5e-5)]
    lr: f64,
    /// Compute each block again in the backward pass.
    #[arg(long)]
    recompute: bool,
    /// Folder of the adapter to start from, such as the one that the peer saved.
    #[arg(long)]
    adapter: Option<PathBuf>,
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
    let pairs = pairs(&args, &tokenizer)?;
    let real: Vec<usize> = pairs
        .chunks(args.batch)
        .map(|pairs| {
            pairs
                .iter()
                .map(|pair| pair.chosen.len() + pair.rejected.len())
                .sum()
        })
        .collect();

    let base = args.weights.load(&args.model, &device)?;
    let mut model = match &args.adapter {
        Some(folder) => ft::peft::load_adapter(base, folder, "default", true)?,
        None => {
            let config = LoraConfig {
                r: 16,
                lora_alpha: 32.0,
                ..LoraConfig::default()
            };
            ft::peft::attach(base, &config, "default", 0)?
        }
    };
    let config = DpoConfig {
        losses: args.loss_type.clone(),
        settings: PairSettings {
            beta: args.beta,
            label_smoothing: args.label_smoothing,
            ..PairSettings::default()
        },
        ..DpoConfig::default()
    };
    let dataset = PreferenceDataset::from_examples(pairs);
    let mut method = Dpo::new(
        config,
        Reference::AdaptersOff,
        &model,
        dataset,
        args.batch,
        None,
    )?;
    let mut stepper = Stepper::new(&device, args.lr);
    let loaded = ft::peak_rss_mb();
    let (mut times, mut reference_times) = (Vec::new(), Vec::new());
    let (mut losses, mut margins, mut accuracies) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.steps {
        let step;
        (model, step) = stepper.step(&mut method, model)?;
        reference_times.push(step.batch_s);
        times.push(step.all_s);
        losses.push(round(step.loss, 5));
        margins.push(round(step.metric("rewards/margins")?, 5));
        accuracies.push(round(step.metric("rewards/accuracies")?, 5));
    }
    let step = median(&times);
    let mean = real[2..].iter().sum::<usize>() as f64 / (real.len() - 2) as f64;
    let line = json!({
        "peer": concat!("ft ", env!("CARGO_PKG_VERSION")),
        "matmul_precision": args.matmul_precision.to_string(),
        "loss_type": args.loss_type.to_string(),
        "beta": args.beta,
        "batch": args.batch,
        "seq": args.seq,
        "recompute": args.recompute,
        "trainable": ft::peft::trainable_parameters(&model).0,
        "tokens_per_s": round(mean / step, 1),
        "seconds": {"reference": round(median(&reference_times), 3), "step": round(step, 3)},
        "tokens": real,
        "loaded_rss_mb": loaded,
        "weights": args.weights.to_string(),
        "peak_rss_mb": ft::peak_rss_mb(),
        "losses": losses,
        "rewards/margins": margins,
        "rewards/accuracies": accuracies,
    });
    println!("{line}");
    Ok(())
}

/// The pairs of all steps.
fn pairs(args: &Args, tokenizer: &Tokenizer) -> Result<Vec<PreferenceExample>> {
    let text = std::fs::read_to_string(&args.data)?;
    let rows: Vec<Value> = serde_json::from_str(&text)?;
    let message = |turn: &Value| -> Result<Message> {
        let role = match turn["from"].as_str() {
            Some("human") => "user",
            Some("gpt") => "assistant",
            Some("system") => "system",
            _ => anyhow::bail!("a turn of an unknown speaker"),
        };
        Ok(Message::new(
            role,
            turn["value"].as_str().context("a turn without text")?,
        ))
    };
    let mut pairs = Vec::new();
    for row in &rows {
        let turns = row["conversations"]
            .as_array()
            .context("a row without conversations")?;
        let prompt = turns.iter().map(message).collect::<Result<Vec<_>>>()?;
        let ids = |messages: &[Message], generation_prompt: bool| -> Result<Vec<u32>> {
            let text = tokenizer.apply_chat_template(messages, None, generation_prompt)?;
            Ok(tokenizer.encode(&text, false)?)
        };
        let start = ids(&prompt, true)?.len();
        if start >= args.seq {
            continue;
        }
        let side = |name: &str| -> Result<Tokenized> {
            let mut messages = prompt.clone();
            messages.push(message(&row[name])?);
            let mut input_ids = ids(&messages, false)?;
            input_ids.truncate(args.seq);
            let labels = input_ids
                .iter()
                .enumerate()
                .map(|(at, &id)| match at < start {
                    true => IGNORE_INDEX,
                    false => i64::from(id),
                });
            Ok(Tokenized {
                labels: labels.collect(),
                input_ids,
            })
        };
        pairs.push(PreferenceExample {
            chosen: side("chosen")?,
            rejected: side("rejected")?,
            reference_logps: None,
            margin: 0.0,
        });
        if pairs.len() == args.batch * args.steps {
            return Ok(pairs);
        }
    }
    anyhow::bail!(
        "only {} rows fit, {} are needed",
        pairs.len(),
        args.batch * args.steps
    )
}
