//! Benchmarks on a model, with the task files, prompts, numbers and results of lm-evaluation-harness.
//!
//! The documents are in local files, `DIR/TASK/SPLIT.jsonl`, with the fields of the hub's datasets. Three documents of PIQA
//! are included as an example:
//!
//! ```sh
//! cargo run --release --example harness -- --model assets/tiny-llama --tasks piqa --data examples/data/benchmarks \
//!     --output /tmp/harness
//! ```
//!
//! `--list-tasks` shows the built-in tasks, and `--include-path` adds a folder of other task files. With `--baseline`, an
//! earlier results file, both are compared, and the program fails if a task is worse by more than `--threshold`. `--cache`
//! stores every answer, so that an interrupted run can continue.
//!
//! With `--json` the last line is an object: `results` as in the results file, `results_file`, `documents`, `seconds`,
//! `peak_rss_mb` and, with a baseline, `regressions`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Parser;
use ft::core::{AutoCausalLm, GenerationConfig, HubOptions, Tokenizer, Weights, resolve};
use ft::eval::harness::{EvaluateOptions, SavedResults, TaskIndex, TaskResult, compare, evaluate};
use ft::eval::models::{LocalModel, identity};
use ft::kernels::{Precision, precision};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

#[path = "shared/computation.rs"]
mod computation;
use computation::Computation;

/// The number of answers between two progress lines without a terminal.
const REPORT_EVERY: usize = 500;

/// Run benchmarks on a model.
#[derive(Parser)]
struct Args {
    /// Model folder, or hub id (needs --features hub).
    #[arg(long, required_unless_present = "list_tasks")]
    model: Option<String>,
    /// Adapter folder in PEFT's format, or hub id.
    #[arg(long)]
    adapter: Option<String>,
    /// Tasks, groups or tags, separated by commas; * and ? match any text and any character.
    #[arg(long, value_delimiter = ',', required_unless_present = "list_tasks")]
    tasks: Vec<String>,
    /// Folder with the documents: DIR/TASK/SPLIT.jsonl.
    #[arg(long, required_unless_present = "list_tasks")]
    data: Option<PathBuf>,
    /// Folder for the results.
    #[arg(long, required_unless_present = "list_tasks")]
    output: Option<PathBuf>,
    /// Use only the first documents of each task: a number, or a share below 1.
    #[arg(long)]
    limit: Option<f64>,
    /// The number of examples in each prompt, which replaces that of the tasks.
    #[arg(long)]
    num_fewshot: Option<usize>,
    /// Render prompts with the model's chat template.
    #[arg(long)]
    apply_chat_template: bool,
    /// The system message, before the task's description.
    #[arg(long)]
    system_instruction: Option<String>,
    /// Generation settings that replace those of the tasks, such as max_gen_toks=256,temperature=0.
    #[arg(long, value_delimiter = ',')]
    gen_kwargs: Vec<String>,
    /// Folder of further task files.
    #[arg(long)]
    include_path: Vec<PathBuf>,
    /// Also write every document with its prompts and answers.
    #[arg(long)]
    log_samples: bool,
    /// File in which answers are stored.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Results file to compare with.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// The drop that fails the comparison, in points of the metric.
    #[arg(long, default_value_t = 0.02)]
    threshold: f64,
    /// Tokens computed at once; a GPU is faster with a few thousand.
    #[arg(long, default_value_t = 512)]
    batch_tokens: usize,
    /// Threads; the default is all cores.
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    computation: Computation,
    /// Show the available tasks.
    #[arg(long)]
    list_tasks: bool,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ft::compute_threads(args.threads);
    let index = TaskIndex::new(&args.include_path)?;
    let (Some(name), Some(data), Some(output)) = (&args.model, &args.data, &args.output) else {
        index.names().for_each(|name| println!("{name}"));
        return Ok(());
    };
    // Check the cheap inputs first: the tasks, their documents, the results to compare with.
    let tasks = index.load(&args.tasks, data)?;
    let baseline = args.baseline.as_ref().map(SavedResults::read).transpose()?;

    let model = load(name, args.adapter.as_deref(), &args)?.with_batch_tokens(args.batch_tokens);
    let options = EvaluateOptions {
        model_name: match &args.adapter {
            Some(adapter) => format!("{}__{}", last_part(name), last_part(adapter)),
            None => last_part(name),
        },
        num_fewshot: args.num_fewshot,
        limit: args.limit,
        system_instruction: args.system_instruction.clone(),
        apply_chat_template: args.apply_chat_template,
        generation_kwargs: settings(&args.gen_kwargs)?,
        cache: args.cache.clone(),
        ..EvaluateOptions::default()
    };

    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} answers  {eta} left",
    )?);
    let start = Instant::now();
    let evaluation = evaluate(&model, &tasks, &options, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        if bar.is_hidden() && (done.is_multiple_of(REPORT_EVERY) || done == total) {
            eprintln!("{done}/{total} answers");
        }
    })?;
    bar.finish();
    let seconds = start.elapsed().as_secs_f64();
    let files = evaluation.write(output, args.log_samples)?;

    let documents: usize = (evaluation.results.iter())
        .filter_map(|result| result.sample_len)
        .sum();
    println!("{}", evaluation.table());
    if let Some(groups) = evaluation.groups_table() {
        println!("{groups}");
    }
    eprintln!(
        "{documents} documents in {seconds:.1} s, {:.2} a second; results in {}",
        documents as f64 / seconds,
        files.results.display()
    );

    let mut summary = json!({
        "results": evaluation.results.iter().map(numbers).collect::<Map<_, _>>(),
        "results_file": files.results,
        "documents": documents,
        "seconds": seconds,
        "peak_rss_mb": ft::peak_rss_mb(),
    });
    let mut regressions = Vec::new();
    if let Some(baseline) = baseline {
        let comparison = compare(&baseline, &SavedResults::read(&files.results)?);
        println!("{}", comparison.to_markdown());
        regressions = comparison.regressions(args.threshold);
        summary["regressions"] = json!(regressions);
    }
    if args.json {
        println!("{summary}");
    }
    if !regressions.is_empty() {
        bail!("worse than the baseline:\n{}", regressions.join("\n"));
    }
    Ok(())
}

fn load(name: &str, adapter: Option<&str>, args: &Args) -> Result<LocalModel> {
    let device = args.computation.device()?;
    let hub = HubOptions::from_env();
    let folder = resolve(name, &hub)?;
    let mut folders = vec![folder.clone()];
    let tokenizer = Tokenizer::from_pretrained(&folder)?;
    let mut model = AutoCausalLm::from_pretrained_with(&folder, &device, Weights::Stored)?;
    let generation = GenerationConfig::from_pretrained(&folder, Some(&tokenizer))?;
    if let Some(adapter) = adapter {
        let adapter = resolve(adapter, &hub)?;
        model = ft::peft::load_adapter(model, &adapter, "default", false)?;
        folders.push(adapter);
    }
    let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    // Only cached answers need the hash of the weights.
    let identity = match &args.cache {
        Some(_) => match precision() {
            Precision::F32 => identity(&folders)?,
            rounded => format!("{} {rounded}", identity(&folders)?),
        },
        None => name.to_string(),
    };
    Ok(LocalModel::new(
        model, tokenizer, generation, &device, identity,
    )?)
}

/// `key=value` pairs; a value that is not JSON is a text.
fn settings(pairs: &[String]) -> Result<Map<String, Value>> {
    let pair = |pair: &String| match pair.split_once('=') {
        Some((key, value)) => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            Ok((key.trim().to_string(), value))
        }
        None => bail!("--gen-kwargs {pair}: give key=value"),
    };
    pairs.iter().map(pair).collect()
}

/// A task's numbers under the keys of the results file; null for values that are not numbers.
fn numbers(result: &TaskResult) -> (String, Value) {
    let mut numbers = Map::new();
    for metric in &result.metrics {
        let (name, filter) = (&metric.name, &metric.filter);
        numbers.insert(format!("{name},{filter}"), json!(metric.value));
        numbers.insert(format!("{name}_stderr,{filter}"), json!(metric.stderr));
    }
    (result.name.clone(), numbers.into())
}

/// `SmolLM2-135M` of a hub id or a folder.
fn last_part(name: &str) -> String {
    let part = Path::new(name).file_name();
    part.map_or_else(|| name.to_string(), |part| part.to_string_lossy().into())
}
