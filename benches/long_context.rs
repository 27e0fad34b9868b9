//! Time and memory of one LoRA step on one long sequence, length by length; prints a JSON line each.
//!
//! Every length runs in a separate process, whose peak memory is measured. With `--limit-mb` the lengths double until
//! one takes more. Then the largest length below the limit is searched between the last two, to 256 tokens.
//!
//! ```sh
//! cargo bench --bench long_context -- --model DIR --data alpaca.json --lengths 1024,2048,4096
//! cargo bench --bench long_context -- --model DIR --data alpaca.json --limit-mb 4000 --recompute
//! ```

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::burn::optim::GradientsParams;
use ft::burn::tensor::{Int, Tensor, TensorData};
use ft::core::{AutoCausalLm, CausalLm, TokenBatch, Tokenizer, Weights, causal_lm_loss};
use ft::peft::LoraConfig;
use ft::train::{OptimizerStates, TrainConfig};
use serde_json::{Value, json};

#[path = "shared/batches.rs"]
mod batches;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    data: PathBuf,
    #[arg(long, value_delimiter = ',', default_values_t = [1024, 2048, 4096, 8192])]
    lengths: Vec<usize>,
    /// Search for the longest sequence whose step takes at most this many megabytes.
    #[arg(long)]
    limit_mb: Option<u64>,
    /// Compute each block again in the backward pass instead of keeping its activations.
    #[arg(long)]
    recompute: bool,
    /// Keep the weights in the type of the file.
    #[arg(long)]
    stored: bool,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// One step of this length, in this process.
    #[arg(long, hide = true)]
    one: Option<usize>,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    match (args.one, args.limit_mb) {
        (Some(length), _) => println!("{}", step(&args, length)?),
        (None, Some(limit)) => println!("{}", longest(&args, limit)?),
        (None, None) => {
            for &length in &args.lengths {
                println!("{}", in_a_process(&args, length)?);
            }
        }
    }
    Ok(())
}

fn longest(args: &Args, limit_mb: u64) -> Result<Value> {
    let fits = |length: usize| -> Result<bool> {
        let line = in_a_process(args, length)?;
        eprintln!("{line}");
        Ok(line["peak_rss_mb"]
            .as_u64()
            .is_some_and(|mb| mb <= limit_mb))
    };
    let mut fitting = 256;
    ensure!(
        fits(fitting)?,
        "not even {fitting} tokens take {limit_mb} MB"
    );
    let mut too_long = 2 * fitting;
    while fits(too_long)? {
        fitting = too_long;
        too_long *= 2;
    }
    while too_long - fitting > 256 {
        let middle = (fitting + too_long) / 512 * 256;
        match fits(middle)? {
            true => fitting = middle,
            false => too_long = middle,
        }
    }
    Ok(json!({
        "limit_mb": limit_mb,
        "recompute": args.recompute,
        "stored": args.stored,
        "longest": fitting,
    }))
}

fn in_a_process(args: &Args, length: usize) -> Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--model").arg(&args.model);
    command.arg("--data").arg(&args.data);
    command.args(["--threads", &args.threads.to_string()]);
    command.args(["--one", &length.to_string()]);
    command.args(args.recompute.then_some("--recompute"));
    command.args(args.stored.then_some("--stored"));
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    ensure!(
        output.status.success(),
        "the step of {length} tokens failed"
    );
    let text = String::from_utf8(output.stdout)?;
    serde_json::from_str(text.trim()).context("a step prints one JSON line")
}

fn step(args: &Args, length: usize) -> Result<Value> {
    ft::compute_threads(Some(args.threads));
    let mut device = ft::device("cpu")?.autodiff();
    if args.recompute {
        device = device.gradient_checkpointing();
    }
    let tokenizer = Tokenizer::from_pretrained(&args.model)?;
    let ids = batches::blocks(&args.data, &tokenizer, length, 1)?;
    let weights = if args.stored {
        Weights::Stored
    } else {
        Weights::F32
    };
    let model = AutoCausalLm::from_pretrained_with(&args.model, &device, weights)?;
    let config = LoraConfig {
        r: 16,
        lora_alpha: 32.0,
        ..LoraConfig::default()
    };
    let model = ft::peft::attach(model, &config, "default", 0)?;
    let mut optimizer = OptimizerStates::adamw(&TrainConfig::default());

    let start = Instant::now();
    let data = TensorData::new(ids[0].clone(), [1, length]);
    let input_ids = Tensor::<2, Int>::from_data(data, &device);
    let hidden = model.hidden_states(&TokenBatch::new(input_ids), None);
    let loss = causal_lm_loss(hidden, model.head(), &ids[0]);
    let mean = loss.sum / loss.count as f64;
    let value = mean.clone().into_scalar::<f64>();
    let grads = GradientsParams::from_grads(mean.backward(), &model);
    optimizer.step(model, grads, 2e-4, 1.0);
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({
        "length": length,
        "recompute": args.recompute,
        "stored": args.stored,
        "tokens_per_s": (length as f64 / seconds).round(),
        "peak_rss_mb": ft::peak_rss_mb(),
        "loss": value,
    }))
}
