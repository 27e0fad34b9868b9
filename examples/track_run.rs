//! Watching a run: the same numbers in the log, in TensorBoard's files, in a CSV file, in a picture, on an MLflow server, and in a tracker
//! of your own.
//!
//! ```sh
//! cargo run --release --example track_run
//! tensorboard --logdir runs/track/events
//! cargo run --release --example track_run -- --mlflow http://127.0.0.1:5000
//! ```
//!
//! Model and data are bundled. The run is short: the small model learns to answer questions, and is evaluated on held-out questions and
//! on general text, which it must not forget.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Parser;
use ft::core::{AutoCausalLm, Tokenizer};
use ft::data::{Collation, Format, SftDataset};
use ft::peft::{LoraConfig, attach};
#[cfg(feature = "mlflow")]
use ft::train::MlflowTracker;
use ft::train::{
    BoxError, CsvTracker, ForgettingMonitor, TensorBoard, Tracker, TrainConfig, Trainer,
    WandbTracker, draw_loss_curves, next_token_loss,
};
use serde_json::json;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-llama");
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");

/// Watching a run.
#[derive(Parser)]
struct Args {
    /// Folder for all that is written. An earlier run in it is replaced.
    #[arg(long, default_value = "runs/track")]
    output: PathBuf,
    /// Optimizer steps.
    #[arg(long, default_value_t = 40)]
    steps: usize,
    /// Also send the numbers to the MLflow server at this address.
    #[cfg(feature = "mlflow")]
    #[arg(long)]
    mlflow: Option<String>,
    /// cpu, cuda, wgpu, vulkan or metal.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

const SEED: u64 = 42;

/// A tracker of your own: remembers the step with the lowest loss.
#[derive(Default)]
struct Lowest(Option<(usize, f64)>);

impl Tracker for Lowest {
    fn log(&mut self, step: usize, scalars: &[(String, f64)]) -> Result<(), BoxError> {
        let loss = scalars.iter().find(|(name, _)| name == "train/loss");
        if let Some((_, loss)) = loss
            && self.0.is_none_or(|(_, lowest)| *loss < lowest)
        {
            self.0 = Some((step, *loss));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        if let Some((step, loss)) = self.0 {
            eprintln!("the lowest loss is {loss:.4}, at step {step}");
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let device = ft::device(&args.device)?.autodiff();
    let tokenizer = Tokenizer::from_pretrained(Path::new(MODEL))?;
    let model = AutoCausalLm::from_pretrained(Path::new(MODEL), &device)?;
    let lora = LoraConfig {
        r: 8,
        ..LoraConfig::default()
    };
    let model = attach(model, &lora, "default", SEED)?;

    let data = |name: &str, format| -> Result<SftDataset> {
        Ok(SftDataset::load(
            Path::new(DATA).join(name),
            format,
            &tokenizer,
            128,
        )?)
    };
    let (train, held_out) = data("instructions.jsonl", Format::Messages)?.split(0.1, SEED)?;
    let general = data("general.txt", Format::Text)?;
    let pad = tokenizer.pad_token_id().unwrap_or(0);
    let padded = Collation::Padded { multiple: 1 };

    let (events, table) = (args.output.join("events"), args.output.join("numbers.csv"));
    let config = TrainConfig {
        learning_rate: 2e-3,
        max_steps: Some(args.steps),
        eval_every: Some(args.steps.div_ceil(4)),
        output_dir: Some(args.output.clone()),
        save_every: None,
        overwrite: true,
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::new(
        config,
        train.into_batches(8, padded, Some(SEED), pad)?,
        next_token_loss,
    )
    .with_evaluation(held_out.into_batches(8, padded, None, pad)?)
    .with_named_evaluation("general", general.into_batches(8, padded, None, pad)?)
    .with_callback(ForgettingMonitor::new("general"))
    .with_tracker(TensorBoard::new(&events))
    .with_tracker(CsvTracker::new(&table))
    .with_tracker(WandbTracker::new(args.output.join("wandb"), "ft"))
    .with_tracker(Lowest::default());
    #[cfg(feature = "mlflow")]
    if let Some(url) = &args.mlflow {
        let mlflow = MlflowTracker::new(url, "track_run", &args.output)
            .with_param("learning_rate", 2e-3)
            .with_credentials_from_env();
        trainer = trainer.with_tracker(mlflow);
    }
    let (_, report) = trainer.fit(model)?;
    let picture = draw_loss_curves(&args.output)?;

    // What other programs read: a line a number.
    let mut reader = csv::Reader::from_path(&table)?;
    let rows: Vec<(usize, String, f64)> = reader.deserialize().collect::<Result<_, _>>()?;
    let losses: Vec<f64> = rows
        .iter()
        .filter(|(_, name, _)| name == "train/loss")
        .map(|(_, _, loss)| *loss)
        .collect();
    ensure!(
        losses == report.train_losses,
        "the CSV file has other losses"
    );
    eprintln!("log      {}", args.output.join("train_log.jsonl").display());
    eprintln!("events   {}", events.display());
    eprintln!("table    {}", table.display());
    eprintln!("picture  {}", picture.display());
    for finding in &report.findings {
        eprintln!("{finding}");
    }
    if args.json {
        let line = json!({
            "eval_loss_before": report.eval_before().map(|found| found.loss),
            "eval_loss_after": report.eval_after().map(|found| found.loss),
            "steps": report.steps,
            "numbers": rows.len(),
        });
        println!("{line}");
    }
    Ok(())
}
