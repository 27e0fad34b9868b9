//! Time, memory and losses of training an embedding model on pairs; prints one JSON line.
//!
//! Step `s` has the rows `s · batch` to `(s + 1) · batch` of an Alpaca file in their order: the anchor is `instruction`, the
//! document `output`, each cut at `--seq` tokens. The loss is the cross-entropy of `20 · cosine` over the documents of the batch.
//!
//! ```sh
//! cargo bench --bench embed_step -- --model all-MiniLM-L6-v2 --data alpaca.json
//! ```

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Parser;
use ft::core::Weights;
use ft::embed::{EmbeddingModel, EmbeddingTraining, EmbeddingTrainingConfig, TextDataset, TextRow};
use ft::kernels::{Precision, set_precision};
use serde_json::json;

#[path = "shared/alpaca.rs"]
mod alpaca;
#[path = "shared/method_step.rs"]
mod method_step;
use method_step::{Stepper, Steps, round};

#[derive(Parser)]
struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    data: PathBuf,
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Embed so many texts at a time, and again in the backward pass.
    #[arg(long)]
    mini_batch: Option<usize>,
    #[arg(long, default_value_t = 128)]
    seq: usize,
    #[arg(long, default_value_t = 8)]
    steps: usize,
    #[arg(long, default_value_t = 2e-5)]
    lr: f64,
    #[arg(long, default_value_t = 2)]
    threads: usize,
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
    let device = ft::device("cpu")?.autodiff();
    device.seed(0);
    let model = EmbeddingModel::from_pretrained_with(&args.model, &device, Weights::F32)?;
    let model = model.with_max_seq_length(args.seq)?;
    let rows = alpaca::rows(&args.data)?.into_iter();
    let rows = rows.take(args.batch * args.steps);
    let rows = rows.map(|[instruction, _, output]| TextRow {
        texts: vec![instruction, output],
        labels: Vec::new(),
    });
    let config = EmbeddingTrainingConfig {
        mini_batch: args.mini_batch,
        keep_duplicates: true,
        ..EmbeddingTrainingConfig::default()
    };
    let dataset = TextDataset::new(rows.collect())?;
    ensure!(
        dataset.len() == args.batch * args.steps,
        "{} has only {} rows",
        args.data.display(),
        dataset.len()
    );
    let mut method = EmbeddingTraining::new(config, &model, &[dataset], args.batch, None)?;
    let mut stepper = Stepper::new(&device, args.lr);
    let loaded_rss_mb = ft::peak_rss_mb();
    let Steps { seconds, losses } = stepper.steps(&mut method, model, args.steps)?;
    let line = json!({
        "peer": concat!("ft ", env!("CARGO_PKG_VERSION")),
        "matmul_precision": args.matmul_precision.to_string(),
        "batch": args.batch,
        "seq": args.seq,
        "lr": args.lr,
        "pairs_per_s": round((args.batch * (args.steps - 2)) as f64 / seconds, 2),
        "loaded_rss_mb": loaded_rss_mb,
        "peak_rss_mb": ft::peak_rss_mb(),
        "losses": losses,
    });
    println!("{line}");
    Ok(())
}
