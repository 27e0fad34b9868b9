//! Reinforcement learning from AI feedback: a model answers prompts several times, a judge or a reward picks the better
//! answers, and the model is trained on the pairs (Lee et al., 2023, arXiv:2309.00267).
//!
//! ```sh
//! llama-server -m judge.gguf --port 8080 &
//! cargo run --release --example rlaif -- --model DIR --data prompts.jsonl --output my-adapter \
//!     --judge-endpoint http://localhost:8080/v1 --judge-model any
//! ```
//!
//! Rows have a prompt; `ft::data::PromptSample` lists the forms. The judge is a server with OpenAI's protocol or a local model.
//! It sees each pair in both orders, and pairs on which the orders disagree are dropped. With `--reward` instead of a judge,
//! the best and the worst of `--samples` answers are the pair. The pairs are written to `pairs.jsonl` in the output folder:
//! `--resume` continues from them, and `--pairs-only` stops there. `--best FILE` writes the best answer to each prompt as
//! instruction data; with a judge, those that won. Answers that were cut at `--max-new-tokens` are left out. `--eval-data` is a file
//! of pairs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use ft::align::loss::{PairLosses, PairSettings};
use ft::align::reward::{Reward, WeightedSum, from_fn};
use ft::align::{
    Dpo, DpoConfig, ScoredRollout, best, best_and_worst, preference_row, sample_and_score, sft_row,
};
use ft::burn::module::Module;
use ft::core::safetensors_folder::write_file;
use ft::core::{AutoCausalLm, HubOptions, RolloutConfig, resolve};
use ft::data::{PreferenceDataset, Prompt, PromptDataset, PromptExample};
use ft::eval::judges::{
    CachedModel, ChatModel, OpenAiClient, OpenAiOptions, PairItem, PairJudge, Panel, Preference,
    judge_pairs,
};
use ft::eval::models::LocalModel;
use serde_json::Value;

#[path = "shared/alignment.rs"]
mod alignment;
#[path = "shared/sampling.rs"]
#[allow(dead_code)] // The result of training as it goes.
mod sampling;
use alignment::{Common, Start, reference, report_pairs, usual_reference};
use sampling::Sampling;

/// Reinforcement learning from AI feedback.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    sampling: Sampling,
    /// Answers to each prompt. A judge compares the first with each of the others.
    #[arg(long, default_value_t = 2)]
    samples: usize,
    /// Address of the judge, a server with OpenAI's protocol.
    #[arg(long, conflicts_with_all = ["judge_local", "reward"])]
    judge_endpoint: Option<String>,
    /// The judge's name on the server.
    #[arg(long, default_value = "default")]
    judge_model: String,
    /// Environment variable with the server's key.
    #[arg(long)]
    api_key_env: Option<String>,
    /// Folder or hub id of a local judge.
    #[arg(long, conflicts_with = "reward")]
    judge_local: Option<String>,
    /// Criteria for good answers: a text, or a file with it.
    #[arg(
        long,
        default_value = "The response does what the prompt asks for, correctly and completely."
    )]
    criteria: String,
    /// dpo's losses: sigmoid, ipo, hinge, ..., or several with weights.
    #[arg(long, default_value = "sigmoid")]
    loss: String,
    /// How strongly the policy is kept near the reference.
    #[arg(long, default_value_t = 0.1)]
    beta: f64,
    /// adapter-off, start, or a model folder.
    #[arg(long)]
    reference: Option<String>,
    /// Pairs per batch.
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    /// Only write the pairs.
    #[arg(long)]
    pairs_only: bool,
    /// File for the better answers, as instruction data.
    #[arg(long)]
    best: Option<PathBuf>,
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let mut args = Args::parse();
    if Path::new(&args.criteria).is_file() {
        args.criteria = std::fs::read_to_string(&args.criteria)?;
    }
    let mut common = args.common.clone();
    let begun = common.output.join("train_log.jsonl").is_file();
    ensure!(
        common.resume || common.overwrite || !begun,
        "{} contains a run: continue it with --resume, or start again with --overwrite",
        common.output.display()
    );
    // A run that was stopped while it sampled has pairs, or nothing, and no training yet.
    common.resume &= begun;
    let common = &common;
    let config = DpoConfig {
        losses: args.loss.parse::<PairLosses>()?,
        settings: PairSettings {
            beta: args.beta,
            ..PairSettings::default()
        },
        ..DpoConfig::default()
    };
    config.validate()?;
    let start = common.start("rlaif")?;
    let policy = common.policy(&start)?;
    let pairs = common.output.join("pairs.jsonl");
    let name = args.reference.as_deref().unwrap_or(usual_reference(common));
    let reference = reference(name, &policy, &start)?;
    let longest = args.sampling.max_prompt_tokens + args.sampling.max_new_tokens + 16;
    let load = |file: &Path| PreferenceDataset::load(file, &start.tokenizer, longest);
    if let Some(file) = &common.eval_data {
        load(file)?;
    }
    if !(args.common.resume && pairs.is_file()) {
        write_pairs(&args, &start, &policy, &pairs)?;
    }
    if args.pairs_only {
        return Ok(());
    }

    let dataset = PreferenceDataset::load(&pairs, &start.tokenizer, longest)?;
    eprintln!("{}: {}", pairs.display(), dataset.report);
    let mut identity = vec![
        ("rows", dataset.fingerprint().into()),
        ("loss", args.loss.as_str().into()),
        ("beta", args.beta.into()),
        ("batch_size", args.batch_size.into()),
        ("reference", args.reference.clone().into()),
    ];
    identity.extend(args.sampling.identity());
    let seed = Some(common.seed);
    let (train, held_out) = common.split(dataset, load)?;
    let method = Dpo::new(config, reference, &policy, train, args.batch_size, seed)?
        .with_evaluation(held_out)?;
    let (_, report) = common.fit(&start, policy, method, &identity, None)?;
    report_pairs(common, &report);
    Ok(())
}

/// Samples answers and writes the pairs on which there is a preference.
fn write_pairs(args: &Args, start: &Start, policy: &AutoCausalLm, file: &Path) -> Result<()> {
    let (common, sampling) = (&args.common, &args.sampling);
    ensure!(
        args.samples >= 2,
        "--samples must be 2 or more: a pair has two answers"
    );
    let rows = sampling.max_prompt_tokens;
    let prompts = PromptDataset::load(&common.data, &start.tokenizer, rows)?;
    eprintln!("{}: {}", common.data.display(), prompts.report);
    let judge = match (&args.judge_endpoint, &args.judge_local) {
        (None, None) if sampling.reward.is_none() => {
            bail!("nothing compares the answers: give --judge-endpoint, --judge-local or --reward")
        }
        (None, None) => None,
        (Some(endpoint), _) => {
            let options = OpenAiOptions {
                api_key_env: args.api_key_env.clone(),
                ..OpenAiOptions::default()
            };
            let client = OpenAiClient::new(endpoint, &args.judge_model, options)?;
            Some(Box::new(client) as Box<dyn ChatModel>)
        }
        (None, Some(local)) => {
            let folder = resolve(local, &HubOptions::from_env())?;
            let model = LocalModel::from_pretrained(&folder, &ft::device(&common.device)?)?;
            Some(Box::new(model) as Box<dyn ChatModel>)
        }
    };
    let config = RolloutConfig {
        num_generations: args.samples,
        generation: sampling.generation(start)?,
        max_rows: 64,
    };
    let rewards = match &judge {
        None => sampling.rewards(common)?,
        Some(_) => none()?,
    };
    let limit = sampling.reward_time_limit();
    let (model, tokenizer) = (&policy.valid(), &start.tokenizer);
    let mut answers = Vec::with_capacity(prompts.examples.len());
    for (chunk, prompts_of_chunk) in prompts.examples.chunks(32).enumerate() {
        let seed = ft::core::mix_seed(common.seed, chunk as u64);
        answers.extend(sample_and_score(
            model,
            tokenizer,
            prompts_of_chunk,
            &rewards,
            &config,
            limit,
            seed,
        )?);
        eprintln!(
            "answered {} of {} prompts",
            answers.len(),
            prompts.examples.len()
        );
    }
    let examples = &prompts.examples;
    // A row has an end behind its answer, which an answer that was cut has not.
    let all: usize = answers.iter().map(Vec::len).sum();
    for answers in &mut answers {
        answers.retain(|answer| answer.rollout.finished);
    }
    let kept: usize = answers.iter().map(Vec::len).sum();
    eprintln!(
        "{} of {all} answers were cut at --max-new-tokens and left out",
        all - kept
    );
    let pairs = match judge {
        None => by_reward(examples, &answers),
        Some(judge) => by_judge(args, judge, examples, &answers, file)?,
    };
    ensure!(
        !pairs.is_empty(),
        "no pair is left of {} prompts: the answers to each are equally good, or were cut",
        examples.len()
    );
    let rows = pairs
        .iter()
        .map(|pair| preference_row(pair.prompt, pair.chosen, pair.rejected));
    write_lines(file, rows)?;
    eprintln!("{} pairs in {}", pairs.len(), file.display());
    if let Some(file) = &args.best {
        let mut rows: Vec<String> = match args.sampling.reward {
            Some(_) => examples
                .iter()
                .zip(&answers)
                .filter_map(|(prompt, answers)| Some(sft_row(prompt, best(answers)?).to_string()))
                .collect(),
            None => (pairs.iter())
                .map(|pair| sft_row(pair.prompt, pair.chosen).to_string())
                .collect(),
        };
        // An answer may have won several comparisons.
        rows.dedup();
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        write_file(file, lines.as_bytes())?;
        eprintln!("{} answers in {}", rows.len(), file.display());
    }
    Ok(())
}

/// A reward that applies to nothing, where a judge compares.
fn none() -> Result<WeightedSum> {
    let none: Arc<dyn Reward> = Arc::new(from_fn("none", |_| Ok(None)));
    Ok(WeightedSum::new([(none, 1.0)])?)
}

struct Pair<'a> {
    prompt: &'a PromptExample,
    chosen: &'a ScoredRollout,
    rejected: &'a ScoredRollout,
}

fn by_reward<'a>(prompts: &'a [PromptExample], answers: &'a [Vec<ScoredRollout>]) -> Vec<Pair<'a>> {
    let pairs = prompts.iter().zip(answers).filter_map(|(prompt, answers)| {
        let (chosen, rejected) = best_and_worst(answers)?;
        Some(Pair {
            prompt,
            chosen,
            rejected,
        })
    });
    pairs.collect()
}

/// The pairs that the judge decides alike in both orders. Its replies are kept beside the file, so that an interrupted run
/// asks for none twice.
fn by_judge<'a>(
    args: &Args,
    judge: Box<dyn ChatModel>,
    prompts: &'a [PromptExample],
    answers: &'a [Vec<ScoredRollout>],
    file: &Path,
) -> Result<Vec<Pair<'a>>> {
    let (mut sides, mut items) = (Vec::new(), Vec::new());
    for (prompt, answers) in prompts.iter().zip(answers) {
        let Some((first, others)) = answers.split_first() else {
            continue;
        };
        for other in others
            .iter()
            .filter(|other| other.rollout.text != first.rollout.text)
        {
            sides.push((prompt, first, other));
            items.push(PairItem {
                prompt: text(&prompt.sample.prompt),
                response_a: first.rollout.text.clone(),
                response_b: other.rollout.text.clone(),
                reference: None,
            });
        }
    }
    let model = CachedModel::open(judge, &file.with_extension("replies.jsonl"))?;
    let judge = PairJudge {
        criteria: args.criteria.clone(),
        shots: Vec::new(),
    };
    let panel = Panel {
        concurrency: if args.judge_local.is_some() { 1 } else { 4 },
        ..Panel::default()
    };
    let found = judge_pairs(&model, &judge, &items, &panel, &mut |done, of| {
        if done == of || done.is_multiple_of(100) {
            eprintln!("{done} of {of} verdicts");
        }
    });
    let missing = found
        .iter()
        .filter(|comparison| comparison.verdict().is_none());
    let missing = missing.count();
    let mut pairs = Vec::new();
    for ((prompt, a, b), comparison) in sides.into_iter().zip(&found) {
        let (chosen, rejected) = match comparison.verdict() {
            Some(Preference::A) => (a, b),
            Some(Preference::B) => (b, a),
            Some(Preference::Tie) | None => continue,
        };
        pairs.push(Pair {
            prompt,
            chosen,
            rejected,
        });
    }
    eprintln!(
        "{} pairs: {} decided, {} ties, {missing} without a verdict",
        found.len(),
        pairs.len(),
        found.len() - pairs.len() - missing
    );
    Ok(pairs)
}

/// The prompt as the judge reads it.
fn text(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(messages) => match messages.as_slice() {
            [one] => one.text().unwrap_or_default().to_string(),
            several => {
                let turns = several
                    .iter()
                    .map(|turn| format!("{}: {}", turn.role, turn.text().unwrap_or_default()));
                turns.collect::<Vec<_>>().join("\n\n")
            }
        },
    }
}

fn write_lines(file: &Path, rows: impl Iterator<Item = Value>) -> Result<()> {
    let lines: String = rows.map(|row| format!("{row}\n")).collect();
    write_file(file, lines.as_bytes()).with_context(|| format!("cannot write {}", file.display()))
}
