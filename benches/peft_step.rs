//! Time, memory and losses of steps of one adapter method on the batches of `sft_step`; prints one JSON line.
//!
//! The settings of a method are those of the peer's script `peft_step.py`. Methods that begin as a no-op have its loss of
//! the first step. Others begin at random: `--adapter` gives the folder that the peer wrote with `--save-start`.
//!
//! ```sh
//! cargo bench --bench peft_step -- --model DIR --data alpaca.json --method dora
//! ```

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::core::{AutoCausalLm, CausalLm, Tokenizer, Weights};
use ft::kernels::{Precision, set_precision};
use ft::peft;
use ft::train::Optim;
use serde_json::{Value, json};

#[path = "shared/batches.rs"]
mod batches;
#[path = "shared/steps.rs"]
mod steps;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    data: PathBuf,
    /// A name of the list below.
    #[arg(long)]
    method: String,
    /// Begin with this adapter instead of a new one.
    #[arg(long)]
    adapter: Option<PathBuf>,
    #[arg(long, default_value_t = 4)]
    batch: usize,
    #[arg(long, default_value_t = 256)]
    seq: usize,
    #[arg(long, default_value_t = 8)]
    steps: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Instead of the method's own learning rate.
    #[arg(long)]
    lr: Option<f64>,
    /// Compute each block again in the backward pass instead of keeping its activations.
    #[arg(long)]
    recompute: bool,
    /// Hold the weights in f32 instead of the file's type.
    #[arg(long)]
    wide: bool,
    /// cpu, cuda, wgpu, vulkan or metal.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Of matrix products: f32 or bf16.
    #[arg(long, default_value_t)]
    matmul_precision: Precision,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The methods: settings in PEFT's names, and the learning rate, for a run of so many steps.
fn settings(method: &str, steps: usize) -> Option<(&'static str, Value, f64)> {
    let all = json!("all-linear");
    Some(match method {
        "lora" => ("lora", json!({"r": 16, "lora_alpha": 32}), 2e-4),
        "dora" => ("dora", json!({"r": 16, "lora_alpha": 32}), 2e-4),
        "ia3" => ("ia3", json!({}), 3e-3),
        "vera" => ("vera", json!({"r": 256, "target_modules": all}), 4e-3),
        "loha" => (
            "loha",
            json!({"r": 16, "alpha": 32, "target_modules": all}),
            2e-4,
        ),
        "lokr" => (
            "lokr",
            json!({"r": 16, "alpha": 32, "target_modules": all}),
            2e-4,
        ),
        "oft" => (
            "oft",
            json!({"oft_block_size": 32, "target_modules": all}),
            2e-4,
        ),
        "boft" => ("boft", json!({"target_modules": all}), 2e-4),
        "hra" => ("hra", json!({"target_modules": all}), 2e-4),
        "miss" => ("miss", json!({"r": 64, "target_modules": all}), 2e-4),
        "fourierft" => ("fourierft", json!({"target_modules": all}), 3e-2),
        "adalora" => (
            "adalora",
            json!({"init_r": 24, "target_r": 16, "lora_alpha": 32, "tinit": 1, "tfinal": 1, "total_step": steps,
                "target_modules": all}),
            2e-4,
        ),
        "ln_tuning" => ("ln_tuning", json!({}), 1e-3),
        "prefix" => ("prefix", json!({"num_virtual_tokens": 32}), 3e-3),
        "prompt" => ("prompt", json!({"num_virtual_tokens": 32}), 3e-2),
        "bitfit" => ("bitfit", json!({}), 1e-3),
        _ => return None,
    })
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
    let mut device = ft::device(&args.device)?.autodiff();
    if args.recompute {
        device = device.gradient_checkpointing();
    }
    device.seed(0);

    let tokenizer = Tokenizer::from_pretrained(&args.model)?;
    let batches = batches::blocks(&args.data, &tokenizer, args.batch * args.seq, args.steps)?;
    let weights = match args.wide {
        true => Weights::F32,
        false => Weights::Stored,
    };
    let model = AutoCausalLm::from_pretrained_with(&args.model, &device, weights)?;
    tokenizer.check_vocab(model.dims().vocab_size)?;
    model.dims().check_length(args.seq)?;
    let (name, json, lr) = settings(&args.method, args.steps)
        .with_context(|| format!("no method is called {:?}", args.method))?;
    let model = match &args.adapter {
        Some(folder) => peft::load_adapter(model, folder, "default", true)?,
        None => {
            let json = json.as_object().cloned().unwrap_or_default();
            peft::attach(model, &*peft::method(name, &json)?, "default", 0)?
        }
    };
    let (trainable, _) = peft::trainable_parameters(&model);
    let ranks = match args.method.as_str() {
        "adalora" => Some(peft::RankAllocator::new(&model, "default")?),
        _ => None,
    };
    let steps = steps::run(
        model,
        &batches,
        [args.batch, args.seq],
        (Optim::AdamW, args.lr.unwrap_or(lr)),
        ranks,
        &device,
    )?;
    let line = json!({
        "peer": concat!("ft ", env!("CARGO_PKG_VERSION")),
        "method": args.method,
        "weights": if args.wide { "f32" } else { "stored" },
        "batch": args.batch,
        "seq": args.seq,
        "recompute": args.recompute,
        "trainable": trainable,
        "tokens_per_s": steps.tokens_per_s,
        "peak_rss_mb": ft::peak_rss_mb(),
        "losses": steps.losses,
    });
    println!("{line}");
    Ok(())
}
