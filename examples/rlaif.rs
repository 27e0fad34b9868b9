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
//! the best and the worst of `--samples` answers are the pair. Answers are kept in `answers.jsonl` in the output folder as they come,
//! the pairs in `pairs.jsonl`, and what both depend on in `pairs.json`: `--resume` continues from them if that is the same, and
//! `--pairs-only` stops there. `--best FILE` writes the best answer to each prompt as
//! instruction data; with a judge, those that won and lost no comparison. Answers that were cut at `--max-new-tokens` are left out. `--eval-data` is a file
//! of pairs.

use std::cmp::Ordering;
use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use ft::align::loss::{PairLosses, PairSettings};
use ft::align::reward::WeightedSum;
use ft::align::{
    Dpo, DpoConfig, JudgedPair, ScoredRollout, best, best_and_worst, comparisons, preference_row,
    sample_and_score, sample_answers, sft_row, undefeated,
};
use ft::burn::module::Module;
use ft::conversation_text;
use ft::core::safetensors_folder::write_file;
use ft::core::{AutoCausalLm, RolloutConfig};
use ft::data::{PreferenceDataset, Prompt, PromptDataset, PromptExample};
use ft::eval::judges::{CachedModel, PairItem, PairJudge, Preference, judge_pairs};
use ft::kernels::{PackedFormat, Precision, precision};
use serde_json::{Map, Value};

#[path = "shared/alignment.rs"]
mod alignment;
#[path = "shared/judge.rs"]
#[allow(dead_code)] // Its verdicts as a reward.
mod judge;
#[path = "shared/sampling.rs"]
#[allow(dead_code)] // The result of training as it goes.
mod sampling;
use alignment::{Common, Start, reference, report_pairs, usual_reference, with_contents};
use judge::Judge;
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
    /// Keep in --best what has this reward or more. Without it, the best answers to prompts whose answers are not equally good.
    #[arg(long, requires_all = ["best", "reward"])]
    min_reward: Option<f64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        args.sampling.reward.is_none() || !args.sampling.judge.any(),
        "either a judge or --reward compares the answers: leave one of them out"
    );
    ensure!(
        args.samples >= 2,
        "--samples must be 2 or more: a pair has two answers"
    );
    let mut common = args.common.clone();
    let begun = common.output.join("train_log.jsonl").is_file();
    ensure!(
        common.resume || common.overwrite || !(begun || has_answers(&common.output)),
        "{} contains a run: continue it with --resume, or start again with --overwrite",
        common.output.display()
    );
    // A run that was stopped while it sampled has no training yet.
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
    let rows = args.sampling.max_prompt_tokens;
    let prompts = PromptDataset::load(&common.data, &start.tokenizer, rows)?;
    eprintln!("{}: {}", common.data.display(), prompts.report);
    let header = header(&args, &start, &prompts)?;
    check_header(&args, &header)?;
    let policy = common.policy(&start)?;
    let pairs = common.output.join("pairs.jsonl");
    let name = args.reference.as_deref().unwrap_or(usual_reference(common));
    let reference = reference(name, &policy, &start)?;
    let longest = args.sampling.max_prompt_tokens + args.sampling.max_new_tokens + 16;
    let load = |file: &Path| PreferenceDataset::load(file, &start.tokenizer, longest);
    if let Some(file) = &common.eval_data {
        load(file)?;
    }
    if !pairs.is_file() {
        write_pairs(&args, &start, &prompts.examples, &policy, &pairs)?;
    }
    if args.pairs_only {
        return Ok(());
    }

    let dataset = PreferenceDataset::load(&pairs, &start.tokenizer, longest)?;
    eprintln!("{}: {}", pairs.display(), dataset.report);
    let identity = vec![
        ("rows", dataset.fingerprint().into()),
        ("loss", args.loss.as_str().into()),
        ("beta", args.beta.into()),
        ("batch_size", args.batch_size.into()),
        ("reference", with_contents(args.reference.as_deref())?),
        ("pairs", header),
    ];
    let seed = Some(common.seed);
    let (train, held_out) = common.split(dataset, load)?;
    let method = Dpo::new(config, reference, &policy, train, args.batch_size, seed)?
        .with_evaluation(held_out)?;
    let (_, report) = common.fit(&start, policy, method, &identity, None)?;
    report_pairs(common, &report);
    Ok(())
}

/// The file with what answers and pairs depend on.
const HEADER: &str = "pairs.json";
/// The files with answers and pairs.
const ANSWERS: [&str; 2] = ["answers.jsonl", "pairs.jsonl"];

/// What answers and pairs depend on.
fn header(args: &Args, start: &Start, prompts: &PromptDataset) -> Result<Value> {
    let adapter = args.common.adapter.as_ref();
    let adapter = adapter.map(|folder| folder.join("adapter_model.safetensors"));
    let mut header: Map<String, Value> = Map::from_iter(
        [
            ("rows", prompts.fingerprint().into()),
            ("base_weights", start.stage.base_weights.as_str().into()),
            (
                "adapter",
                with_contents(adapter.as_deref().and_then(Path::to_str))?,
            ),
            (
                "base_format",
                args.common.base_format.map(PackedFormat::name).into(),
            ),
            (
                "precision",
                match precision() {
                    Precision::F32 => Value::Null,
                    rounded => rounded.to_string().into(),
                },
            ),
            ("samples", args.samples.into()),
            ("seed", args.common.seed.into()),
        ]
        .map(|(name, value)| (name.to_string(), value)),
    );
    let sampling = args.sampling.identity()?;
    header.extend(
        sampling
            .into_iter()
            .map(|(name, value)| (name.to_string(), value)),
    );
    Ok(header.into())
}

fn has_answers(output: &Path) -> bool {
    ANSWERS.iter().any(|name| output.join(name).is_file())
}

/// Refuses pairs that were made in another way, and removes those that are to be made again.
fn check_header(args: &Args, header: &Value) -> Result<()> {
    let output = &args.common.output;
    let path = output.join(HEADER);
    if args.common.overwrite {
        for name in ANSWERS {
            let file = output.join(name);
            if file.is_file() {
                std::fs::remove_file(&file)
                    .with_context(|| format!("cannot remove {}", file.display()))?;
            }
        }
    } else if has_answers(output) {
        let kept = std::fs::read(&path).with_context(|| {
            format!(
                "{} is missing, so it is not known how the pairs beside it were made: start again with --overwrite, or train on \
                 them with the example `dpo`",
                path.display()
            )
        })?;
        let kept: Value = serde_json::from_slice(&kept)
            .with_context(|| format!("{} is no header of pairs", path.display()))?;
        let names = header.as_object().into_iter().flat_map(Map::keys);
        let differing: Vec<&str> = (names.filter(|name| kept[*name] != header[*name]))
            .map(String::as_str)
            .collect();
        ensure!(
            differing.is_empty(),
            "the pairs in {} were made with another setting of {}: give the same, start again with --overwrite, or take another \
             --output",
            output.display(),
            differing.join(", ")
        );
        return Ok(());
    }
    write_file(&path, header.to_string().as_bytes())?;
    Ok(())
}

/// Answers to all prompts, a chunk of them after the other, each of which is kept as soon as it is there.
fn answers(
    args: &Args,
    start: &Start,
    prompts: &[PromptExample],
    policy: &AutoCausalLm,
    rewards: Option<&WeightedSum>,
) -> Result<Vec<Vec<ScoredRollout>>> {
    let path = args.common.output.join("answers.jsonl");
    let kept = match path.is_file() {
        true => std::fs::read_to_string(&path)?,
        false => String::new(),
    };
    // A line that was being written when the program was stopped is made again.
    let (mut answers, mut whole, mut chunks) = (Vec::new(), 0, 0);
    for line in kept
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let Ok(chunk) = serde_json::from_str::<Vec<Vec<ScoredRollout>>>(line) else {
            break;
        };
        answers.extend(chunk);
        whole += line.len();
        chunks += 1;
    }
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.set_len(whole as u64)?;
    file.seek(SeekFrom::End(0))?;
    let config = RolloutConfig {
        num_generations: args.samples,
        generation: args.sampling.generation(start)?,
        max_rows: 64,
    };
    let limit = args.sampling.reward_time_limit();
    let (model, tokenizer) = (&policy.valid(), &start.tokenizer);
    for (number, chunk) in prompts.chunks(32).enumerate().skip(chunks) {
        let seed = ft::core::mix_seed(args.common.seed, number as u64);
        let found = match rewards {
            Some(rewards) => {
                sample_and_score(model, tokenizer, chunk, rewards, &config, limit, seed)?
            }
            None => sample_answers(model, tokenizer, chunk, &config, seed)?,
        };
        writeln!(file, "{}", serde_json::to_string(&found)?)?;
        file.sync_data()?;
        answers.extend(found);
        eprintln!("answered {} of {} prompts", answers.len(), prompts.len());
    }
    Ok(answers)
}

/// Samples answers and writes the pairs on which there is a preference.
fn write_pairs(
    args: &Args,
    start: &Start,
    examples: &[PromptExample],
    policy: &AutoCausalLm,
    file: &Path,
) -> Result<()> {
    let (common, sampling) = (&args.common, &args.sampling);
    let judge = sampling.judge.model(&common.computation.device)?;
    if judge.is_none() && sampling.reward.is_none() {
        bail!("nothing compares the answers: give --judge-endpoint, --judge-local or --reward")
    }
    let rewards = match &judge {
        None => Some(sampling.rewards(common)?),
        Some(_) => None,
    };
    let mut answers = answers(args, start, examples, policy, rewards.as_ref())?;
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
        let rows: Vec<String> = match args.sampling.reward {
            Some(_) => (examples.iter().zip(&answers))
                .filter_map(|(prompt, answers)| {
                    let best = match args.min_reward {
                        Some(least) => best(answers).filter(|best| best.reward >= Some(least))?,
                        None => best_and_worst(answers)?.0,
                    };
                    Some(sft_row(prompt, best).to_string())
                })
                .collect(),
            None => (undefeated(&pairs).into_iter())
                .map(|(prompt, answer)| sft_row(prompt, answer).to_string())
                .collect(),
        };
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        write_file(file, lines.as_bytes())?;
        eprintln!("{} answers in {}", rows.len(), file.display());
    }
    Ok(())
}

fn by_reward<'a>(
    prompts: &'a [PromptExample],
    answers: &'a [Vec<ScoredRollout>],
) -> Vec<JudgedPair<'a>> {
    let pairs = prompts.iter().zip(answers).filter_map(|(prompt, answers)| {
        let (chosen, rejected) = best_and_worst(answers)?;
        Some(JudgedPair {
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
    judge: Judge,
    prompts: &'a [PromptExample],
    answers: &'a [Vec<ScoredRollout>],
    file: &Path,
) -> Result<Vec<JudgedPair<'a>>> {
    let sides = comparisons(prompts, answers);
    let items = sides.iter().map(|one| PairItem {
        prompt: text(&one.prompt.sample.prompt),
        response_a: one.first.rollout.text.clone(),
        response_b: one.second.rollout.text.clone(),
        reference: None,
    });
    let items: Vec<PairItem> = items.collect();
    let model = CachedModel::open(judge, &file.with_extension("replies.jsonl"))?;
    let judge = PairJudge {
        criteria: args.sampling.judge.criteria()?,
        shots: Vec::new(),
    };
    let panel = args.sampling.judge.panel();
    let found = judge_pairs(&model, &judge, &items, &panel, &mut |done, of| {
        if done == of || done.is_multiple_of(100) {
            eprintln!("{done} of {of} verdicts");
        }
    });
    let missing = found
        .iter()
        .filter(|comparison| comparison.verdict().is_none());
    let missing = missing.count();
    let judged = sides
        .into_iter()
        .zip(&found)
        .filter_map(|(side, comparison)| {
            side.judged(match comparison.verdict()? {
                Preference::A => Ordering::Greater,
                Preference::B => Ordering::Less,
                Preference::Tie => Ordering::Equal,
            })
        });
    let pairs: Vec<JudgedPair<'a>> = judged.collect();
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
        Prompt::Messages(messages) => conversation_text(messages),
    }
}

fn write_lines(file: &Path, rows: impl Iterator<Item = Value>) -> Result<()> {
    let lines: String = rows.map(|row| format!("{row}\n")).collect();
    write_file(file, lines.as_bytes()).with_context(|| format!("cannot write {}", file.display()))
}
