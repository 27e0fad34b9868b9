//! One call from text to answer, with the JSON of transformers' pipelines.
//!
//! ```sh
//! cargo run --release --example pipeline -- --task text-classification --model my-classifier --text "It leaks."
//! cargo run --release --example pipeline -- --task token-classification --model my-tagger --aggregation simple --text "A kettle by Calvera."
//! cargo run --release --example pipeline -- --task question-answering --model my-answerer --question "Who is it?" --text "It is Anna."
//! cargo run --release --example pipeline -- --task summarization --model SmolLM2-135M-Instruct --text "..."
//! ```
//!
//! `--text` may be given several times; without it, texts are read from standard input, one a line. Results come as soon as those of
//! `--portion` texts are there. With `--json` the last line of the output is one JSON object, whose `results` are those of transformers, one
//! for each text.

use std::io::{BufRead, Write};
use std::ops::ControlFlow;

use anyhow::{Result, anyhow, bail, ensure};
use clap::Parser;
use ft::core::{HubOptions, Message, Streamed, resolve};
use ft::tasks::pipelines::{
    Aggregation, FeatureExtraction, FillMask, QuestionAnswering, QuestionAnsweringOptions,
    Summarization, TASKS, TextClassification, TextGeneration, TextOrPair, TokenClassification,
    ZeroShotClassification, ZeroShotOptions, stream,
};
use serde_json::{Value, json};

#[path = "shared/computation.rs"]
mod computation;
use computation::Computation;

/// One call from text to answer.
#[derive(Parser)]
struct Args {
    /// text-classification, zero-shot-classification, token-classification, question-answering, fill-mask, text-generation,
    /// summarization or feature-extraction.
    #[arg(long)]
    task: String,
    /// Model folder, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// A text; several times for several.
    #[arg(long)]
    text: Vec<String>,
    /// The second text of a pair, for text-classification.
    #[arg(long)]
    pair: Option<String>,
    /// The question, for question-answering.
    #[arg(long)]
    question: Option<String>,
    /// Labels, separated by commas, for zero-shot-classification.
    #[arg(long, value_delimiter = ',')]
    labels: Vec<String>,
    /// Whether several labels may hold.
    #[arg(long)]
    multi_label: bool,
    /// none, simple, first, average or max, for token-classification.
    #[arg(long, default_value = "simple")]
    aggregation: String,
    /// Tokens that windows of a long text have in common, for token-classification with groups.
    #[arg(long, default_value_t = 32)]
    overlap: usize,
    /// Cut long texts, for text-classification, zero-shot-classification and token-classification; without it they are an error, or
    /// are read in windows.
    #[arg(long)]
    truncate: bool,
    /// So many results of each text; without it all labels, five tokens or one answer.
    #[arg(long)]
    top_k: Option<usize>,
    /// Whether a text may hold no answer.
    #[arg(long)]
    handle_impossible_answer: bool,
    /// New tokens, for text-generation and summarization.
    #[arg(long, default_value_t = 128)]
    max_new_tokens: usize,
    /// 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Seed of sampling.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Texts are messages of a user, for text-generation.
    #[arg(long)]
    chat: bool,
    /// So many texts are computed at a time: more are faster, fewer come sooner.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    portion: u16,
    #[command(flatten)]
    computation: Computation,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// A pipeline with its options, from texts to results.
type Run<'a> = Box<dyn FnMut(&[&str]) -> Result<Vec<Value>> + 'a>;

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let device = args.computation.device()?;
    let folder = resolve(&args.model, &HubOptions::from_env())?;
    let lines: Box<dyn Iterator<Item = std::io::Result<String>>> = match args.text.is_empty() {
        true => Box::new(std::io::stdin().lock().lines()),
        false => Box::new(args.text.iter().cloned().map(Ok)),
    };
    let texts = lines.filter(|line| !line.as_ref().is_ok_and(|line| line.trim().is_empty()));
    let show = !args.json;
    let generator = || -> Result<TextGeneration> {
        let mut made = TextGeneration::from_pretrained(&folder, &device)?;
        made.config.max_new_tokens = args.max_new_tokens;
        made.config.temperature = args.temperature;
        made.config.seed = args.seed;
        Ok(made)
    };
    let mut run: Run<'_> = match args.task.as_str() {
        "text-classification" => {
            let made = TextClassification::from_pretrained(&folder, &device)?;
            let made = if args.truncate {
                made.truncated()
            } else {
                made
            };
            let (pair, top_k) = (args.pair.as_deref(), args.top_k);
            Box::new(move |texts| {
                let pairs = texts.iter().map(|text| TextOrPair { text, pair });
                let pairs: Vec<TextOrPair> = pairs.collect();
                values(made.classify(&pairs, top_k)?)
            })
        }
        "zero-shot-classification" => {
            let made = ZeroShotClassification::from_pretrained(&folder, &device)?;
            let made = if args.truncate {
                made.truncated()
            } else {
                made
            };
            let labels: Vec<&str> = args.labels.iter().map(String::as_str).collect();
            let options = ZeroShotOptions {
                multi_label: args.multi_label,
                ..ZeroShotOptions::default()
            };
            Box::new(move |texts| values(made.classify(texts, &labels, &options)?))
        }
        "token-classification" => {
            let aggregation: Aggregation = args.aggregation.parse()?;
            let made = TokenClassification::from_pretrained(&folder, &device)?;
            let made = match (args.truncate, aggregation) {
                (true, _) => made.truncated(),
                (false, Aggregation::None) => made,
                (false, _) => made.in_windows(args.overlap),
            };
            let made = made.aggregated(aggregation);
            Box::new(move |texts| values(made.tag(texts)?))
        }
        "question-answering" => {
            let Some(question) = args.question.as_deref() else {
                bail!("--task question-answering needs a --question");
            };
            let made = QuestionAnswering::from_pretrained(&folder, &device)?;
            let options = QuestionAnsweringOptions {
                top_k: args.top_k.unwrap_or(1),
                handle_impossible_answer: args.handle_impossible_answer,
                ..QuestionAnsweringOptions::default()
            };
            Box::new(move |texts| {
                let questions: Vec<(&str, &str)> =
                    texts.iter().map(|text| (question, *text)).collect();
                let found = values(made.answer(&questions, &options)?)?;
                Ok(found.into_iter().map(alone).collect())
            })
        }
        "fill-mask" => {
            let made = FillMask::from_pretrained(&folder, &device)?;
            let top_k = args.top_k.unwrap_or(5);
            Box::new(move |texts| {
                let found = values(made.fill(texts, top_k, None)?)?;
                Ok(found.into_iter().map(alone).collect())
            })
        }
        "text-generation" if args.chat => {
            let made = generator()?;
            Box::new(move |texts| {
                let conversations: Vec<Vec<Message>> = texts
                    .iter()
                    .map(|text| vec![Message::new("user", *text)])
                    .collect();
                let answers = made.chat(&conversations, &mut listener(show))?;
                Ok((conversations.into_iter().zip(answers))
                    .map(|(mut messages, answer)| {
                        messages.push(Message::new("assistant", answer));
                        json!([{"generated_text": messages}])
                    })
                    .collect())
            })
        }
        "text-generation" => {
            let made = generator()?;
            Box::new(move |texts| {
                let found = made.complete(texts, &mut listener(show))?;
                Ok(found.iter().map(|text| json!([text])).collect())
            })
        }
        "summarization" => {
            let made = Summarization::new(generator()?);
            Box::new(move |texts| values(made.summarize(texts, &mut listener(show))?))
        }
        "feature-extraction" => {
            let made = FeatureExtraction::from_pretrained(&folder, &device)?;
            Box::new(move |texts| {
                let states = made.extract(texts)?.into_iter();
                Ok(states.map(|states| json!([states])).collect())
            })
        }
        other => bail!("there is no --task {other}: use {}", TASKS.join(", ")),
    };
    let listened = show && ["text-generation", "summarization"].contains(&args.task.as_str());
    let found = stream(texts, args.portion.into(), |portion| {
        let texts = portion.iter().map(|line| line.as_deref());
        let texts: Result<Vec<&str>, _> = texts.collect();
        let texts = texts.map_err(|error| anyhow!("cannot read standard input: {error}"))?;
        let results = run(&texts);
        if listened {
            println!();
        }
        results
    });
    let (mut results, mut seen) = (Vec::new(), 0);
    for result in found {
        let result = result?;
        if show {
            println!("{result}");
        } else {
            results.push(result);
        }
        seen += 1;
    }
    ensure!(
        seen > 0,
        "there is no text: give --text, or lines on standard input"
    );
    if args.json {
        println!(
            "{}",
            json!({"task": args.task, "results": results, "peak_rss_mb": ft::peak_rss_mb()})
        );
    }
    Ok(())
}

/// Prints tokens as they come, if they are to be shown.
fn listener(show: bool) -> impl FnMut(Streamed<'_>) -> ControlFlow<()> {
    move |token| {
        if show {
            print!("{}", token.text);
            let _ = std::io::stdout().flush();
        }
        ControlFlow::Continue(())
    }
}

fn values(found: Vec<impl serde::Serialize>) -> Result<Vec<Value>> {
    Ok(found
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?)
}

/// The only element of a list, or the list.
fn alone(value: Value) -> Value {
    match value {
        Value::Array(mut list) if list.len() == 1 => list.remove(0),
        other => other,
    }
}
