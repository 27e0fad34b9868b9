//! Trains a classifier of texts, or of pairs of texts, and measures it on held-out rows before and after.
//!
//! ```sh
//! cargo run --release --example classify_text -- --model all-MiniLM-L6-v2 --output my-classifier
//! ```
//!
//! Without `--data` it learns whether invented product reviews are positive, mixed or negative; held-out reviews praise and blame in
//! other words. Rows of your own have a text (`text`, or `sentence1` and `sentence2`, ...) and a `label`: a name or a whole number for one
//! class, a list of names for several, a number with a fraction for a regression. `--train lora` trains an adapter, `--train top:2` the
//! last two blocks, `--train head` the head alone. transformers reads the result with `AutoModelForSequenceClassification`, and the
//! example `pipeline` with `--task text-classification`.

use anyhow::Result;
use clap::Parser;
use ft::core::{EncoderSequenceClassifier, ProblemType, SaveOptions, Tokenizer};
use ft::data::{LabelledTexts, TextInput};
use ft::tasks::{
    classification_batches, classification_step, evaluate_classification, text_layout,
};
use ft::train::OnBatches;
use serde_json::json;

#[path = "shared/encoder_training.rs"]
mod encoder_training;
#[path = "shared/reviews.rs"]
mod reviews;

use encoder_training::{TrainingArgs, losses, merged};

/// Trains a classifier of texts.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingArgs,
    /// single, multi or regression; without it, what the labels look like.
    #[arg(long)]
    problem: Option<String>,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let Args { training, problem } = Args::parse();
    let problem = match problem.as_deref() {
        None => None,
        Some("single") => Some(ProblemType::SingleLabelClassification),
        Some("multi") => Some(ProblemType::MultiLabelClassification),
        Some("regression") => Some(ProblemType::Regression),
        Some(other) => {
            anyhow::bail!("there is no --problem {other}: use single, multi or regression")
        }
    };
    let (train, held_out) = match (&training.data, &training.held_out) {
        (Some(data), None) => {
            LabelledTexts::load(data, problem)?.split(training.eval_fraction, training.seed)?
        }
        (Some(data), Some(held_out)) => (
            LabelledTexts::load(data, problem)?,
            LabelledTexts::load(held_out, problem)?,
        ),
        (None, _) => {
            let train = reviews::reviews(600, false, training.seed);
            let held_out = reviews::reviews(200, true, training.seed + 1);
            (
                LabelledTexts::load(training.write_rows("train.jsonl", &train)?, problem)?,
                LabelledTexts::load(training.write_rows("held_out.jsonl", &held_out)?, problem)?,
            )
        }
    };
    let (problem, classes) = (train.problem, train.classes());
    let device = ft::device(&training.device)?.autodiff();
    let (folder, seed) = (&training.model, training.seed);
    let model = EncoderSequenceClassifier::from_encoder(folder, classes.clone(), seed, &device)?
        .with_problem_type(problem);
    let positions = model.dims().max_position_embeddings;
    training.check(positions)?;
    let tokenizer = Tokenizer::from_pretrained(folder)?;
    tokenizer.check_vocab(model.dims().vocab_size)?;
    let input = TextInput::new(&tokenizer, positions, Some(training.seq_len));

    let held = held_out.tokenize(&input, &classes)?;
    let before = evaluate_classification(&model, &held, problem, input.padding())?;
    let layout = text_layout(model.attends_by_tile(), &device, input.padding());
    let examples = train.tokenize(&input, &classes)?;
    let batches = classification_batches(examples, training.batch_size, Some(seed), layout)?;
    let method = OnBatches::new(batches, classification_step(problem));
    let (model, report) = training.fit(model, method)?;
    let after = evaluate_classification(&model, &held, problem, input.padding())?;
    model.save_pretrained(&training.output, &SaveOptions::default())?;
    training.save_tokenizer(&tokenizer)?;

    for (name, found) in [("before", &before), ("after", &after)] {
        eprintln!("{name}: {}", json!(found));
    }
    if training.json {
        let line = json!({"rows": train.rows.len(), "held_out": held.len(), "labels": classes, "problem_type": problem,
            "before": before, "after": after});
        println!("{}", merged(line, losses(&report)));
    }
    Ok(())
}
