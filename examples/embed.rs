//! Texts to embeddings, in a file for NumPy.
//!
//! ```sh
//! cargo run --release --example embed -- --model all-MiniLM-L6-v2 --texts texts.txt --output texts.npy
//! ```
//!
//! `--texts` is a file with a text a line, or a JSON list of texts, or JSONL or a JSON list of rows with `--columns`, whose
//! texts follow each other row by row. `--prompt` names a prompt of the model. `--weights int8` computes the linear layers by
//! products of integers.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::burn::module::Module;
use ft::core::{HubOptions, Weights, resolve};
use ft::embed::{EmbeddingModel, EncodeOptions, Prompt};
use ft::kernels::PackedFormat;
use serde_json::{Value, json};

#[path = "shared/computation.rs"]
mod computation;
use computation::Computation;

/// Texts to embeddings.
#[derive(Parser)]
struct Args {
    /// Model folder of sentence-transformers, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// The texts.
    #[arg(long)]
    texts: PathBuf,
    /// Columns of rows, separated by commas.
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    /// Only the first texts.
    #[arg(long)]
    limit: Option<usize>,
    /// File for the embeddings.
    #[arg(long)]
    output: Option<PathBuf>,
    /// The name of one of the model's prompts.
    #[arg(long)]
    prompt: Option<String>,
    /// Only so many dimensions.
    #[arg(long)]
    dims: Option<usize>,
    /// Tokens of a batch.
    #[arg(long, default_value_t = 2048)]
    batch_tokens: usize,
    /// Encode so many times more, to measure.
    #[arg(long, default_value_t = 0)]
    passes: usize,
    /// Round the linear layers to blocks of this format: int8, which also rounds their inputs and is fastest, or q8_0, q4_0, ...
    #[arg(long)]
    weights: Option<PackedFormat>,
    /// Threads; as many as the machine has without it.
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    computation: Computation,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ft::compute_threads(args.threads);
    let device = args.computation.device()?;
    let folder = resolve(&args.model, &HubOptions::from_env())?;
    let mut texts = read_texts(&args.texts, &args.columns)?;
    texts.truncate(args.limit.unwrap_or(usize::MAX));
    let mut model = EmbeddingModel::from_pretrained_with(&folder, &device, Weights::Stored)?;
    if let Some(format) = args.weights {
        ft::quant::pack_model(&mut model, format)?;
    }
    let loaded_rss_mb = ft::peak_rss_mb();
    let options = EncodeOptions {
        prompt: args
            .prompt
            .as_deref()
            .map_or(Prompt::Default, Prompt::Named),
        dims: args.dims,
        batch_tokens: args.batch_tokens,
        ..EncodeOptions::default()
    };
    let mut seconds = Vec::new();
    let mut embeddings = None;
    for pass in 0..=args.passes {
        let start = Instant::now();
        let mut listen = |done: usize, of: usize| {
            if pass == 0 && !args.json && done % 1000 < done.min(50) {
                eprintln!("{done} of {of} texts");
            }
        };
        embeddings = Some(model.encode_with(&texts, &options, &mut listen)?);
        seconds.push(start.elapsed().as_secs_f64());
    }
    let embeddings = embeddings.context("there was no pass")?;
    if let Some(output) = &args.output {
        embeddings.write_npy(output)?;
    }
    // The first pass is not counted if there are others.
    let mut counted = seconds[usize::from(args.passes > 0)..].to_vec();
    counted.sort_by(f64::total_cmp);
    let median = (counted[counted.len() / 2] + counted[(counted.len() - 1) / 2]) / 2.0;
    let sentences_per_s = texts.len() as f64 / median;
    let unit = embeddings.clone().normalized();
    let pairs = texts.len() / 2;
    let cosine = |pair: usize| -> f32 {
        let both = unit.row(2 * pair).iter().zip(unit.row(2 * pair + 1));
        both.map(|(a, b)| a * b).sum()
    };
    let mean_pair_cosine = (0..pairs).map(cosine).sum::<f32>() / pairs.max(1) as f32;
    if args.json {
        let first: Vec<f32> = embeddings.values().iter().take(4).copied().collect();
        println!(
            "{}",
            json!({
                "texts": texts.len(),
                "dims": embeddings.dims(),
                "max_seq_length": model.max_seq_length(),
                "parameters": model.num_params(),
                "sentences_per_s": sentences_per_s,
                "loaded_rss_mb": loaded_rss_mb,
                "peak_rss_mb": ft::peak_rss_mb(),
                "mean_pair_cosine": mean_pair_cosine,
                "first": first,
                "output": args.output,
            })
        );
    } else {
        println!(
            "{} embeddings of {} dimensions, {sentences_per_s:.1} texts a second",
            embeddings.len(),
            embeddings.dims()
        );
    }
    Ok(())
}

fn read_texts(path: &Path, columns: &[String]) -> Result<Vec<String>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    if columns.is_empty() && !text.trim_start().starts_with('[') {
        let lines = text.lines().map(str::to_string);
        return Ok(lines.filter(|line| !line.trim().is_empty()).collect());
    }
    let mut texts = Vec::new();
    for (number, row) in ft::data::read_rows(path)?.iter().enumerate() {
        match row {
            Value::String(text) if columns.is_empty() => texts.push(text.clone()),
            row => {
                ensure!(
                    !columns.is_empty(),
                    "{shown}: row {} is no text: name --columns",
                    number + 1
                );
                for column in columns {
                    let text = row.get(column).and_then(Value::as_str);
                    let text = text.with_context(|| {
                        format!("{shown}: row {} has no text {column}", number + 1)
                    })?;
                    texts.push(text.to_string());
                }
            }
        }
    }
    Ok(texts)
}
