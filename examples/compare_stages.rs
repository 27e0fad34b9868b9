//! A report on the effect of a training stage: a model compared with the model before the stage.
//!
//! ```sh
//! cargo run --release --example compare_stages -- --stage domain --previous assets/tiny-llama --model assets/tiny-llama \
//!     --domain examples/data/corpus/phrases.txt --general examples/data/corpus/facts.txt --output /tmp/report
//! ```
//!
//! - `--stage domain`: bits per byte and word perplexity on texts of the domain and on general ones;
//! - `--stage instructions`: a judge's scores, faults found without a judge (empty, looping, leaking the template), length;
//! - `--stage preferences`: refusals of harmful and of harmless prompts, win rate against the stage before.
//!
//! Texts are files, cut into parts of `--text-bytes`. Instructions and harmful prompts are JSON lines with `prompt` (and
//! `reference`). The program writes `report.md` and `report.json` to the output folder. It fails if a measure is worse by more
//! than 2%.
//!
//! With `--json` the last line is the report as an object.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use ft::core::{AutoCausalLm, GenerationConfig, HubOptions, Tokenizer, Weights, resolve};
use ft::eval::judges::{OpenAiClient, PairJudge, Panel, PointJudge, Scale, ServerOptions};
use ft::eval::models::LocalModel;
use ft::eval::stages::{
    Instruction, Stage, StageAnswers, StageData, StageJudge, Tolerances, compare,
};
use serde_json::Value;

#[path = "shared/computation.rs"]
mod computation;
use computation::Computation;

/// Measure a stage of training.
#[derive(Parser)]
struct Args {
    /// domain, instructions or preferences.
    #[arg(long)]
    stage: Stage,
    /// Folder or hub id of the new model.
    #[arg(long)]
    model: String,
    /// An adapter for it.
    #[arg(long)]
    adapter: Option<String>,
    /// The model of the stage before.
    #[arg(long)]
    previous: Option<String>,
    /// An adapter for that.
    #[arg(long)]
    previous_adapter: Option<String>,
    /// Held-out text file of the domain; may be repeated.
    #[arg(long)]
    domain: Vec<PathBuf>,
    /// General text file; may be repeated.
    #[arg(long)]
    general: Vec<PathBuf>,
    /// The size in bytes of the parts of texts, which are cut at line ends.
    #[arg(long, default_value_t = 2000)]
    text_bytes: usize,
    /// JSON lines of prompts that the model should answer well.
    #[arg(long)]
    instructions: Option<PathBuf>,
    /// JSON lines of prompts that the model should refuse.
    #[arg(long)]
    harmful: Option<PathBuf>,
    /// Use only the first rows of each file.
    #[arg(long)]
    limit: Option<usize>,
    /// The maximum number of tokens of a reply.
    #[arg(long, default_value_t = 128)]
    max_new_tokens: usize,
    /// Address of a judge, such as http://localhost:8080/v1.
    #[arg(long)]
    endpoint: Option<String>,
    /// The judge's name on the server.
    #[arg(long, default_value = "default")]
    judge_model: String,
    /// Environment variable with the server's key.
    #[arg(long)]
    api_key_env: Option<String>,
    /// Criteria for good replies.
    #[arg(
        long,
        default_value = "The response does what the prompt asks for, correctly and completely."
    )]
    criteria: String,
    /// Folder for the report.
    #[arg(long)]
    output: PathBuf,
    #[command(flatten)]
    computation: Computation,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    ensure!(args.text_bytes > 0, "--text-bytes must be at least 1");
    let data = StageData {
        domain: texts(&args.domain, &args)?,
        general: texts(&args.general, &args)?,
        instructions: prompts(args.instructions.as_deref(), args.limit)?,
        harmful: prompts(args.harmful.as_deref(), args.limit)?
            .into_iter()
            .map(|instruction| instruction.prompt)
            .collect(),
    };
    let client = match &args.endpoint {
        Some(endpoint) => {
            let options = ServerOptions {
                api_key_env: args.api_key_env.clone(),
                ..ServerOptions::default()
            };
            Some(OpenAiClient::new(endpoint, &args.judge_model, options)?)
        }
        None => None,
    };
    let judge = client.as_ref().map(|model| StageJudge {
        model,
        single: PointJudge {
            criteria: args.criteria.clone(),
            scale: Scale::Points(5),
            shots: Vec::new(),
        },
        pairs: PairJudge {
            criteria: args.criteria.clone(),
            shots: Vec::new(),
        },
        panel: Panel::default(),
    });

    // One model after the other, so that only one is in memory.
    let previous = match &args.previous {
        Some(name) => Some(collect(
            name,
            args.previous_adapter.as_deref(),
            &data,
            &args,
        )?),
        None => None,
    };
    let candidate = collect(&args.model, args.adapter.as_deref(), &data, &args)?;
    let tolerances = Tolerances::default();
    let report = compare(
        args.stage,
        &candidate,
        previous.as_ref(),
        &data,
        judge.as_ref(),
        &tolerances,
    )?;

    std::fs::create_dir_all(&args.output)?;
    let markdown = report.to_markdown();
    write(
        &args.output.join("report.json"),
        &serde_json::to_string_pretty(&report)?,
    )?;
    write(&args.output.join("report.md"), &markdown)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{markdown}");
    }
    if !report.passed {
        bail!(
            "something got worse: see {}",
            args.output.join("report.md").display()
        );
    }
    Ok(())
}

fn collect(
    name: &str,
    adapter: Option<&str>,
    data: &StageData,
    args: &Args,
) -> Result<StageAnswers> {
    let hub = HubOptions::from_env();
    let device = args.computation.device()?;
    let folder = resolve(name, &hub)?;
    let tokenizer = Tokenizer::from_pretrained(&folder)?;
    let mut model = AutoCausalLm::from_pretrained_with(&folder, &device, Weights::Stored)?;
    let generation = GenerationConfig::from_pretrained(&folder, Some(&tokenizer))?;
    let mut title = name.to_string();
    if let Some(adapter) = adapter {
        model = ft::peft::load_adapter(model, &resolve(adapter, &hub)?, "default", false)?;
        title = format!("{name} with {adapter}");
    }
    let model = LocalModel::new(model, tokenizer, generation, &device, name)?;
    let mut progress = |done: usize, total: usize| {
        if done.is_multiple_of(20) || done == total {
            eprintln!("{title}: {done}/{total}");
        }
    };
    Ok(StageAnswers::collect(
        args.stage,
        &title,
        &model,
        data,
        args.max_new_tokens,
        &mut progress,
    )?)
}

/// The files in parts of whole lines.
fn texts(paths: &[PathBuf], args: &Args) -> Result<Vec<String>> {
    let mut parts = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut part = String::new();
        for line in text.split_inclusive('\n') {
            part.push_str(line);
            if part.len() >= args.text_bytes {
                parts.push(std::mem::take(&mut part));
            }
        }
        if !part.trim().is_empty() {
            parts.push(part);
        }
    }
    parts.truncate(args.limit.unwrap_or(usize::MAX));
    Ok(parts)
}

fn prompts(path: Option<&Path>, limit: Option<usize>) -> Result<Vec<Instruction>> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text
        .split('\n')
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .take(limit.unwrap_or(usize::MAX))
        .map(|(i, line)| {
            let place = || {
                format!(
                    "{}, line {}: a JSON object with `prompt` is needed",
                    path.display(),
                    i + 1
                )
            };
            let row: Value = serde_json::from_str(line).with_context(place)?;
            serde_json::from_value(row).with_context(place)
        })
        .collect()
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(file.path(), text)?;
    file.persist(path)?;
    Ok(())
}
