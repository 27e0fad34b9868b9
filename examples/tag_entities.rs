//! Trains a tagger of entities, and measures it on held-out rows before and after.
//!
//! ```sh
//! cargo run --release --example tag_entities -- --model all-MiniLM-L6-v2 --output my-tagger
//! ```
//!
//! Without `--data` it learns to find brands, products, parts and prices in invented product reviews; held-out reviews have other
//! names of all of them. Rows of your own have `tokens` and `tags`, or a `text` and `spans` with `start`, `end` and `label`, counted in
//! characters. A `--model` that is a tagger with these tags goes on to train. An entity is right if its type, its beginning and its end are (seqeval). transformers reads the result with
//! `AutoModelForTokenClassification`, and the example `pipeline` with `--task token-classification`.

use anyhow::Result;
use clap::Parser;
use ft::core::{EncoderTask, EncoderTaskConfig, EncoderTokenClassifier, SaveOptions, Tokenizer};
use ft::data::{SubwordLabels, TagStyle, TaggedTexts, TextInput};
use ft::eval::tagging::{TagOptions, TagScheme};
use ft::tasks::{evaluate_tags, tag_batches, tag_step, text_layout};
use ft::train::OnBatches;
use serde_json::{Map, json};

#[path = "shared/encoder_training.rs"]
mod encoder_training;
#[path = "shared/reviews.rs"]
mod reviews;

use encoder_training::{TrainingArgs, losses, merged, row_print};

/// Trains a tagger of entities.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    training: TrainingArgs,
    /// How spans become tags: bio or bilou.
    #[arg(long, default_value = "bio")]
    scheme: String,
    /// Learn the tag of a word on all of its tokens, not only on the first.
    #[arg(long)]
    label_all_tokens: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let training = &args.training;
    let style = match args.scheme.as_str() {
        "bio" => TagStyle::Bio,
        "bilou" => TagStyle::Bilou,
        other => anyhow::bail!("there is no --scheme {other}: use bio or bilou"),
    };
    let (train, held_out) = match (&training.data, &training.held_out) {
        (Some(data), None) => {
            TaggedTexts::load(data, style)?.split(training.eval_fraction, training.seed)?
        }
        (Some(data), Some(held_out)) => (
            TaggedTexts::load(data, style)?,
            TaggedTexts::load(held_out, style)?,
        ),
        (None, _) => {
            let train = reviews::reviews(600, false, training.seed);
            let held_out = reviews::reviews(200, true, training.seed + 1);
            (
                TaggedTexts::load(training.write_rows("train.jsonl", &train)?, style)?,
                TaggedTexts::load(training.write_rows("held_out.jsonl", &held_out)?, style)?,
            )
        }
    };
    if train.widened > 0 {
        eprintln!(
            "{} spans begin or end within a word and were widened",
            train.widened
        );
    }
    // Held-out rows may have tags that no other row has.
    let rows = train.rows.iter().chain(&held_out.rows).cloned().collect();
    let tags = TaggedTexts { rows, widened: 0 }.tags();
    // seqeval reads tags leniently, unless they have the positions of another scheme.
    let bilou = tags
        .iter()
        .any(|tag| tag.starts_with("L-") || tag.starts_with("U-"));
    let options = TagOptions {
        scheme: bilou.then_some(TagScheme::Bilou),
        ..TagOptions::default()
    };
    let device = training.computation.device()?.autodiff();
    let (folder, seed) = (&training.model, training.seed);
    let trained = EncoderTaskConfig::of_trained(folder, EncoderTask::TokenClassification)?;
    // A tagger may have more tags.
    let known = |config: &EncoderTaskConfig| tags.iter().all(|tag| config.labels.contains(tag));
    let trained = trained.filter(known);
    training.print_start(trained.is_some());
    let (model, tags) = match trained {
        Some(config) => (
            EncoderTokenClassifier::from_pretrained(folder, &device)?,
            config.labels,
        ),
        None => (
            EncoderTokenClassifier::from_encoder(folder, tags.clone(), seed, &device)?,
            tags,
        ),
    };
    let positions = model.dims().max_position_embeddings;
    training.check(positions)?;
    let tokenizer = Tokenizer::from_pretrained(folder)?;
    tokenizer.check_vocab(model.dims().vocab_size)?;
    let input = TextInput::new(&tokenizer, positions, Some(training.seq_len));

    let subwords = match args.label_all_tokens {
        true => SubwordLabels::All,
        false => SubwordLabels::First,
    };
    let held = held_out.tokenize(&input, &tags, subwords)?;
    let measure = |model: &EncoderTokenClassifier| {
        evaluate_tags(model, &held_out.rows, &held, &options, input.padding())
    };
    let before = measure(&model)?;
    let layout = text_layout(model.attends_by_tile(), &device, input.padding());
    let examples = train.tokenize(&input, &tags, subwords)?;
    let rows = examples
        .iter()
        .map(|row| (&row.tokens, row.labels.iter().copied()));
    let identity = [("labels", json!(tags)), ("rows", row_print(rows))];
    let batches = tag_batches(examples, training.batch_size, Some(seed), layout)?;
    let method = OnBatches::new(batches, tag_step);
    let (model, report) = training.fit(model, method, &identity)?;
    let after = measure(&model)?;
    model.save_pretrained(&training.output, &SaveOptions::default())?;
    input.tokenizer().save_pretrained(&training.output)?;

    let types: Map<_, _> = (after.classes.iter())
        .map(|(name, scores)| (name.clone(), json!(scores)))
        .collect();
    for (name, scores) in &types {
        eprintln!("{name}: {scores}");
    }
    let (before, after) = (before.micro_average, after.micro_average);
    eprintln!(
        "F1 of entities: {:.4} before, {:.4} after",
        before.f, after.f
    );
    if training.json {
        let line = json!({"rows": train.rows.len(), "held_out": held_out.rows.len(), "tags": tags, "f1_before": before.f,
            "f1_after": after.f, "precision": after.precision, "recall": after.recall, "types": types});
        println!("{}", merged(line, losses(&report)));
    }
    Ok(())
}
