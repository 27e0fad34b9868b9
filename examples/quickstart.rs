//! The whole process in a few minutes: a pretrained model learns to answer questions, and is measured before and after.
//!
//! No arguments or network are needed: the model is in `assets/`, the questions are in `examples/data/`.
//!
//! ```sh
//! cargo run --release --example quickstart
//! ```
//!
//! 1. Load the model, which was pretrained on simple English and not on chats.
//! 2. Measure its answers to held-out questions.
//! 3. Train low-rank factors on its frozen weights.
//! 4. Measure again; save the adapter, merge it, save the merged model, and check that its answers are the same.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::burn::module::Module;
use ft::burn::tensor::Device;
use ft::core::{
    AutoCausalLm, GenerationConfig, Message, SaveOptions, Tokenizer, copy_generation_config,
    generate,
};
use ft::data::{Collation, Format, Sample, SftBatches, SftDataset, read_rows};
use ft::peft::{LoraConfig, attach, merge_and_unload, save_adapter, trainable_parameters};
use ft::train::{Schedule, TrainConfig, Trainer, next_token_loss};
use serde_json::json;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-llama");
const DATA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/data/instructions.jsonl"
);
/// One of this many questions is held out.
const HELD_OUT_EVERY: usize = 10;
const SEED: u64 = 42;

/// The whole process in a few minutes: a small model learns to answer questions.
#[derive(Parser)]
struct Args {
    /// Folder for the adapter and the merged model.
    #[arg(long, default_value = "runs/quickstart")]
    output: PathBuf,
    /// Passes over the questions.
    #[arg(long, default_value_t = 6.0)]
    epochs: f64,
    /// cpu, cuda, wgpu, vulkan or metal.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let start = Instant::now();
    let device = ft::device(&args.device)?;

    // 1. Model and data.
    let folder = Path::new(MODEL);
    let tokenizer = Tokenizer::from_pretrained(folder)?;
    let model = AutoCausalLm::from_pretrained(folder, &device.clone().autodiff())?;
    let (_, parameters) = trainable_parameters(&model);
    let (mut learnt, mut held_out) = (Vec::new(), Vec::new());
    for (index, row) in read_rows(Path::new(DATA))?.iter().enumerate() {
        let sample = Format::Messages.parse(row, index + 1)?;
        let held = index % HELD_OUT_EVERY == 0;
        if held { &mut held_out } else { &mut learnt }.push(sample);
    }
    eprintln!(
        "A model of {:.1} million parameters, {} questions to learn from, {} held out.\n",
        parameters as f64 / 1e6,
        learnt.len(),
        held_out.len()
    );

    // 2. Before.
    let exam = Exam::new(&held_out, &tokenizer, folder, &device)?;
    let before = exam.take(&model.valid())?;
    eprintln!(
        "Before training it answers {} of {} held-out questions correctly. For example:",
        before.correct, before.asked
    );
    exam.show(&before);

    // 3. Training.
    let lora = LoraConfig {
        r: 16,
        lora_alpha: 32.0,
        ..LoraConfig::default()
    }
    .with_base("assets/tiny-llama");
    let model = attach(model, &lora, "default", SEED)?;
    let (trainable, _) = trainable_parameters(&model);
    eprintln!("Training {trainable} numbers of low-rank factors; the model itself stays frozen.");
    let batches = |samples: &[Sample], seed| -> Result<SftBatches> {
        let dataset = SftDataset::from_samples(samples, &tokenizer, 256)?;
        let pad = tokenizer.pad_token_id().unwrap_or(0);
        let padded = Collation::Padded { multiple: 1 };
        Ok(dataset.into_batches(8, padded, seed, pad)?)
    };
    let config = TrainConfig {
        learning_rate: 3e-3,
        schedule: Schedule::Cosine,
        warmup_steps: 10,
        epochs: args.epochs,
        seed: SEED,
        output_dir: Some(args.output.join("training")),
        overwrite: true,
        save_total_limit: Some(1),
        ..TrainConfig::default()
    };
    let (model, report) = Trainer::new(config, batches(&learnt, Some(SEED))?, next_token_loss)
        .with_evaluation(batches(&held_out, None)?)
        .fit(model)?;
    let loss_before = report.eval_before().context("no evaluation")?.loss;
    let loss_after = report.eval_after().context("no evaluation")?.loss;

    // 4. After.
    let model = model.valid();
    let after = exam.take(&model)?;
    eprintln!(
        "\nAfter {} steps the loss on held-out questions has fallen from {loss_before:.3} to \
         {loss_after:.3},\nand it answers {} of {} correctly. The same questions again:",
        report.steps, after.correct, after.asked
    );
    exam.show(&after);

    let adapter_dir = save_adapter(&model, "default", &args.output.join("adapter"))?;
    let merged_dir = args.output.join("merged");
    let merged = merge_and_unload(model)?;
    merged.save_pretrained(&merged_dir, &SaveOptions::default())?;
    tokenizer.save_pretrained(&merged_dir)?;
    copy_generation_config(folder, &merged_dir)?;
    let reloaded = AutoCausalLm::from_pretrained(&merged_dir, &device)?;
    let again = exam.take(&reloaded)?;
    // The merged weights are rounded differently, so a few answers may change.
    ensure!(
        again.correct.abs_diff(after.correct) * 50 <= after.asked,
        "the merged model answers {} questions correctly, the adapted one {}",
        again.correct,
        after.correct
    );
    eprintln!(
        "Saved the adapter to {} and the merged model, which answers alike, to {} ({:.0} s in all).\n\
         Talk to it:\n  cargo run --release --example generate -- --model {} --chat --prompt {:?}",
        adapter_dir.display(),
        merged_dir.display(),
        start.elapsed().as_secs_f64(),
        merged_dir.display(),
        exam.questions[0]
    );
    if args.json {
        let line = json!({
            "eval_loss_before": loss_before,
            "eval_loss_after": loss_after,
            "correct_before": before.correct,
            "correct_after": after.correct,
            "asked": after.asked,
            "question": exam.questions[0],
            "answer_before": before.answers[0],
            "answer_after": after.answers[0],
            "steps": report.steps,
            "train_losses": report.train_losses,
            "tokens_per_s": report.tokens_per_s,
            "seconds": start.elapsed().as_secs_f64(),
            "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
    Ok(())
}

/// Held-out questions and the settings of generation.
struct Exam<'a> {
    questions: Vec<String>,
    expected: Vec<String>,
    prompts: Vec<Vec<u32>>,
    tokenizer: &'a Tokenizer,
    generation: GenerationConfig,
    device: Device,
}

struct Answers {
    answers: Vec<String>,
    correct: usize,
    asked: usize,
}

impl<'a> Exam<'a> {
    fn new(
        samples: &[Sample],
        tokenizer: &'a Tokenizer,
        folder: &Path,
        device: &Device,
    ) -> Result<Self> {
        let (mut questions, mut expected, mut prompts) = (Vec::new(), Vec::new(), Vec::new());
        for sample in samples {
            let Sample::Conversation(conversation) = sample else {
                continue;
            };
            if let [question @ .., answer] = conversation.messages.as_slice() {
                let text = tokenizer.apply_chat_template(question, None, true)?;
                prompts.push(tokenizer.encode(&text, false)?);
                let said = |message: &Message| message.text().unwrap_or_default().to_string();
                questions.push(question.last().map(said).unwrap_or_default());
                expected.push(said(answer));
            }
        }
        Ok(Self {
            questions,
            expected,
            prompts,
            tokenizer,
            generation: GenerationConfig {
                max_new_tokens: 40,
                ..GenerationConfig::from_pretrained(folder, Some(tokenizer))?
            },
            device: device.clone(),
        })
    }

    fn take(&self, model: &AutoCausalLm) -> Result<Answers> {
        let mut silent = |_: ft::core::Streamed<'_>| ControlFlow::Continue(());
        let mut answers = Vec::new();
        for prompts in self.prompts.chunks(16) {
            let tokenizer = Some(self.tokenizer);
            let out = generate(
                model,
                tokenizer,
                prompts,
                &self.generation,
                &self.device,
                &mut silent,
            )?;
            answers.extend(out.into_iter().map(|answer| answer.text.trim().to_string()));
        }
        let correct = answers
            .iter()
            .zip(&self.expected)
            .filter(|(a, b)| a == b)
            .count();
        Ok(Answers {
            asked: answers.len(),
            correct,
            answers,
        })
    }

    fn show(&self, result: &Answers) {
        for (question, answer) in self.questions.iter().zip(&result.answers).take(3) {
            eprintln!("  > {}", question.replace('\n', "\n    "));
            eprintln!("    {}\n", answer.replace('\n', " "));
        }
    }
}
