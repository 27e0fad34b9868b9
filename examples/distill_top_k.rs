//! How many of a teacher's likeliest tokens a distillation without the teacher needs: their size on disk, and what they leave
//! out of the divergence.
//!
//! ```sh
//! cargo run --release --example distill_top_k -- --teacher DIR --student layers:0,2,4,6 --data chats.jsonl
//! ```
//!
//! All tokens that are not written count as one outcome. Joining outcomes never raises a divergence, so that of `k` tokens is a
//! lower bound, which rises with `k` to that of all tokens.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::burn::tensor::Device;
use ft::core::{AutoCausalLm, CausalLm, HubOptions, Tokenizer, Weights, resolve};
use ft::data::{Batches, Collation, Format, SftBatches, SftDataset};
use ft::distill::{
    Distill, DistillConfig, Divergence, TeacherSource, student_of, write_top_logits,
};
use ft::train::{Method, ModelView, StepContext};
use serde_json::json;

/// Divergences from a teacher's likeliest tokens.
#[derive(Parser)]
struct Args {
    /// Model folder of the teacher, or hub id (needs --features hub).
    #[arg(long)]
    teacher: String,
    /// Model folder, or `layers:0,2,4` for these layers of the teacher.
    #[arg(long)]
    student: String,
    /// JSON or JSONL file.
    #[arg(long)]
    data: PathBuf,
    /// alpaca, sharegpt, messages or prompt_completion; without it, by the columns of the first row.
    #[arg(long)]
    format: Option<Format>,
    /// How many tokens.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64,256")]
    k: Vec<usize>,
    /// The temperature of both distributions.
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// How many rows are read.
    #[arg(long, default_value_t = 64)]
    rows: usize,
    /// Rows are cut at this length.
    #[arg(long, default_value_t = 512)]
    seq_len: usize,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let device = ft::device("cpu")?;
    let folder = resolve(&args.teacher, &HubOptions::from_env())?;
    let tokenizer = Tokenizer::from_pretrained(&folder)?;
    let format = match args.format {
        Some(format) => format,
        None => Format::of_file(&args.data)?,
    };
    let mut dataset = SftDataset::load(&args.data, format, &tokenizer, args.seq_len)?;
    dataset.examples.truncate(args.rows);
    let teacher = AutoCausalLm::from_pretrained_with(&folder, &device, Weights::Stored)?;
    tokenizer.check_vocab(teacher.dims().vocab_size)?;
    let student = match args.student.strip_prefix("layers:") {
        None => AutoCausalLm::from_pretrained(args.student.as_ref(), &device)?,
        Some(layers) => {
            let layers = layers.split(',').map(|layer| layer.trim().parse());
            let layers = layers.collect::<Result<Vec<usize>, _>>();
            student_of(&teacher, &layers.context("--student: layers are numbers")?)?
        }
    };
    let config = DistillConfig {
        divergence: Divergence::Forward,
        temperature: args.temperature,
        alpha: 1.0,
        cosine: 0.0,
        layers: 0.0,
    };
    let batches = || -> Result<SftBatches> {
        let padded = Collation::Padded { multiple: 1 };
        let rows = SftDataset::from_examples(dataset.examples.clone());
        Ok(rows.into_batches(4, padded, None, 0)?)
    };
    let measure = |source| divergence(config, source, &student, batches()?, &device);
    let whole = measure(TeacherSource::model(&teacher))?;

    let scratch = tempfile::tempdir()?;
    let mut table = Vec::new();
    println!(
        "| k | bytes a token | left out of the probability | divergence | below that of all tokens |"
    );
    println!("|---|---|---|---|---|");
    for &k in &args.k {
        let folder = scratch.path().join(k.to_string());
        let rows = &dataset.examples;
        let top = write_top_logits(
            &teacher,
            rows,
            k,
            args.temperature,
            4,
            &folder,
            &mut |_, _| {},
        )?;
        let (rest, positions) = (top.mean_rest(), top.positions());
        let mut bytes = 0;
        for file in std::fs::read_dir(&folder)? {
            bytes += file?.metadata()?.len();
        }
        let bytes = bytes as f64 / positions as f64;
        let found = measure(TeacherSource::Top(top.into()))?;
        ensure!(
            found < whole + 1e-4,
            "{found} of {k} tokens is above {whole} of all"
        );
        let below = whole - found;
        println!(
            "| {k} | {bytes:.0} | {:.2}% | {found:.4} | {below:.4} ({:.1}%) |",
            100.0 * rest,
            100.0 * below / whole
        );
        table.push(json!({"k": k, "bytes": bytes, "rest": rest, "divergence": found}));
    }
    println!("| all | | | {whole:.4} | |");
    if args.json {
        println!(
            "{}",
            json!({"rows": table, "divergence": whole, "peak_rss_mb": ft::peak_rss_mb()})
        );
    }
    Ok(())
}

/// The mean divergence of a student from its teacher, in nats a token.
fn divergence(
    config: DistillConfig,
    source: TeacherSource<AutoCausalLm>,
    student: &AutoCausalLm,
    batches: SftBatches,
    device: &Device,
) -> Result<f64> {
    let count = batches.len(0);
    let mut method = Distill::new(config, source, student, batches)?;
    let (mut sum, mut positions) = (0.0, 0.0);
    for index in 0..count {
        let context = StepContext::training(device, 0, index + 1, 0);
        let batch = method.batch(&ModelView::new(student), 0, index, &context);
        let batch = batch.map_err(anyhow::Error::from_boxed)?;
        let output = method.step(student, &batch, &context);
        let output = output.map_err(anyhow::Error::from_boxed)?;
        let metric = output
            .metrics
            .iter()
            .find(|metric| metric.name == "divergence");
        let metric = metric.context("a batch has no position that is learned")?;
        sum += metric.sum.value();
        positions += metric.weight;
    }
    Ok(sum / positions)
}
