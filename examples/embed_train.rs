//! Trains an embedding model on pairs or triplets, and measures retrieval of held-out pairs before and after.
//!
//! ```sh
//! cargo run --release --example embed_train -- --model all-MiniLM-L6-v2 --data pairs.jsonl --output my-model
//! ```
//!
//! Rows have an anchor and a positive, perhaps negatives and a label; `ft::embed::TextDataset` lists the names of columns, or
//! `--columns question,answer` gives them. A part of the rows is held out: its anchors search the positives of all
//! rows for their own, which `ndcg_before` and `ndcg_after` measure at 10. Labels are of two
//! kinds. If they are 1 for texts that belong together, `--min-label 1` keeps these rows, for losses without labels. If they are
//! similarities (`--loss cosine`, `cosent`, `angle`), `spearman_before` and `spearman_after` compare them with those of the
//! embeddings. With `--matryoshka 384,256,128,64` embeddings are
//! trained to be cut, and the measure is also taken at each of these numbers of dimensions, before and after. `--method lora` trains
//! an adapter, which is merged into the model at the end.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::burn::tensor::Device;
use ft::core::{HubOptions, SaveOptions, Weights, resolve};
use ft::embed::loss::{LayerWeights, Matryoshka};
use ft::embed::{
    EmbeddingLoss, EmbeddingModel, EmbeddingTraining, EmbeddingTrainingConfig, MiningConfig,
    TextDataset, TextRow, mine_hard_negatives, retrieval_ndcg, similarity_spearman,
};
use ft::peft::LoraConfig;
use ft::train::{Method, TrainConfig, Trainer};
use serde_json::{Map, json};

#[path = "shared/computation.rs"]
mod computation;
use computation::Computation;

/// Trains an embedding model.
#[derive(Parser)]
struct Args {
    /// Model folder of sentence-transformers, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// JSON or JSONL file. Several are mixed in proportion to their sizes.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// Names of the columns of texts, separated by commas.
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    /// Keep the rows whose label is at least this, without their labels.
    #[arg(long)]
    min_label: Option<f32>,
    /// Leave out the model's prompts in the training.
    #[arg(long)]
    no_prompts: bool,
    /// Folder for the model.
    #[arg(long)]
    output: PathBuf,
    /// mnrl, mnrl-symmetric, mnrl-all, gist, triplet, contrastive, online-contrastive, cosine, cosent, angle, margin-mse,
    /// mse, batch-all, batch-hard, batch-hard-soft or batch-semi-hard.
    #[arg(long, default_value = "mnrl")]
    loss: String,
    /// The guide of gist: a model folder.
    #[arg(long)]
    guide: Option<PathBuf>,
    /// Numbers of dimensions, separated by commas.
    #[arg(long, value_delimiter = ',')]
    matryoshka: Vec<usize>,
    /// Train earlier layers too.
    #[arg(long)]
    adaptive_layers: bool,
    /// Hard negatives of each pair, found by the model before the training.
    #[arg(long, default_value_t = 0)]
    hard_negatives: usize,
    /// full, or lora.
    #[arg(long, default_value = "full")]
    method: String,
    /// Rows per batch.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Embed so many texts at a time, and again in the backward pass: less memory, more time.
    #[arg(long)]
    mini_batch: Option<usize>,
    /// Passes over the data.
    #[arg(long, default_value_t = 1.0)]
    epochs: f64,
    /// Optimizer steps in all; overrides --epochs.
    #[arg(long)]
    max_steps: Option<usize>,
    /// Peak learning rate; without it 2e-5, and 2e-4 for an adapter.
    #[arg(long)]
    lr: Option<f64>,
    /// The share of the steps in which the learning rate rises.
    #[arg(long, default_value_t = 0.1)]
    warmup_ratio: f64,
    /// Texts are cut at so many tokens.
    #[arg(long)]
    seq_len: Option<usize>,
    /// The share of the rows that is held out.
    #[arg(long, default_value_t = 0.1)]
    eval_fraction: f64,
    /// Use only so many rows of each file.
    #[arg(long)]
    limit: Option<usize>,
    /// Seed of the split and the order.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Start again although --output contains a run.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    computation: Computation,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ft::compute_threads(None);
    let device = args.computation.device()?.autodiff();
    let loss: EmbeddingLoss = args.loss.parse()?;
    ensure!(
        matches!(args.method.as_str(), "full" | "lora"),
        "there is no --method {}: use full or lora",
        args.method
    );
    let datasets = args.data.iter().map(|path| {
        let columns: Vec<&str> = args.columns.iter().map(String::as_str).collect();
        let mut dataset = TextDataset::load_columns(path, &columns)?;
        dataset.rows.truncate(args.limit.unwrap_or(usize::MAX));
        Ok(match args.min_label {
            Some(least) => dataset.positives(least)?,
            None => dataset,
        })
    });
    let datasets: Vec<TextDataset> = datasets.collect::<Result<_>>()?;
    let folder = resolve(&args.model, &HubOptions::from_env())?;
    let mut model = load(&folder, &device, args.seq_len)?;

    let dims: Vec<usize> = match args.matryoshka.is_empty() {
        true => vec![model.truncate_dim().unwrap_or(model.dims())],
        false => args.matryoshka.clone(),
    };
    let matryoshka = match args.matryoshka.is_empty() {
        true => None,
        false => Some(Matryoshka::new(&args.matryoshka, model.dims())?),
    };
    let guide = (args.guide.as_ref())
        .map(|guide| EmbeddingModel::from_pretrained(guide, &Device::default()));
    let config = EmbeddingTrainingConfig {
        loss,
        matryoshka,
        layers: args.adaptive_layers.then(LayerWeights::default),
        mini_batch: args.mini_batch,
        without_prompts: args.no_prompts,
        guide: guide.transpose()?,
        ..EmbeddingTrainingConfig::default()
    };
    // Mistakes are found before anything is measured. Mined negatives come later.
    if args.hard_negatives == 0 {
        config.check(&model, &datasets)?;
    }

    let (mut train, mut held): (Vec<TextDataset>, Vec<TextRow>) = (Vec::new(), Vec::new());
    for dataset in &datasets {
        let (rows, out) = dataset.split(args.eval_fraction, args.seed)?;
        train.push(rows);
        held.extend(match loss {
            // Texts that are alike are found by each other.
            EmbeddingLoss::Contrastive(_) | EmbeddingLoss::OnlineContrastive(_) => {
                out.positives(1.0).map_or(Vec::new(), |rows| rows.rows)
            }
            EmbeddingLoss::MarginMse => out.without_labels().rows,
            _ => out.rows,
        });
    }
    // Documents of all rows are searched.
    let pairs = datasets.iter().flat_map(|dataset| &dataset.rows);
    let documents: Vec<&str> = pairs
        .filter_map(|row| row.texts.get(1))
        .map(String::as_str)
        .collect();
    let paired = held.first().is_some_and(|row| row.texts.len() > 1);
    let (name, title) = match loss.takes_similarities() {
        true => ("spearman", "Spearman's correlation"),
        false => ("ndcg", "NDCG@10"),
    };
    let measure = |model: &EmbeddingModel| -> Result<Vec<f64>> {
        match (paired, loss.takes_similarities()) {
            (true, true) => Ok(similarity_spearman(model, &held, &dims)?),
            (true, false) => Ok(retrieval_ndcg(model, &held, &documents, 10, &dims)?),
            (false, _) => Ok(vec![f64::NAN; dims.len()]),
        }
    };
    let before = measure(&model)?;
    let mut mined = None;
    if args.hard_negatives > 0 {
        let config = MiningConfig {
            num_negatives: args.hard_negatives,
            ..MiningConfig::default()
        };
        for dataset in &mut train {
            let texts = |column: usize| -> Vec<&str> {
                dataset
                    .rows
                    .iter()
                    .map(|row| row.texts[column].as_str())
                    .collect()
            };
            let similarity = model.similarity();
            let anchors = similarity.for_index(model.encode_queries(&texts(0))?)?;
            let positives = similarity.for_index(model.encode_documents(&texts(1))?)?;
            let found = mine_hard_negatives(dataset, &anchors, &positives, &config, None)?;
            ensure!(
                !found.dataset.is_empty(),
                "no row has enough hard negatives: ask for fewer"
            );
            mined = Some(mined.unwrap_or(0) + found.dataset.len());
            *dataset = found.dataset;
        }
    }
    let rows: usize = train.iter().map(TextDataset::len).sum();

    let lora = args.method == "lora";
    if lora {
        model = ft::peft::attach(model, &LoraConfig::default(), "default", args.seed)?;
    }
    let mut method =
        EmbeddingTraining::new(config, &model, &train, args.batch_size, Some(args.seed))?;
    let settings = TrainConfig {
        learning_rate: args.lr.unwrap_or(if lora { 2e-4 } else { 2e-5 }),
        warmup_ratio: args.warmup_ratio,
        epochs: args.epochs,
        max_steps: args.max_steps,
        seed: args.seed,
        output_dir: Some(args.output.join("run")),
        overwrite: args.overwrite,
        save_every: None,
        eval_at_start: false,
        eval_at_end: false,
        ..TrainConfig::default()
    };
    let start = Instant::now();
    let (model, report) = Trainer::with_method(settings, &mut method).fit(model)?;
    let seconds = start.elapsed().as_secs_f64();
    let model = match lora {
        true => ft::peft::merge_and_unload(model)?,
        false => model,
    };
    let after = measure(&model)?;
    model.save_pretrained(&args.output, &SaveOptions::default())?;

    let losses = report.train_losses;
    let batches = (0..).flat_map(|epoch| (0..method.len(epoch)).map(move |index| (epoch, index)));
    let seen = batches.take(losses.len());
    let seen: usize = seen
        .map(|(epoch, index)| method.rows_in(epoch, index))
        .sum();
    let pairs_per_s = seen as f64 / seconds;
    let by_dims = |values: &[f64]| -> Map<String, _> {
        dims.iter()
            .map(|n| n.to_string())
            .zip(values.iter().map(|&x| json!(x)))
            .collect()
    };
    let (first, last) = (
        losses.first().context("there were no steps")?,
        losses.last(),
    );
    for ((dims, before), after) in dims.iter().zip(&before).zip(&after) {
        eprintln!("{title} at {dims} dimensions: {before:.4} before, {after:.4} after");
    }
    if args.json {
        let mut line = json!({
            "rows": rows, "held_out": held.len(), "documents": documents.len(), "mined": mined,
            "steps": losses.len(), "loss_first": first, "loss_last": last, "losses": losses,
            "pairs_per_s": pairs_per_s, "peak_rss_mb": ft::peak_rss_mb(), "output": args.output,
        });
        for (when, values) in [("before", &before), ("after", &after)] {
            line[format!("{name}_{when}")] = json!(values.first());
            line[format!("{name}_{when}_by_dims")] = by_dims(values).into();
        }
        println!("{line}");
    }
    Ok(())
}

fn load(
    folder: &std::path::Path,
    device: &Device,
    seq_len: Option<usize>,
) -> Result<EmbeddingModel> {
    let model = EmbeddingModel::from_pretrained_with(folder, device, Weights::F32)?;
    Ok(match seq_len {
        Some(tokens) => model.with_max_seq_length(tokens)?,
        None => model,
    })
}
