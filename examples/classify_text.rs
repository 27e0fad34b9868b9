//! Trains a classifier of texts, or of pairs of texts, and measures it on held-out rows before and after.
//!
//! ```sh
//! cargo run --release --example classify_text -- --model all-MiniLM-L6-v2 --output my-classifier
//! ```
//!
//! Without `--data` it learns whether invented product reviews are positive, mixed or negative; held-out reviews praise and blame in
//! other words. Rows of your own have a text (`text`, or `sentence1` and `sentence2`, ...) and a `label`: a name or a whole number for one
//! class, a list of names for several, a number with a fraction for a regression. A `--model` that is a classifier of the same labels
//! goes on to train; of any other the encoder gets a new head. `--train lora` trains an adapter, `--train top:2` the
//! last two blocks, `--train head` the head alone. transformers reads the result with `AutoModelForSequenceClassification`, and the
//! example `pipeline` with `--task text-classification`.

use anyhow::Result;
use clap::Parser;
use ft::core::{
    EncoderSequenceClassifier, EncoderTask, EncoderTaskConfig, ProblemType, SaveOptions, Tokenizer,
};
use ft::data::{LabelledTexts, TextColumns, TextInput};
use ft::tasks::{
    classification_batches, classification_step, evaluate_classification, text_layout,
};
use ft::train::OnBatches;
use serde_json::json;

#[path = "shared/encoder_training.rs"]
mod encoder_training;
#[path = "shared/reviews.rs"]
mod reviews;

use encoder_training::{TrainingArgs, losses, merged, row_print};

/// Trains a classifier of texts.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingArgs,
    /// single, multi or regression; without it, what the labels look like.
    #[arg(long)]
    problem: Option<String>,
    /// The columns of --data: text,label or text,pair,label; without them, those with usual names.
    #[arg(long)]
    columns: Option<TextColumns>,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let Args {
        training,
        problem,
        columns,
    } = Args::parse();
    let problem = match problem.as_deref() {
        None => None,
        Some("single") => Some(ProblemType::SingleLabelClassification),
        Some("multi") => Some(ProblemType::MultiLabelClassification),
        Some("regression") => Some(ProblemType::Regression),
        Some(other) => {
            anyhow::bail!("there is no --problem {other}: use single, multi or regression")
        }
    };
    let load = |path| LabelledTexts::load_columns(path, problem, columns.as_ref());
    let (train, held_out) = match (&training.data, &training.held_out) {
        (Some(data), None) => load(data)?.split(training.eval_fraction, training.seed)?,
        (Some(data), Some(held_out)) => (load(data)?, load(held_out)?),
        (None, _) => {
            let train = reviews::reviews(600, false, training.seed);
            let held_out = reviews::reviews(200, true, training.seed + 1);
            (
                LabelledTexts::load(training.write_rows("train.jsonl", &train)?, problem)?,
                LabelledTexts::load(training.write_rows("held_out.jsonl", &held_out)?, problem)?,
            )
        }
    };
    if let Some(TextColumns { text, pair, label }) = &train.columns {
        let pair = pair.as_ref().map(|pair| format!(" and {pair}"));
        eprintln!(
            "reads {text}{} and the label {label}",
            pair.unwrap_or_default()
        );
    }
    let problem = train.problem;
    // Held-out rows may have classes that no other row has.
    let all = train.rows.iter().chain(&held_out.rows).cloned().collect();
    let classes = LabelledTexts::new(all)?.classes();
    let device = training.computation.device()?.autodiff();
    let (folder, seed) = (&training.model, training.seed);
    let trained = EncoderTaskConfig::of_trained(folder, EncoderTask::SequenceClassification)?;
    let trained = trained.filter(|config| sorted(&config.labels) == sorted(&classes));
    training.print_start(trained.is_some());
    let (model, classes) = match trained {
        Some(config) => (
            EncoderSequenceClassifier::from_pretrained(folder, &device)?,
            config.labels,
        ),
        None => (
            EncoderSequenceClassifier::from_encoder(folder, classes.clone(), seed, &device)?,
            classes,
        ),
    };
    let model = model.with_problem_type(problem);
    let positions = model.dims().max_position_embeddings;
    training.check(positions)?;
    let tokenizer = Tokenizer::from_pretrained(folder)?;
    tokenizer.check_vocab(model.dims().vocab_size)?;
    let input = TextInput::new(&tokenizer, positions, Some(training.seq_len));

    let held = held_out.tokenize(&input, &classes)?;
    let before = evaluate_classification(&model, &held, problem, input.padding())?;
    let layout = text_layout(model.attends_by_tile(), &device, input.padding());
    let examples = train.tokenize(&input, &classes)?;
    let rows = examples.iter().map(|row| {
        let labels = row.labels.iter().map(|label| i64::from(label.to_bits()));
        (&row.tokens, labels)
    });
    let identity = [
        ("labels", json!(classes)),
        ("problem", json!(problem)),
        ("rows", row_print(rows)),
    ];
    let batches = classification_batches(examples, training.batch_size, Some(seed), layout)?;
    let method = OnBatches::new(batches, classification_step(problem));
    let (model, report) = training.fit(model, method, &identity)?;
    let after = evaluate_classification(&model, &held, problem, input.padding())?;
    model.save_pretrained(&training.output, &SaveOptions::default())?;
    input.tokenizer().save_pretrained(&training.output)?;

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

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}
