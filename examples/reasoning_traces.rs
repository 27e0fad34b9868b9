//! Reasoning traces of a teacher as instruction data: questions are answered several times, a verifier keeps what is right.
//!
//! ```sh
//! cargo run --release --example reasoning_traces -- --teacher-local DIR --data gsm8k.jsonl --verifier gsm8k --output traces.jsonl
//! cargo run --release --example reasoning_traces -- --endpoint http://localhost:8000/v1 --teacher NAME --data questions.jsonl \
//!     --verifier regex:'\d+' --output traces.jsonl
//! ```
//!
//! Each row of `--output` has `messages`, which `sft` reads: the question, and an answer that was found right, its thinking in
//! `<think>...</think>` before it. Of several right answers to a question the shortest are kept. Replies are stored beside the
//! output, so that an interrupted run asks for none twice.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::align::reward::{Completion, PromptRef, Reward, by_names, score_batch};
use ft::core::safetensors_folder::write_file;
use ft::core::{HubOptions, Message, mix_seed, resolve};
use ft::data::{Prompt, PromptSample, read_rows};
use ft::distill::{Reasoned, split_thinking};
use ft::eval::judges::{
    CachedModel, ChatMessage, ChatModel, ChatRequest, OpenAiClient, ServerOptions,
};
use ft::eval::models::LocalModel;
use serde_json::{Map, Value, json};

/// Reasoning traces.
#[derive(Parser)]
struct Args {
    /// Folder or hub id of a local teacher.
    #[arg(long, required_unless_present = "endpoint")]
    teacher_local: Option<String>,
    /// Address of a teacher, a server with OpenAI's protocol.
    #[arg(long, conflicts_with = "teacher_local")]
    endpoint: Option<String>,
    /// The teacher's name on the server.
    #[arg(long, default_value = "default")]
    teacher: String,
    /// Environment variable with the server's key.
    #[arg(long)]
    api_key_env: Option<String>,
    /// JSON or JSONL file of questions, with the columns that the verifier reads.
    #[arg(long)]
    data: PathBuf,
    /// What finds an answer right: gsm8k, exact, numeric, regex:PATTERN, json, ... or several with commas.
    #[arg(long)]
    verifier: String,
    /// File for the traces.
    #[arg(long)]
    output: PathBuf,
    /// What the teacher is asked to do, as the system's message.
    #[arg(long)]
    instruction: Option<String>,
    /// Replies to each question.
    #[arg(long, default_value_t = 4)]
    samples: usize,
    /// How many right answers of a question are kept.
    #[arg(long, default_value_t = 1)]
    keep: usize,
    /// Leave the thinking out.
    #[arg(long)]
    cut_thinking: bool,
    /// The temperature of the replies.
    #[arg(long, default_value_t = 0.7)]
    temperature: f64,
    /// The largest length of a reply, in tokens.
    #[arg(long, default_value_t = 1024)]
    max_new_tokens: usize,
    /// How many replies a server writes at a time.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// Seed of the sampling.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// cpu, cuda, wgpu, vulkan or metal.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// A reply and what became of it.
enum Found {
    Right { content: String },
    Wrong,
    Cut,
    Failed(String),
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    ensure!(
        args.samples > 0 && args.keep > 0,
        "--samples and --keep must be 1 or more"
    );
    let verifiers = by_names(&args.verifier)?;
    let counts = ["length", "overlong"];
    ensure!(
        !verifiers
            .iter()
            .any(|verifier| counts.contains(&verifier.name())),
        "--verifier: a length is no sign of a right answer; the shortest right answers are kept"
    );
    let rows = read_rows(&args.data)?;
    let samples = (rows.iter().zip(1..)).map(|(row, number)| PromptSample::parse(row, number));
    let samples = samples.collect::<Result<Vec<_>, _>>();
    let samples = samples.with_context(|| args.data.display().to_string())?;
    for (sample, row) in samples.iter().zip(1..) {
        let texts = match &sample.prompt {
            Prompt::Text(_) => true,
            Prompt::Messages(messages) => messages.iter().all(|message| message.text().is_some()),
        };
        ensure!(
            texts && sample.tools.is_none(),
            "row {row}: only messages of text, without tools, can be asked"
        );
    }
    ensure!(
        !samples.is_empty(),
        "{} has no questions",
        args.data.display()
    );
    let (teacher, threads): (Box<dyn ChatModel>, usize) =
        match (&args.endpoint, &args.teacher_local) {
            (Some(endpoint), _) => {
                let options = ServerOptions {
                    api_key_env: args.api_key_env.clone(),
                    ..ServerOptions::default()
                };
                (
                    Box::new(OpenAiClient::new(endpoint, &args.teacher, options)?),
                    args.concurrency.max(1),
                )
            }
            (None, local) => {
                let folder = local
                    .as_deref()
                    .context("give --teacher-local or --endpoint")?;
                let folder = resolve(folder, &HubOptions::from_env())?;
                (
                    Box::new(LocalModel::from_pretrained(
                        &folder,
                        &ft::device(&args.device)?,
                    )?),
                    1,
                )
            }
        };
    let teacher = CachedModel::open(teacher, &args.output.with_extension("replies.jsonl"))?;

    let found = ask_all(&args, &teacher, &verifiers, &samples, threads);
    let count = |wanted: fn(&Found) -> bool| found.iter().filter(|found| wanted(found)).count();
    let right = count(|found| matches!(found, Found::Right { .. }));
    let cut = count(|found| matches!(found, Found::Cut));
    let failed = count(|found| matches!(found, Found::Failed(_)));
    let mut lines = String::new();
    let (mut answered, mut traces) = (0, 0);
    for (sample, found) in samples.iter().zip(found.chunks(args.samples)) {
        let contents: BTreeSet<(usize, &str)> = found
            .iter()
            .filter_map(|found| match found {
                Found::Right { content } => Some((content.len(), content.as_str())),
                _ => None,
            })
            .collect();
        answered += usize::from(!contents.is_empty());
        for (_, content) in contents.into_iter().take(args.keep) {
            let mut messages = turns(&sample.prompt);
            messages.push(ChatMessage::new("assistant", content));
            lines += &format!("{}\n", json!({ "messages": messages }));
            traces += 1;
        }
    }
    eprintln!(
        "{} of {} questions have a right answer; of {} replies {right} are right, {cut} were cut, {failed} failed",
        answered,
        samples.len(),
        found.len()
    );
    if let Some(Found::Failed(reason)) =
        found.iter().find(|found| matches!(found, Found::Failed(_)))
    {
        eprintln!("the first failure: {reason}");
    }
    ensure!(
        traces > 0,
        "no reply is right, so nothing is written: look at {}, and check --verifier and the columns it reads",
        args.output.with_extension("replies.jsonl").display()
    );
    write_file(&args.output, lines.as_bytes())?;
    eprintln!("{traces} traces in {}", args.output.display());
    if !args.cut_thinking && !lines.contains("<think>") {
        eprintln!(
            "none of them has thinking: the teacher writes no <think>...</think>, or its server leaves it out"
        );
    }
    if args.json {
        let line = json!({
            "questions": samples.len(), "answered": answered, "replies": found.len(), "right": right, "cut": cut,
            "failed": failed, "traces": traces, "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
    Ok(())
}

/// The replies to all questions, question by question.
fn ask_all(
    args: &Args,
    teacher: &dyn ChatModel,
    verifiers: &[Arc<dyn Reward>],
    samples: &[PromptSample],
    threads: usize,
) -> Vec<Found> {
    let count = samples.len() * args.samples;
    let next = AtomicUsize::new(0);
    let threads = NonZero::new(threads.min(count)).map_or(1, NonZero::get);
    let work = || {
        let mut own = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= count {
                return own;
            }
            let sample = &samples[place / args.samples];
            let seed = mix_seed(args.seed, (place / args.samples) as u64);
            let seed = mix_seed(seed, (place % args.samples) as u64);
            own.push((place, ask(args, teacher, verifiers, sample, seed)));
            if (place + 1).is_multiple_of(20) {
                eprintln!("{} of {count} replies", place + 1);
            }
        }
    };
    let mut found: Vec<(usize, Found)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, found)| found).collect()
}

fn ask(
    args: &Args,
    teacher: &dyn ChatModel,
    verifiers: &[Arc<dyn Reward>],
    sample: &PromptSample,
    seed: u64,
) -> Found {
    let instruction = args
        .instruction
        .iter()
        .map(|text| ChatMessage::new("system", text));
    let request = ChatRequest {
        messages: instruction.chain(turns(&sample.prompt)).collect(),
        temperature: args.temperature,
        max_tokens: args.max_new_tokens,
        // Servers have signed seeds.
        seed: Some(seed >> 1),
        schema: None,
    };
    let reply = match teacher.chat(&request) {
        Ok(reply) => reply,
        Err(error) => return Found::Failed(error.to_string()),
    };
    // Some servers give the thinking apart.
    let parts = match (reply.reasoning.as_deref()).filter(|text| !text.trim().is_empty()) {
        Some(thinking) => Some(Reasoned {
            thinking: Some(thinking.trim()),
            answer: reply.text.trim(),
        }),
        None => split_thinking(&reply.text),
    };
    let Some(parts) = parts.filter(|_| reply.finish_reason.as_deref() != Some("length")) else {
        return Found::Cut;
    };
    match is_right(verifiers, &sample.prompt, &sample.columns, parts.answer) {
        Ok(true) => {}
        Ok(false) => return Found::Wrong,
        Err(reason) => return Found::Failed(reason),
    }
    let content = match parts.thinking.filter(|_| !args.cut_thinking) {
        Some(thinking) => format!("<think>\n{thinking}\n</think>\n\n{}", parts.answer),
        None => parts.answer.to_string(),
    };
    Found::Right { content }
}

/// Whether every verifier gives the full score. The thinking is not shown to them.
fn is_right(
    verifiers: &[Arc<dyn Reward>],
    prompt: &Prompt,
    columns: &Map<String, Value>,
    answer: &str,
) -> Result<bool, String> {
    let completion = Completion {
        prompt: match prompt {
            Prompt::Text(text) => PromptRef::Text(text),
            Prompt::Messages(messages) => PromptRef::Messages(messages),
        },
        text: answer,
        token_count: answer.split_whitespace().count(),
        finished: true,
        columns,
    };
    let scores = score_batch(verifiers, &[completion], Duration::from_secs(30));
    match scores.failures.first() {
        Some(failure) => Err(format!("verifier: {} {}", failure.kind, failure.message)),
        None => Ok(scores.values.iter().all(|values| values == &[Some(1.0)])),
    }
}

fn turns(prompt: &Prompt) -> Vec<ChatMessage> {
    let turn = |message: &Message| {
        ChatMessage::new(message.role.clone(), message.text().unwrap_or_default())
    };
    match prompt {
        Prompt::Text(text) => vec![ChatMessage::new("user", text)],
        Prompt::Messages(messages) => messages.iter().map(turn).collect(),
    }
}
