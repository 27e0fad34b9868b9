//! Time, memory and losses of fine-tuning steps on fixed batches; prints one JSON line.
//!
//! The batches are the same for all programs of the comparison: the rows of an Alpaca file as
//! `instruction\ninput\noutput`, tokenized, with an end-of-text token after each row, joined and cut into batch × seq
//! blocks; labels = inputs. `tokens_per_s` is the median of the steps after the first two.
//!
//! ```sh
//! cargo bench --bench sft_step -- --model DIR --data alpaca.json --mode lora
//! ```

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::{Parser, ValueEnum};
use ft::core::{CausalLm, Tokenizer};
use ft::kernels::{Precision, set_precision};
use ft::peft::LoraConfig;
use ft::train::Optim;
use serde_json::json;

#[path = "shared/batches.rs"]
mod batches;
#[path = "shared/held.rs"]
mod held;
use held::Held;

#[path = "shared/steps.rs"]
mod steps;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    data: PathBuf,
    #[arg(long, default_value_t = 4)]
    batch: usize,
    #[arg(long, default_value_t = 256)]
    seq: usize,
    #[arg(long, default_value_t = 8)]
    steps: usize,
    #[arg(long, value_enum, default_value_t = Mode::Lora)]
    mode: Mode,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 2e-4)]
    lr: f64,
    /// adamw or adamw-8bit.
    #[arg(long, default_value_t = Optim::AdamW)]
    optim: Optim,
    /// Dropout of LoRA.
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// Compute each block again in the backward pass instead of keeping its activations.
    #[arg(long)]
    recompute: bool,
    /// cpu, cuda, wgpu, vulkan or metal.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// The type of the frozen weights: f32, stored (that of the file), which is the default with LoRA, or a packed format, such as
    /// int8 or nf4. Without LoRA it is f32.
    #[arg(long)]
    weights: Option<Held>,
    /// Of matrix products: f32 or bf16.
    #[arg(long, default_value_t)]
    matmul_precision: Precision,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    Lora,
    /// LoRA with `use_dora`.
    Dora,
    Full,
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
    let held = match (args.mode, args.weights) {
        (Mode::Full, None) => Held::F32,
        (_, None) => Held::Stored,
        (Mode::Full, Some(held)) if held != Held::F32 => {
            bail!("--mode full trains all weights: they are held in f32")
        }
        (_, Some(held)) => held,
    };
    let mut model = held.load(&args.model, &device)?;
    tokenizer.check_vocab(model.dims().vocab_size)?;
    model.dims().check_length(args.seq)?;
    if args.mode != Mode::Full {
        let config = LoraConfig {
            r: 16,
            lora_alpha: 32.0,
            lora_dropout: args.dropout,
            use_dora: args.mode == Mode::Dora,
            ..LoraConfig::default()
        };
        model = ft::peft::attach(model, &config, "default", 0)?;
    }
    let (trainable, _) = ft::peft::trainable_parameters(&model);
    let steps = steps::run(
        model,
        &batches,
        [args.batch, args.seq],
        (args.optim, args.lr),
        None,
        &device,
    )?;
    let line = json!({
        "peer": concat!("ft ", env!("CARGO_PKG_VERSION")),
        "matmul_precision": args.matmul_precision.to_string(),
        "mode": match args.mode {
            Mode::Lora => "lora",
            Mode::Dora => "dora",
            Mode::Full => "full",
        },
        "dtype": "float32",
        "weights": held.to_string(),
        "batch": args.batch,
        "seq": args.seq,
        "dropout": args.dropout,
        "recompute": args.recompute,
        "optim": args.optim.to_string(),
        "trainable": trainable,
        "tokens_per_s": steps.tokens_per_s,
        "peak_rss_mb": ft::peak_rss_mb(),
        "losses": steps.losses,
    });
    println!("{line}");
    Ok(())
}
