//! Domain adaptation: a folder of documents becomes training text, and an adapter learns it without forgetting other text.
//!
//! ```sh
//! cargo run --release --example domain_adaptation -- --output adapted
//! cargo run --release --features documents --example domain_adaptation -- --model DIR --documents manuals/ --general wiki.txt \
//!     --max-tokens 512 --output adapted
//! ```
//!
//! Text comes from `.txt` and `.md`, and with `--features documents` from `.html`, `.docx` and `.pdf`. It is cut into pieces under
//! their headings (`chunks.jsonl`), cleaned of duplicates, and mixed with general text. The perplexity on domain and general text is
//! measured before, during and after the training; if that of general text rises by `--stop-at`, the run ends. In the end it shows how
//! the model continues the beginnings of held-out pieces before and after.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::burn::module::Module;
use ft::core::{AutoCausalLm, CausalLm, GenerationConfig, Tokenizer, Weights, generate};
use ft::data::{
    Chunking, Cleaning, Collation, Format, SftBatches, SftDataset, Table, document_text,
    documents_in,
};
use ft::peft::{LoraConfig, attach, save_adapter};
use ft::train::{
    EvalMetrics, ForgettingMonitor, Schedule, TrainConfig, Trainer, draw_loss_curves,
    latest_checkpoint, next_token_loss,
};
use serde_json::json;

#[path = "shared/computation.rs"]
mod computation;
use computation::Computation;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-llama");
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");

/// Domain adaptation from documents.
#[derive(Parser)]
struct Args {
    /// Model folder.
    #[arg(long, default_value = MODEL)]
    model: PathBuf,
    /// A document, or a folder of documents.
    #[arg(long)]
    documents: Option<PathBuf>,
    /// General text that must not be forgotten: rows with `text`, or a text file.
    #[arg(long)]
    general: Option<PathBuf>,
    /// The share of general rows among the training rows.
    #[arg(long, default_value_t = 0.5)]
    general_share: f64,
    /// The share by which the perplexity on general text may rise before the run ends.
    #[arg(long, default_value_t = 0.15)]
    stop_at: f64,
    /// Tokens of a piece, headings included.
    #[arg(long, default_value_t = 96)]
    max_tokens: usize,
    /// Folder for the adapter, the pieces and the log.
    #[arg(long, default_value = "domain-adapter")]
    output: PathBuf,
    /// Start again although --output contains a run, whose checkpoints and log are removed.
    #[arg(long)]
    overwrite: bool,
    /// Passes over the data.
    #[arg(long, default_value_t = 3.0)]
    epochs: f64,
    /// Peak learning rate.
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// Rows per batch.
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    #[command(flatten)]
    computation: Computation,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

const SEED: u64 = 42;

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    ensure!(
        (0.0..1.0).contains(&args.general_share),
        "--general-share is a share in [0, 1)"
    );
    ensure!(
        args.overwrite || latest_checkpoint(&args.output)?.is_none(),
        "{} contains a run: choose another --output, or give --overwrite, which removes its checkpoints and log",
        args.output.display()
    );
    std::fs::create_dir_all(&args.output)?;
    let device = args.computation.device()?;
    let tokenizer = Tokenizer::from_pretrained(&args.model)?;

    // 1. Documents to rows.
    let documents = args
        .documents
        .clone()
        .unwrap_or_else(|| Path::new(DATA).join("documents"));
    let chunking = Chunking::Structure {
        max_tokens: args.max_tokens,
    };
    let (mut rows, mut left_out) = (Vec::new(), 0);
    for path in documents_in(&documents)? {
        match document_text(&path) {
            Ok(text) => {
                let chunks = chunking.chunks(&text, &tokenizer)?;
                eprintln!("{}: {} pieces", path.display(), chunks.len());
                rows.extend(chunks.into_iter().map(|text| json!({"text": text})));
            }
            Err(error) => {
                left_out += 1;
                eprintln!("left out: {error}");
            }
        }
    }
    ensure!(!rows.is_empty(), "none of the documents could be read");
    let (domain, report) = Cleaning::default().apply(Table::from_rows(rows));
    eprintln!(
        "{} pieces are kept; {} were duplicates",
        domain.len(),
        report.removed.len()
    );
    domain.to_jsonl(args.output.join("chunks.jsonl"))?;
    let (domain, domain_held_out) = domain.train_test_split(0.15, SEED)?;

    // 2. General text beside it.
    let general = args
        .general
        .clone()
        .unwrap_or_else(|| Path::new(DATA).join("general.txt"));
    let (general, general_held_out) = Table::load(&general)?.train_test_split(0.3, SEED)?;
    let wanted = args.general_share / (1.0 - args.general_share) * domain.len() as f64;
    let general = general.shuffle(SEED);
    let some = (wanted.round() as usize).min(general.len());
    let general = general.select(0..some)?;
    eprintln!(
        "{} pieces of the domain and {} general rows to learn from",
        domain.len(),
        general.len()
    );

    // 3. The training.
    let length = 2 * args.max_tokens;
    let batches = |table: &Table, seed: Option<u64>| -> Result<SftBatches> {
        let rows = table.rows().iter().enumerate();
        let samples = rows.map(|(index, row)| Format::Text.parse(row, index + 1));
        let samples = samples.collect::<Result<Vec<_>, _>>()?;
        let dataset = SftDataset::from_samples(&samples, &tokenizer, length)?;
        let pad = tokenizer
            .pad_token_id()
            .or(tokenizer.eos_token_id())
            .unwrap_or(0);
        Ok(dataset.into_batches(
            args.batch_size,
            Collation::Padded { multiple: 1 },
            seed,
            pad,
        )?)
    };
    let train = batches(&Table::concatenate([domain, general]), Some(SEED))?;
    let model = AutoCausalLm::from_pretrained_with(
        &args.model,
        &device.clone().autodiff(),
        Weights::Stored,
    )?;
    model.dims().check_length(length)?;
    let openings: Vec<String> = domain_held_out
        .rows()
        .iter()
        .filter_map(|row| opening(row["text"].as_str()?))
        .take(3)
        .collect();
    let before_texts = continuations(&model.valid(), &tokenizer, &openings, &device)?;
    let lora = LoraConfig {
        r: 16,
        lora_alpha: 32.0,
        ..LoraConfig::default()
    };
    let model = attach(model, &lora, "default", SEED)?;
    let config = TrainConfig {
        learning_rate: args.lr,
        schedule: Schedule::Cosine,
        warmup_ratio: 0.1,
        epochs: args.epochs,
        seed: SEED,
        eval_every: Some(20),
        output_dir: Some(args.output.clone()),
        overwrite: args.overwrite,
        save_total_limit: Some(1),
        ..TrainConfig::default()
    };
    let (model, report) = Trainer::new(config, train, next_token_loss)
        .with_evaluation(batches(&domain_held_out, None)?)
        .with_named_evaluation("general", batches(&general_held_out, None)?)
        .with_callback(
            ForgettingMonitor::new("general").with_limits(args.stop_at / 3.0, args.stop_at),
        )
        .fit(model)?;
    draw_loss_curves(&args.output)?;
    save_adapter(&model, "default", &args.output)?;

    // 4. Before and after.
    let after_texts = continuations(&model.valid(), &tokenizer, &openings, &device)?;
    for ((opening, before), after) in openings.iter().zip(&before_texts).zip(&after_texts) {
        println!("{opening} ...\n  before: {before}\n  after:  {after}\n");
    }
    let (first, last) = (
        report.evaluations.first().context("no evaluation")?,
        report.evaluations.last().context("no evaluation")?,
    );
    let pair = |of: fn(&ft::train::Evaluation) -> Option<&EvalMetrics>| -> Result<(f64, f64)> {
        let perplexity = |one| {
            of(one)
                .map(|found| found.perplexity)
                .context("no evaluation")
        };
        Ok((perplexity(first)?, perplexity(last)?))
    };
    let domain = pair(|one| Some(&one.metrics))?;
    let general = pair(|one| one.sets.get("general"))?;
    for (name, (before, after)) in [("domain", domain), ("general", general)] {
        println!(
            "perplexity on {name} text: {before:.3} -> {after:.3} ({:+.1}%)",
            100.0 * (after / before - 1.0)
        );
    }
    if args.json {
        let line = json!({
            "documents_left_out": left_out,
            "domain_before": domain.0,
            "domain_after": domain.1,
            "general_before": general.0,
            "general_after": general.1,
            "steps": report.steps,
            "stopped_early": report.stopped_early,
            "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
    Ok(())
}

/// The first words of a piece, without its headings.
fn opening(text: &str) -> Option<String> {
    let body = text
        .lines()
        .find(|line| !line.is_empty() && !line.starts_with('#'))?;
    let words: Vec<&str> = body.split_whitespace().take(6).collect();
    (words.len() == 6).then(|| words.join(" "))
}

/// How a model goes on, without chance.
fn continuations(
    model: &AutoCausalLm,
    tokenizer: &Tokenizer,
    openings: &[String],
    device: &ft::burn::tensor::Device,
) -> Result<Vec<String>> {
    let prompts = openings.iter().map(|text| tokenizer.encode(text, true));
    let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
    let generation = GenerationConfig {
        max_new_tokens: 40,
        temperature: 0.0,
        ..GenerationConfig::default()
    };
    let mut silent = |_: ft::core::Streamed<'_>| ControlFlow::Continue(());
    let out = generate(
        model,
        Some(tokenizer),
        &prompts,
        &generation,
        device,
        &mut silent,
    )?;
    Ok(out
        .into_iter()
        .map(|one| one.text.trim().replace('\n', " "))
        .collect())
}
