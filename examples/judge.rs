//! Judges replies with a language model: rates them one by one, or compares pairs in both orders.
//!
//! The judge is a server with OpenAI's protocol (llama.cpp's server, vLLM, Ollama, hosted), or a local model. Rows are JSON
//! lines: `prompt` and `response` to rate, `prompt`, `response_a` and `response_b` to compare, optionally `reference`, and
//! optionally a human `label` (a number, or `A`, `B`, `tie`).
//!
//! ```sh
//! llama-server -m model.gguf --port 8080 &
//! cargo run --release --example judge -- --data examples/data/pairs.jsonl --mode pairwise \
//!     --endpoint http://localhost:8080/v1 --judge-model any --output /tmp/judged
//! ```
//!
//! `--cache` stores every reply, so that an interrupted run continues without repeated requests. The program writes
//! `verdicts.jsonl` to the output folder, and with `--preferences` the winners as preference data for DPO.
//!
//! With `--json` the last line is an object: `verdicts`, `missing`, `spent`, `cost`, and `mean_score` or `win_rate_a` with
//! `position_bias` and `verbosity_bias`, or `refusal_rate`; with labels `calibration`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use ft::core::{HubOptions, resolve};
use ft::eval::judges::{
    CachedModel, ChatModel, ChatReply, ChatRequest, Comparison, Item, OpenAiClient, PairItem,
    PairJudge, Panel, PointJudge, Preference, Prices, Scale, ServerOptions, calibrate,
    calibrate_scale, judge_each, judge_pairs, looks_like_refusal, position_bias, preference_rows,
    proportion, refusals, verbosity_bias, win_rate, write_preferences,
};
use ft::eval::models::LocalModel;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    Pointwise,
    Pairwise,
    Refusal,
}

/// Judge replies with a language model.
#[derive(Parser)]
struct Args {
    /// JSON lines with the replies.
    #[arg(long)]
    data: PathBuf,
    /// Rate single replies, compare pairs, or find replies that refuse the request of the prompt.
    #[arg(long)]
    mode: Mode,
    /// Address of a server with OpenAI's protocol, such as http://localhost:8080/v1.
    #[arg(long, required_unless_present = "local", conflicts_with = "local")]
    endpoint: Option<String>,
    /// The judge's name on the server.
    #[arg(long, default_value = "default")]
    judge_model: String,
    /// Environment variable with the server's key.
    #[arg(long)]
    api_key_env: Option<String>,
    /// Folder or hub id of a local judge.
    #[arg(long)]
    local: Option<String>,
    /// Criteria for good replies: a text, or a file with it.
    #[arg(
        long,
        default_value = "The response does what the prompt asks for, correctly and completely."
    )]
    criteria: String,
    /// The highest score; scores begin at 1. With 0, a score is 1 or 0: the criteria are met or not.
    #[arg(long, default_value_t = 0)]
    points: u32,
    /// The number of concurrent requests.
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    /// The most attempts for a valid reply.
    #[arg(long, default_value_t = 3)]
    attempts: usize,
    /// The most attempts for a request that fails.
    #[arg(long, default_value_t = 6)]
    retries: u32,
    /// Time limit of one request in seconds.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// The maximum number of tokens of a verdict.
    #[arg(long, default_value_t = 512)]
    max_tokens: usize,
    /// The maximum number of requests per minute.
    #[arg(long)]
    requests_per_minute: Option<f64>,
    /// The maximum number of tokens per minute.
    #[arg(long)]
    tokens_per_minute: Option<f64>,
    /// Price of a million tokens read.
    #[arg(long, default_value_t = 0.0)]
    prompt_price: f64,
    /// Price of a million tokens written.
    #[arg(long, default_value_t = 0.0)]
    completion_price: f64,
    /// File in which replies are stored.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// File for the winners as preference data.
    #[arg(long)]
    preferences: Option<PathBuf>,
    /// Folder for the verdicts.
    #[arg(long)]
    output: PathBuf,
    /// cpu, cuda, wgpu, vulkan or metal, for a local model.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let mut args = Args::parse();
    ensure!(args.attempts > 0, "--attempts must be at least 1");
    if Path::new(&args.criteria).is_file() {
        args.criteria = std::fs::read_to_string(&args.criteria)?;
    }
    let rows = read(&args.data)?;
    let model = Judge::new(&args)?;
    let model = match &args.cache {
        Some(path) => CachedModel::open(model, path)?,
        None => CachedModel::new(model),
    };
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} verdicts  {eta} left",
    )?);
    let mut progress = |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        if bar.is_hidden() && (done.is_multiple_of(100) || done == total) {
            eprintln!("{done}/{total} verdicts");
        }
    };
    let panel = Panel {
        attempts: args.attempts,
        // A local model uses all cores for one reply.
        concurrency: if args.local.is_some() {
            1
        } else {
            args.concurrency
        },
        max_tokens: args.max_tokens,
        ..Panel::default()
    };
    let (verdicts, mut summary) = match args.mode {
        Mode::Pointwise => pointwise(&model, &rows, &args, &panel, &mut progress)?,
        Mode::Pairwise => pairwise(&model, &rows, &args, &panel, &mut progress)?,
        Mode::Refusal => refusal(&model, &rows, &args, &panel, &mut progress)?,
    };
    bar.finish();

    std::fs::create_dir_all(&args.output)?;
    write_lines(&args.output.join("verdicts.jsonl"), &verdicts)?;
    let spent = model.spent();
    let prices = Prices {
        prompt: args.prompt_price,
        completion: args.completion_price,
    };
    summary.insert("spent".into(), json!(spent));
    summary.insert("cost".into(), spent.cost(prices).into());
    if args.json {
        println!("{}", Value::Object(summary));
    } else {
        summary
            .iter()
            .for_each(|(name, value)| println!("{name:<16}{value}"));
    }
    Ok(())
}

/// The judge: a server or a local model.
enum Judge {
    Server(Box<OpenAiClient>),
    Local(Box<LocalModel>),
}

impl Judge {
    fn new(args: &Args) -> Result<Self> {
        if let Some(endpoint) = &args.endpoint {
            let options = ServerOptions {
                api_key_env: args.api_key_env.clone(),
                attempts: args.retries,
                timeout: std::time::Duration::from_secs(args.timeout),
                requests_per_minute: args.requests_per_minute,
                tokens_per_minute: args.tokens_per_minute,
                ..ServerOptions::default()
            };
            let client = OpenAiClient::new(endpoint, &args.judge_model, options)?;
            return Ok(Judge::Server(Box::new(client)));
        }
        let Some(local) = &args.local else {
            bail!("give --endpoint or --local");
        };
        let folder = resolve(local, &HubOptions::from_env())?;
        let model = LocalModel::from_pretrained(&folder, &ft::device(&args.device)?)?;
        Ok(Judge::Local(Box::new(model)))
    }
}

impl ChatModel for Judge {
    fn identity(&self) -> String {
        match self {
            Judge::Server(model) => model.identity(),
            Judge::Local(model) => ChatModel::identity(&**model),
        }
    }

    fn chat(&self, request: &ChatRequest) -> ft::eval::Result<ChatReply> {
        match self {
            Judge::Server(model) => model.chat(request),
            Judge::Local(model) => model.chat(request),
        }
    }
}

type Progress<'a> = &'a mut (dyn FnMut(usize, usize) + Send);
type Outcome = Result<(Vec<Value>, Map<String, Value>)>;

fn pointwise(
    model: &dyn ChatModel,
    rows: &[Value],
    args: &Args,
    panel: &Panel,
    progress: Progress<'_>,
) -> Outcome {
    let items: Vec<Item> = parse(rows, &args.data)?;
    let judge = PointJudge {
        criteria: args.criteria.clone(),
        scale: match args.points {
            0 => Scale::Binary,
            most => Scale::Points(most),
        },
        shots: Vec::new(),
    };
    let found = judge_each(model, &judge, &items, panel, progress);
    let scores: Vec<Option<f64>> = found.iter().map(|v| Some(v.as_ref().ok()?.score)).collect();
    let given: Vec<f64> = scores.iter().flatten().copied().collect();
    let mut summary = counts(given.len(), found.len());
    let mean = given.iter().sum::<f64>() / given.len() as f64;
    summary.insert(
        "mean_score".into(),
        json!((!given.is_empty()).then_some(mean)),
    );
    let labels: Option<Vec<f64>> = rows.iter().map(|row| row["label"].as_f64()).collect();
    if let Some(labels) = labels.filter(|_| !given.is_empty()) {
        let calibration = match args.points {
            0 => {
                let yes: Vec<Option<bool>> = scores.iter().map(|s| s.map(|s| s > 0.5)).collect();
                let labels: Vec<bool> = labels.iter().map(|label| *label > 0.5).collect();
                json!(calibrate(&yes, &labels)?)
            }
            _ => json!(calibrate_scale(&scores, &labels)?),
        };
        summary.insert("calibration".into(), calibration);
    }
    let verdicts = rows
        .iter()
        .zip(&found)
        .map(|(row, verdict)| with(row, "verdict", json!(verdict)));
    Ok((verdicts.collect(), summary))
}

fn pairwise(
    model: &dyn ChatModel,
    rows: &[Value],
    args: &Args,
    panel: &Panel,
    progress: Progress<'_>,
) -> Outcome {
    let items: Vec<PairItem> = parse(rows, &args.data)?;
    let judge = PairJudge {
        criteria: args.criteria.clone(),
        shots: Vec::new(),
    };
    let found = judge_pairs(model, &judge, &items, panel, progress);
    let verdicts: Vec<Option<Preference>> = found.iter().map(Comparison::verdict).collect();
    let mut summary = counts(verdicts.iter().flatten().count(), found.len());
    summary.insert("win_rate_a".into(), json!(win_rate(&found)));
    summary.insert("position_bias".into(), json!(position_bias(&found)));
    summary.insert(
        "verbosity_bias".into(),
        json!(verbosity_bias(&items, &verdicts)?),
    );
    let label = |row: &Value| serde_json::from_value::<Preference>(row["label"].clone()).ok();
    let labels: Option<Vec<Preference>> = rows.iter().map(label).collect();
    if let Some(labels) = labels {
        let same = verdicts
            .iter()
            .zip(&labels)
            .filter(|(v, l)| **v == Some(**l))
            .count();
        let agreement =
            ft::eval::judges::proportion(same as f64, verdicts.iter().flatten().count());
        summary.insert("calibration".into(), json!({"agreement": agreement}));
    }
    if let Some(path) = &args.preferences {
        let rows = preference_rows(&items, &found, false)?;
        write_preferences(path, &rows)?;
        let written = json!({"rows": rows.rows.len(), "ties": rows.ties, "missing": rows.missing});
        summary.insert("preferences".into(), written);
    }
    let verdicts =
        rows.iter()
            .zip(found.iter().zip(verdicts))
            .map(|(row, (comparison, verdict))| {
                with(
                    &with(row, "verdict", json!(verdict)),
                    "orders",
                    json!(comparison),
                )
            });
    Ok((verdicts.collect(), summary))
}

fn refusal(
    model: &dyn ChatModel,
    rows: &[Value],
    args: &Args,
    panel: &Panel,
    progress: Progress<'_>,
) -> Outcome {
    let items: Vec<Item> = parse(rows, &args.data)?;
    let found = refusals(model, &items, panel, progress);
    let mut summary = counts(found.rate.total, items.len());
    summary.insert("refusal_rate".into(), json!(found.rate));
    let by_phrases = items
        .iter()
        .filter(|item| looks_like_refusal(&item.response))
        .count();
    let by_phrases = proportion(by_phrases as f64, items.len());
    summary.insert("refusal_rate_by_phrases".into(), json!(by_phrases));
    let verdicts = rows
        .iter()
        .zip(&found.verdicts)
        .map(|(row, verdict)| with(row, "refuses", json!(verdict)));
    Ok((verdicts.collect(), summary))
}

fn counts(verdicts: usize, all: usize) -> Map<String, Value> {
    let mut summary = Map::new();
    summary.insert("verdicts".into(), verdicts.into());
    summary.insert("missing".into(), (all - verdicts).into());
    summary
}

fn with(row: &Value, key: &str, value: Value) -> Value {
    let mut row = row.clone();
    row[key] = value;
    row
}

fn read(path: &Path) -> Result<Vec<Value>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text
        .split('\n')
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let rows: Vec<Value> = lines
        .map(|(i, line)| {
            let row: Value = serde_json::from_str(line)
                .with_context(|| format!("{}, line {}, is no JSON", path.display(), i + 1))?;
            ensure!(
                row.is_object(),
                "{}, line {}, is no JSON object",
                path.display(),
                i + 1
            );
            Ok(row)
        })
        .collect::<Result<_>>()?;
    ensure!(
        !rows.is_empty(),
        "{} is empty: a JSON object a line is needed",
        path.display()
    );
    Ok(rows)
}

fn parse<T: serde::de::DeserializeOwned>(rows: &[Value], path: &Path) -> Result<Vec<T>> {
    let rows = rows.iter().enumerate();
    rows.map(|(i, row)| {
        serde_json::from_value(row.clone()).with_context(|| {
            format!(
                "row {} of {} cannot be judged in this mode",
                i + 1,
                path.display()
            )
        })
    })
    .collect()
}

/// Writes a file whole or not at all.
fn write_lines(path: &Path, rows: &[Value]) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    for row in rows {
        writeln!(file, "{row}")?;
    }
    file.persist(path)?;
    Ok(())
}
