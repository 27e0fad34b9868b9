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
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::{Parser, ValueEnum};
use ft::burn::optim::GradientsParams;
use ft::burn::tensor::{Int, Tensor, TensorData};
use ft::core::{AutoCausalLm, CausalLm, TokenBatch, Tokenizer, Weights, causal_lm_loss};
use ft::peft::LoraConfig;
use ft::train::{Optim, OptimizerStates, TrainConfig};
use serde_json::json;

#[path = "shared/batches.rs"]
mod batches;

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
    /// The type of the weights: f32, or that of the file, which is the default with LoRA and not supported without it.
    #[arg(long, value_enum)]
    weights: Option<Held>,
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

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Held {
    F32,
    Stored,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        args.steps > 2,
        "--steps must be at least 3: the first two are not timed"
    );
    ft::compute_threads(Some(args.threads));
    let mut device = ft::device(&args.device)?.autodiff();
    if args.recompute {
        device = device.gradient_checkpointing();
    }
    device.seed(0);

    let tokenizer = Tokenizer::from_pretrained(&args.model)?;
    let batches = batches::blocks(&args.data, &tokenizer, args.batch * args.seq, args.steps)?;
    let weights = match (args.mode, args.weights) {
        (Mode::Lora | Mode::Dora, None | Some(Held::Stored)) => Weights::Stored,
        (_, None | Some(Held::F32)) => Weights::F32,
        (Mode::Full, Some(Held::Stored)) => {
            bail!("--mode full trains all weights: they are held in f32")
        }
    };
    let mut model = AutoCausalLm::from_pretrained_with(&args.model, &device, weights)?;
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
    let mut optimizer = OptimizerStates::adamw(&TrainConfig {
        optim: args.optim,
        ..TrainConfig::default()
    });

    let (mut times, mut losses) = (Vec::new(), Vec::new());
    for ids in &batches {
        let start = Instant::now();
        let data = TensorData::new(ids.clone(), [args.batch, args.seq]);
        let input_ids = Tensor::<2, Int>::from_data(data, &device);
        let hidden = model.hidden_states(&TokenBatch::new(input_ids), None);
        let loss = causal_lm_loss(hidden, model.head(), ids);
        let scale = 1.0 / loss.count as f64;
        let grads = GradientsParams::from_grads(loss.sum.backward(), &model);
        model = optimizer.step(model, grads, args.lr, scale);
        device.sync()?;
        times.push(start.elapsed().as_secs_f64());
        losses.push(loss.sum.into_scalar::<f64>() * scale);
    }
    let timed = &mut times[2..];
    timed.sort_by(f64::total_cmp);
    let median = (timed[timed.len() / 2] + timed[(timed.len() - 1) / 2]) / 2.0;
    let round = |x: f64, digits: i32| (x * 10f64.powi(digits)).round() / 10f64.powi(digits);
    let line = json!({
        "peer": concat!("ft ", env!("CARGO_PKG_VERSION")),
        "mode": match args.mode {
            Mode::Lora => "lora",
            Mode::Dora => "dora",
            Mode::Full => "full",
        },
        "dtype": "float32",
        "weights": if weights == Weights::F32 { "f32" } else { "stored" },
        "batch": args.batch,
        "seq": args.seq,
        "dropout": args.dropout,
        "recompute": args.recompute,
        "optim": args.optim.to_string(),
        "trainable": trainable,
        "tokens_per_s": round((args.batch * args.seq) as f64 / median, 1),
        "peak_rss_mb": ft::peak_rss_mb(),
        "losses": losses.iter().map(|loss| round(*loss, 5)).collect::<Vec<_>>(),
    });
    println!("{line}");
    Ok(())
}
