//! Trains a model that finds answers in texts, measures it on held-out texts before and after, and asks it.
//!
//! ```sh
//! cargo run --release --example answer_questions -- --model all-MiniLM-L6-v2 --output my-answerer
//! ```
//!
//! Without `--data` it learns from questions about invented towns, of which some are not answered by the text; held-out texts have
//! other names, and their questions are asked in other words. Rows of your own are those of SQuAD: its file, or `question`, `context` and
//! `answers`. A `--model` that answers questions goes on to train. A text that is longer than `--seq-len` is read in windows. Then it answers `--question` from `--context`, or a held-out
//! question. transformers reads the result with `AutoModelForQuestionAnswering`, and the example `pipeline` with
//! `--task question-answering`.

use anyhow::Result;
use clap::Parser;
use ft::core::{EncoderQuestionAnswering, EncoderTask, EncoderTaskConfig, SaveOptions, Tokenizer};
use ft::data::{Question, Questions, TextInput};
use ft::tasks::{
    AnswerSettings, PredictedAnswer, answer_batches, answer_questions, answer_step,
    evaluate_answers, text_layout,
};
use ft::train::OnBatches;
use serde_json::json;

#[path = "shared/encoder_training.rs"]
mod encoder_training;
#[path = "shared/facts.rs"]
mod facts;

use encoder_training::{TrainingArgs, losses, merged, row_print};

/// Trains a model that finds answers in texts.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingArgs,
    /// So many tokens of a long text are in two windows.
    #[arg(long, default_value_t = 64)]
    doc_stride: usize,
    /// The longest answer in tokens.
    #[arg(long, default_value_t = 30)]
    max_answer_tokens: usize,
    /// A question to answer after the training.
    #[arg(long, requires = "context")]
    question: Option<String>,
    /// The text that is to answer it.
    #[arg(long, requires = "question")]
    context: Option<String>,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let training = &args.training;
    let (train, held_out) = match (&training.data, &training.held_out) {
        (Some(data), None) => {
            Questions::load(data)?.split(training.eval_fraction, training.seed)?
        }
        (Some(data), Some(held_out)) => (Questions::load(data)?, Questions::load(held_out)?),
        (None, _) => {
            let train = facts::questions(400, false, training.seed);
            let held_out = facts::questions(50, true, training.seed + 1);
            (
                Questions::load(training.write_rows("train.jsonl", &train)?)?,
                Questions::load(training.write_rows("held_out.jsonl", &held_out)?)?,
            )
        }
    };
    let device = training.computation.device()?.autodiff();
    let (folder, seed) = (&training.model, training.seed);
    let trained = EncoderTaskConfig::of_trained(folder, EncoderTask::QuestionAnswering)?;
    training.print_start(trained.is_some());
    let model = match trained {
        Some(_) => EncoderQuestionAnswering::from_pretrained(folder, &device)?,
        None => {
            let labels = vec!["start".to_string(), "end".to_string()];
            EncoderQuestionAnswering::from_encoder(folder, labels, seed, &device)?
        }
    };
    let positions = model.dims().max_position_embeddings;
    training.check(positions)?;
    let tokenizer = Tokenizer::from_pretrained(folder)?;
    tokenizer.check_vocab(model.dims().vocab_size)?;
    let input = TextInput::new(&tokenizer, positions, Some(training.seq_len));

    let settings = AnswerSettings {
        max_answer_tokens: args.max_answer_tokens,
        may_be_unanswerable: train.rows.iter().any(|row| row.answers.is_empty()),
        ..AnswerSettings::default()
    };
    let ask = |model: &_, questions: &Questions| -> Result<Vec<PredictedAnswer>> {
        let examples = questions.tokenize(&input, args.doc_stride)?;
        Ok(answer_questions(
            model,
            questions,
            &examples,
            &settings,
            input.padding(),
        )?)
    };
    let before = evaluate_answers(&ask(&model, &held_out)?, &held_out)?;
    let layout = text_layout(model.attends_by_tile(), &device, input.padding());
    let examples = train.tokenize(&input, args.doc_stride)?;
    let windows = examples.len();
    let rows = examples.iter().map(|row| {
        let (first, last) = row.answer;
        (&row.tokens, [first as i64, last as i64])
    });
    let identity = [("rows", row_print(rows))];
    let batches = answer_batches(examples, training.batch_size, Some(seed), layout)?;
    let method = OnBatches::new(batches, answer_step);
    let (model, report) = training.fit(model, method, &identity)?;
    let after = evaluate_answers(&ask(&model, &held_out)?, &held_out)?;
    model.save_pretrained(&training.output, &SaveOptions::default())?;
    input.tokenizer().save_pretrained(&training.output)?;

    eprintln!("before: {}", json!(before));
    eprintln!("after: {}", json!(after));
    let own = match (&args.question, &args.context) {
        (Some(question), Some(context)) => Question {
            question: question.clone(),
            context: context.clone(),
            ..Question::default()
        },
        _ => held_out.rows.first().cloned().unwrap_or_default(),
    };
    let asked = Questions { rows: vec![own] };
    let answers = ask(&model, &asked)?;
    for (question, answer) in asked.rows.iter().zip(&answers) {
        eprintln!("{}\n{}", question.context, question.question);
        for candidate in answer.candidates.iter().take(3) {
            eprintln!("  {:.3} {:?}", candidate.probability, candidate.text);
        }
    }
    if training.json {
        let line = json!({"rows": train.rows.len(), "windows": windows, "held_out": held_out.rows.len(),
            "exact_before": before.exact, "f1_before": before.f1, "exact_after": after.exact, "f1_after": after.f1,
            "after": after, "question": asked.rows[0].question, "answer": answers[0].text});
        println!("{}", merged(line, losses(&report)));
    }
    Ok(())
}
