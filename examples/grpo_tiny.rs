//! Learning from a verifier, offline and in minutes: a small model answers questions, and the reward is whether the answer is in
//! quotation marks and right.
//!
//! No arguments or network are needed: the model is in `assets/`, the questions are in `examples/data/`.
//!
//! ```sh
//! cargo run --release --example grpo_tiny
//! ```
//!
//! 1. The pretrained model sees a few questions with their answers, of which some are in quotation marks: enough to learn what an
//!    answer looks like, not enough to answer well, nor to quote its answers.
//! 2. It samples answers to other questions. The right answer in quotation marks counts fully, quotation marks around any answer
//!    count half, words in common with the right answer count a little (GRPO).
//! 3. Held-out questions are answered before and after. The form is learned; many answers stay wrong, since they are names that a
//!    model of this size guesses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::align::loss::PolicyLoss;
use ft::align::reward::{Reward, WeightedSum, by_name, from_fn, named};
use ft::align::{Grpo, GrpoConfig};
use ft::core::{AutoCausalLm, GenerationConfig, Message, Tokenizer};
use ft::data::{
    Collation, Format, Prompt, PromptDataset, PromptSample, Sample, SftDataset, read_rows,
};
use ft::peft::{LoraConfig, attach, merge_and_unload, save_adapter};
use ft::train::{Schedule, TrainConfig, Trainer, next_token_loss};
use serde_json::{Map, json};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-llama");
const DATA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/data/instructions.jsonl"
);

/// Learning from a verifier.
#[derive(Parser)]
struct Args {
    /// Folder for the adapter.
    #[arg(long, default_value = "runs/grpo_tiny")]
    output: PathBuf,
    /// Questions that are shown with their answers.
    #[arg(long, default_value_t = 160)]
    shown: usize,
    /// Passes over the questions that are shown.
    #[arg(long, default_value_t = 2.0)]
    shown_epochs: f64,
    /// Updates from sampled answers.
    #[arg(long, default_value_t = 250)]
    steps: usize,
    #[arg(long, default_value_t = 4e-3)]
    lr: f64,
    #[arg(long, default_value_t = 16)]
    prompts_per_step: usize,
    #[arg(long, default_value_t = 8)]
    group_size: usize,
    /// Seed of order, factors and sampling.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let start = Instant::now();
    let device = ft::device("cpu")?.autodiff();
    let folder = Path::new(MODEL);
    let tokenizer = Tokenizer::from_pretrained(folder)?;
    let model = AutoCausalLm::from_pretrained(folder, &device)?;
    let lora = LoraConfig {
        r: 16,
        lora_alpha: 32.0,
        ..LoraConfig::default()
    };

    // Every tenth question is held out; the first others are shown with their answers.
    let rows = read_rows(Path::new(DATA))?;
    let samples = rows.iter().enumerate();
    let samples = samples.map(|(index, row)| Ok(Format::Messages.parse(row, index + 1)?));
    let samples = samples.collect::<Result<Vec<Sample>>>()?;
    let (held_out, others): (Vec<_>, Vec<_>) = samples
        .into_iter()
        .enumerate()
        .partition(|(index, _)| index % 10 == 0);
    let (shown, asked) = others.split_at(args.shown.min(others.len()));
    let shown = shown.iter().enumerate();
    let shown: Vec<Sample> = shown
        .map(|(index, (_, sample))| match index % 4 {
            0 => quoted(sample.clone()),
            _ => sample.clone(),
        })
        .collect();
    let prompts = |samples: &[(usize, Sample)]| -> Result<PromptDataset> {
        let prompts = samples.iter().map(|(_, sample)| question(sample));
        let prompts = prompts.collect::<Result<Vec<PromptSample>>>()?;
        Ok(PromptDataset::from_samples(prompts, &tokenizer, 128)?)
    };
    let (asked, held_out) = (prompts(asked)?, prompts(&held_out)?);

    // 1. What an answer looks like.
    eprintln!("{} questions are shown with their answers.", shown.len());
    let pad = tokenizer.pad_token_id().unwrap_or(0);
    let batches = SftDataset::from_samples(&shown, &tokenizer, 256)?.into_batches(
        8,
        Collation::Padded { multiple: 1 },
        Some(args.seed),
        pad,
    )?;
    let config = TrainConfig {
        learning_rate: 3e-3,
        schedule: Schedule::Cosine,
        epochs: args.shown_epochs,
        seed: args.seed,
        ..TrainConfig::default()
    };
    let model = attach(model, &lora, "default", args.seed)?;
    let (model, _) = Trainer::new(config, batches, next_token_loss).fit(model)?;
    let model = merge_and_unload(model)?;

    // 2. Right or wrong, on other questions.
    eprintln!("{} other questions are answered by trial.", asked.len());
    let words = from_fn("words", |completion| {
        let answer = completion
            .column("answer")
            .and_then(|answer| answer.as_str());
        let bare = |text: &str| text.trim().trim_matches('"').to_string();
        Ok(answer.map(|answer| overlap(&bare(completion.text), &bare(answer))))
    });
    let words: Arc<dyn Reward> = Arc::new(words);
    let form = named("quoted", by_name("regex:^\".*\"$")?);
    let rewards = WeightedSum::new([(by_name("exact")?, 1.0), (form, 0.5), (words, 0.2)])?;
    let policy = attach(model, &lora, "default", args.seed)?;
    let config = GrpoConfig {
        loss: PolicyLoss::Dapo,
        num_generations: args.group_size,
        prompts_per_batch: args.prompts_per_step,
        generation: GenerationConfig {
            max_new_tokens: 24,
            temperature: 1.0,
            repetition_penalty: 1.0,
            ..GenerationConfig::from_pretrained(folder, Some(&tokenizer))?
        },
        max_rows: 256,
        ..GrpoConfig::default()
    };
    let (held, seed) = (held_out.len(), Some(args.seed));
    let mut method = Grpo::new(config, rewards, tokenizer, None, &policy, asked, seed)?
        .with_evaluation(held_out)?;
    let config = TrainConfig {
        learning_rate: args.lr,
        schedule: Schedule::Linear,
        max_steps: Some(args.steps),
        eval_every: Some((args.steps / 4).max(1)),
        output_dir: Some(args.output.join("training")),
        overwrite: true,
        save_total_limit: Some(1),
        seed: args.seed,
        ..TrainConfig::default()
    };
    let (policy, report) = Trainer::with_method(config, &mut method).fit(policy)?;
    let folder = save_adapter(&policy, "default", &args.output.join("adapter"))?;

    // 3. Before and after.
    let measured = |name: &str| -> Result<Vec<f64>> {
        let found = report.evaluations.iter().map(|evaluation| {
            let found = evaluation.metrics.metrics.get(name).copied();
            found.with_context(|| format!("the evaluation has no {name}"))
        });
        found.collect()
    };
    let (right, form) = (
        measured("rewards/exact/mean")?,
        measured("rewards/quoted/mean")?,
    );
    let ends =
        |values: &[f64]| [values[0], values[values.len() - 1]].map(|share| share * held as f64);
    let ([before, after], [form_before, form_after]) = (ends(&right), ends(&form));
    let sampled = method.sampled();
    eprintln!(
        "\nHeld-out questions answered in quotation marks: {form_before:.0} of {held} before, {form_after:.0} after {} updates; in \
         quotation marks and correctly: {before:.0} and {after:.0}.\nThe adapter is in {} ({:.0} s in all, {:.0} sampled tokens a second).",
        report.steps,
        folder.display(),
        start.elapsed().as_secs_f64(),
        sampled.tokens as f64 / sampled.generation.as_secs_f64(),
    );
    if args.json {
        let rewards: Vec<f64> = report.train_metrics.iter().map(|m| m["reward"]).collect();
        let line = json!({
            "rewards": rewards,
            "eval_accuracies": right,
            "eval_quoted": form,
            "seconds": start.elapsed().as_secs_f64(),
            "seconds_generation": sampled.generation.as_secs_f64(),
            "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
    ensure!(
        after > before && form_after > form_before,
        "the answers did not become better: {before:.0} and {after:.0} right, {form_before:.0} and {form_after:.0} quoted"
    );
    Ok(())
}

/// The conversation with its answer in quotation marks.
fn quoted(sample: Sample) -> Sample {
    let Sample::Conversation(mut conversation) = sample else {
        return sample;
    };
    if let Some(answer) = conversation.messages.last_mut()
        && let Some(text) = answer.text()
    {
        *answer = Message::new("assistant", format!("\"{text}\""));
    }
    Sample::Conversation(conversation)
}

/// The question of a conversation, with the answer as a column.
fn question(sample: &Sample) -> Result<PromptSample> {
    let Sample::Conversation(conversation) = sample else {
        anyhow::bail!("a row without messages");
    };
    let (answer, prompt) = conversation
        .messages
        .split_last()
        .context("a row without messages")?;
    let answer = answer.text().context("an answer without text")?;
    Ok(PromptSample {
        prompt: Prompt::Messages(prompt.to_vec()),
        tools: None,
        columns: Map::from_iter([("answer".to_string(), format!("\"{answer}\"").into())]),
    })
}

/// The share of the words that two texts have in common, place by place.
fn overlap(a: &str, b: &str) -> f64 {
    let (a, b): (Vec<&str>, Vec<&str>) = (
        a.split_whitespace().collect(),
        b.split_whitespace().collect(),
    );
    let same = a.iter().zip(&b).filter(|(a, b)| a == b).count();
    same as f64 / a.len().max(b.len()).max(1) as f64
}
