//! A run that can be repeated: its manifest has all that it depends on, and a repetition says what differs.
//!
//! ```sh
//! cargo run --release --example repeat_run
//! cargo run --release --example repeat_run -- --from-manifest runs/repeat/first/manifest.json --output runs/again
//! ```
//!
//! Model and data are bundled. Without arguments there are three runs: one; its repetition from its manifest, which on the CPU has the same
//! losses to the bit; and one with another seed, whose report names the seed, the first loss that differs, and how many do. `sft` has the
//! same option for its runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::core::{AutoCausalLm, Tokenizer, weights_hash};
use ft::data::{Collation, Format, SftDataset};
use ft::peft::{LoraConfig, attach};
use ft::train::{Manifest, Results, TrainConfig, Trainer, next_token_loss};
use serde::{Deserialize, Serialize};
use serde_json::json;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-llama");
const DATA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/data/instructions.jsonl"
);

/// A run that can be repeated.
#[derive(Parser)]
struct Args {
    /// Folder for the runs. Earlier ones in it are replaced.
    #[arg(long, default_value = "runs/repeat")]
    output: PathBuf,
    /// Repeat the run of this manifest, and print what differs.
    #[arg(long)]
    from_manifest: Option<PathBuf>,
    /// Optimizer steps; those of the manifest if there is one.
    #[arg(long, default_value_t = 8)]
    steps: usize,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// What decides the numbers of a run, besides its files.
#[derive(Clone, Serialize, Deserialize)]
struct Settings {
    steps: usize,
    learning_rate: f64,
    seed: u64,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    if let Some(path) = &args.from_manifest {
        let before = Manifest::read(path)?;
        let settings = before
            .facts
            .get("settings")
            .context("it is not a manifest of this program")?;
        let again = run(&serde_json::from_value(settings.clone())?, &args.output)?;
        let differences = before.differences(&again);
        report("the repetition", &differences);
        return print(args.json, json!({ "differences": differences }));
    }
    let settings = Settings {
        steps: args.steps,
        learning_rate: 2e-3,
        seed: 42,
    };
    let first = run(&settings, &args.output.join("first"))?;
    let same = first.differences(&run(&settings, &args.output.join("second"))?);
    report("the repetition", &same);
    ensure!(same.is_empty(), "a repetition on the CPU must not differ");
    let other = Settings {
        seed: 43,
        ..settings
    };
    let others = first.differences(&run(&other, &args.output.join("third"))?);
    report("the run with another seed", &others);
    print(args.json, json!({ "same": same, "others": others }))
}

/// A short run, whose manifest is written when it begins, and again with its results when it ends.
fn run(settings: &Settings, output: &Path) -> Result<Manifest> {
    let folder = Path::new(MODEL);
    let manifest = Manifest::new("repeat_run", std::env::args().skip(1), "cpu")
        .with_fact("settings", serde_json::to_value(settings)?)
        .with_fact("base_weights", weights_hash(folder)?)
        .with_file("data", Path::new(DATA))?
        .with_file("tokenizer", &folder.join("tokenizer.json"))?;
    std::fs::create_dir_all(output)?;
    manifest.write(output)?;

    let tokenizer = Tokenizer::from_pretrained(folder)?;
    let device = ft::device("cpu")?.autodiff();
    let model = AutoCausalLm::from_pretrained(folder, &device)?;
    let lora = LoraConfig {
        r: 8,
        lora_dropout: 0.1,
        ..LoraConfig::default()
    };
    let model = attach(model, &lora, "default", settings.seed)?;
    let rows = SftDataset::load(DATA, Format::Messages, &tokenizer, 128)?;
    let (train, held_out) = rows.split(0.1, settings.seed)?;
    let pad = tokenizer.pad_token_id().unwrap_or(0);
    let padded = Collation::Padded { multiple: 1 };
    let config = TrainConfig {
        learning_rate: settings.learning_rate,
        max_steps: Some(settings.steps),
        seed: settings.seed,
        output_dir: Some(output.to_path_buf()),
        save_every: None,
        overwrite: true,
        ..TrainConfig::default()
    };
    let batches = train.into_batches(4, padded, Some(settings.seed), pad)?;
    let (_, report) = Trainer::new(config, batches, next_token_loss)
        .with_evaluation(held_out.into_batches(4, padded, None, pad)?)
        .fit(model)?;
    let manifest = Manifest {
        results: Some(Results::from(&report)),
        ..manifest
    };
    manifest.write(output)?;
    Ok(manifest)
}

fn report(what: &str, differences: &[String]) {
    match differences {
        [] => eprintln!("{what} does not differ"),
        lines => eprintln!("{what} differs:\n  {}", lines.join("\n  ")),
    }
}

fn print(json: bool, line: serde_json::Value) -> Result<()> {
    if json {
        println!("{line}");
    }
    Ok(())
}
