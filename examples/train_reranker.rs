//! Trains a cross-encoder, which reads a query and a document together, and measures on held-out rows how it ranks documents.
//!
//! ```sh
//! cargo run --release --example train_reranker -- --model all-MiniLM-L6-v2 --output my-reranker
//! ```
//!
//! Without `--data` it learns which sentence of a text about an invented town answers a question; held-out texts have other names, and
//! their questions are asked in other words. Rows of your own have a `query`, a `positive` and `negative_1`, `negative_2`, ... (`--loss
//! mnrl`, and `margin-mse` with `labels`); or as many `labels` as documents (`lambda`, `ranknet`, `listnet`, `listmle`, `plistmle`); or one
//! document and a `label` (`binary`, `mse`). MRR is that of the first document among those of its row, so it is measured where rows have
//! several. A `--model` that is a cross-encoder goes on to train. The result is a folder of sentence-transformers' `CrossEncoder`, and serves the example `rerank`.

use anyhow::{Result, ensure};
use clap::Parser;
use ft::core::{EncoderSequenceClassifier, EncoderTask, EncoderTaskConfig, SaveOptions, Tokenizer};
use ft::embed::{
    CrossEncoder, CrossEncoderLoss, CrossEncoderTraining, PairActivation, TextDataset,
};
use serde_json::{Map, Value, json};

#[path = "shared/encoder_training.rs"]
mod encoder_training;
#[path = "shared/facts.rs"]
mod facts;

use encoder_training::{TrainingArgs, losses, merged};

/// Trains a cross-encoder.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingArgs,
    /// binary, mse, margin-mse, mnrl, lambda, ranknet, listnet, listmle or plistmle.
    #[arg(long, default_value = "mnrl")]
    loss: String,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let training = &args.training;
    let loss: CrossEncoderLoss = args.loss.parse()?;
    ensure!(
        loss != CrossEncoderLoss::CrossEntropy,
        "for classes of pairs use the example classify_text"
    );
    let (train, held_out) = match (&training.data, &training.held_out) {
        (Some(data), None) => {
            TextDataset::load(data)?.split(training.eval_fraction, training.seed)?
        }
        (Some(data), Some(held_out)) => (TextDataset::load(data)?, TextDataset::load(held_out)?),
        (None, _) => {
            let rows = |count, held_out, seed| rows(&facts::questions(count, held_out, seed), loss);
            let train = rows(300, false, training.seed);
            let held_out = rows(60, true, training.seed + 1);
            (
                TextDataset::load(training.write_rows("train.jsonl", &train)?)?,
                TextDataset::load(training.write_rows("held_out.jsonl", &held_out)?)?,
            )
        }
    };
    let device = training.computation.device()?.autodiff();
    let (folder, seed) = (&training.model, training.seed);
    let trained = EncoderTaskConfig::of_trained(folder, EncoderTask::SequenceClassification)?;
    let trained = trained.filter(|config| config.labels.len() == 1);
    training.print_start(trained.is_some());
    let model = match trained {
        Some(_) => CrossEncoder::from_pretrained(folder, &device)?,
        None => {
            let labels = vec!["LABEL_0".to_string()];
            let model = EncoderSequenceClassifier::from_encoder(folder, labels, seed, &device)?;
            CrossEncoder::new(model, Tokenizer::from_pretrained(folder)?)?
        }
    };
    training.check(model.model().dims().max_position_embeddings)?;
    let model = model.with_max_length(training.seq_len)?;
    let scores = matches!(loss, CrossEncoderLoss::Mse | CrossEncoderLoss::MarginMse);
    let model = match scores {
        // The scores of a teacher are learnt as they are.
        true => model.with_activation(PairActivation::Identity),
        false => model,
    };

    let before = mean_reciprocal_rank(&model, &held_out)?;
    let method = CrossEncoderTraining::new(loss, &model, &train, training.batch_size, Some(seed))?;
    let identity = [
        ("loss", json!(args.loss)),
        ("rows", json!(train.fingerprint())),
    ];
    let (model, report) = training.fit(model, method, &identity)?;
    let after = mean_reciprocal_rank(&model, &held_out)?;
    model.save_pretrained(&training.output, &SaveOptions::default())?;
    if let (Some(before), Some(after)) = (before, after) {
        eprintln!("MRR: {before:.4} before, {after:.4} after");
    }
    if training.json {
        let line = json!({"rows": train.len(), "held_out": held_out.len(), "loss": args.loss, "mrr_before": before,
            "mrr_after": after});
        println!("{}", merged(line, losses(&report)));
    }
    Ok(())
}

/// `1 / rank` of the first document among those of its row, over rows with several; none if there are no such rows.
fn mean_reciprocal_rank(model: &CrossEncoder, rows: &TextDataset) -> Result<Option<f64>> {
    let mut ranks = Vec::new();
    for row in rows.rows.iter().filter(|row| row.texts.len() > 2) {
        let ranked = model.rank(&row.texts[0], &row.texts[1..])?;
        let place = ranked.iter().position(|(document, _)| *document == 0);
        ranks.push(1.0 / (1 + place.unwrap_or(0)) as f64);
    }
    let count = ranks.len() as f64;
    Ok((count > 0.0).then(|| ranks.iter().sum::<f64>() / count))
}

/// Questions with the sentence that answers them, and four other sentences of the text.
fn rows(questions: &[Value], loss: CrossEncoderLoss) -> Vec<Value> {
    let mut rows = Vec::new();
    for question in questions {
        let context = question["context"].as_str().unwrap_or("");
        let Some(answer) = question["answers"]["answer_start"][0].as_u64() else {
            continue;
        };
        let mut place = 0;
        let (mut right, mut wrong) = ("", Vec::new());
        for sentence in context.split_inclusive(". ") {
            let end = place + sentence.len();
            match (place..end).contains(&(answer as usize)) {
                true => right = sentence.trim(),
                false => wrong.push(sentence.trim()),
            }
            place = end;
        }
        let mut row = Map::new();
        row.insert("query".into(), question["question"].clone());
        row.insert("positive".into(), right.into());
        let pointwise = matches!(loss, CrossEncoderLoss::Binary(_) | CrossEncoderLoss::Mse);
        let wrong = &wrong[..wrong.len().min(4)];
        match loss {
            CrossEncoderLoss::MultipleNegatives(_) => {}
            CrossEncoderLoss::MarginMse => {
                row.insert("labels".into(), json!(vec![5.0; wrong.len()]));
            }
            _ if pointwise => {
                row.insert("label".into(), json!(1.0));
            }
            _ => {
                let labels = std::iter::once(1.0).chain(wrong.iter().map(|_| 0.0));
                row.insert("labels".into(), json!(labels.collect::<Vec<f64>>()));
            }
        }
        if pointwise {
            let other =
                json!({"query": question["question"], "positive": wrong.first(), "label": 0.0});
            rows.extend([Value::Object(row), other]);
            continue;
        }
        for (number, sentence) in wrong.iter().enumerate() {
            row.insert(format!("negative_{}", number + 1), json!(sentence));
        }
        rows.push(Value::Object(row));
    }
    rows
}
