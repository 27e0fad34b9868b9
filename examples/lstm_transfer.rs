//! Before transformers: an LSTM that classifies reviews, and what is left of it when the task becomes to write.
//!
//! ```sh
//! cargo run --release --example lstm_transfer
//! ```
//!
//! Reviews are made of one or three clauses about parts of a product. The first task is their sentiment, the second to write down
//! each part with its verdict. The LSTM has a layer of two classes, which cannot write: a second LSTM and a layer over all words are
//! new and begin at random, and only the embeddings and the encoder are kept. The transformer writes from the start, its first task
//! one word, so that nothing of it is new. Both have about as many parameters, and learn the second task from the same few reviews,
//! once after the first task and once from random weights.

use anyhow::{Result, ensure};
use clap::Parser;
use ft::burn::module::Module;
use ft::burn::optim::GradientsParams;
use ft::burn::tensor::{Device, Int, Tensor, TensorData, activation};
use ft::core::layers::Embedding;
use ft::core::{
    AutoCausalLm, Decoder, GenerationConfig, IGNORE_INDEX, Layout, Linear, ModelConfig, mix_seed,
};
use ft::data::{Collation, SftDataset, Tokenized};
use ft::train::{OptimizerStates, TrainConfig, Trainer, clip_factor, global_norm, next_token_loss};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::json;

/// Transfer of an LSTM and of a transformer to another task.
#[derive(Parser)]
struct Args {
    /// Reviews with a sentiment.
    #[arg(long, default_value_t = 2000)]
    first_reviews: usize,
    /// Reviews with a summary.
    #[arg(long, default_value_t = 600)]
    second_reviews: usize,
    /// Passes over the reviews of the first task.
    #[arg(long, default_value_t = 8)]
    first_epochs: usize,
    /// Passes over the reviews of the second task.
    #[arg(long, default_value_t = 60)]
    second_epochs: usize,
    /// How often all is done, with other reviews and weights.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

const BATCH: usize = 32;
const UNSEEN: usize = 200;
/// Width of embeddings and states.
const WIDTH: usize = 64;
/// The most words of a summary, with its end.
const SUMMARY: usize = 7;

const PARTS: [&str; 12] = [
    "battery", "screen", "case", "sound", "lens", "handle", "motor", "strap", "cable", "lid",
    "price", "weight",
];
const GOOD: [&str; 8] = [
    "great",
    "superb",
    "solid",
    "lovely",
    "fine",
    "excellent",
    "handy",
    "bright",
];
const BAD: [&str; 8] = [
    "awful", "weak", "flimsy", "poor", "terrible", "cheap", "dull", "broken",
];
const OTHERS: [&str; 16] = [
    "the", "is", "not", "and", "but", "really", "very", "quite", "i", "find", "its", "was", "good",
    "bad", "positive", "negative",
];

const PAD: usize = 0;
const TASK: usize = 1;
const END: usize = 2;

/// The words by number, behind three marks.
fn words() -> Vec<&'static str> {
    let marks = ["<pad>", "=>", "<end>"];
    [&marks[..], &PARTS, &GOOD, &BAD, &OTHERS].concat()
}

/// A review in numbers.
struct Review {
    words: Vec<usize>,
    positive: bool,
    summary: Vec<usize>,
}

fn reviews(count: usize, seed: u64) -> Vec<Review> {
    let all = words();
    let number = |word: &str| all.iter().position(|other| *other == word).unwrap_or(PAD);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut one = || {
        let clauses = if rng.random_bool(0.5) { 1 } else { 3 };
        let (mut text, mut summary, mut balance) = (Vec::new(), Vec::new(), 0);
        for part in PARTS
            .choose_multiple(&mut rng, clauses)
            .copied()
            .collect::<Vec<_>>()
        {
            let (negated, pleasant) = (rng.random_bool(0.3), rng.random_bool(0.5));
            let good = pleasant != negated;
            if !text.is_empty() {
                text.push(if rng.random_bool(0.5) { "and" } else { "but" });
            }
            text.extend(match rng.random_range(0..3) {
                0 => vec!["the", part, "is"],
                1 => vec!["i", "find", "the", part],
                _ => vec!["its", part, "was"],
            });
            text.extend(negated.then_some("not"));
            if rng.random_bool(0.4) {
                text.extend(["really", "very", "quite"].choose(&mut rng));
            }
            text.extend(if pleasant { &GOOD } else { &BAD }.choose(&mut rng));
            summary.extend([part, if good { "good" } else { "bad" }]);
            balance += if good { 1 } else { -1 };
        }
        Review {
            words: text.into_iter().map(number).collect(),
            positive: balance > 0,
            summary: summary.into_iter().map(number).chain([END]).collect(),
        }
    };
    (0..count).map(|_| one()).collect()
}

/// A long short-term memory (Hochreiter and Schmidhuber, 1997), its gates in one layer. What opens the forget gate has 1 added, so
/// that the state is kept at first (Jozefowicz et al., 2015).
#[derive(Module, Debug)]
struct Lstm {
    gates: Linear,
}

type State = [Tensor<2>; 2];

impl Lstm {
    fn new(device: &Device) -> Self {
        let std = (1.0 / (2 * WIDTH) as f64).sqrt();
        Self {
            gates: Linear::new(2 * WIDTH, 4 * WIDTH, true, Layout::OutIn, std, device),
        }
    }

    /// One step: `x` and both states are `[reviews, width]`.
    fn step(&self, x: Tensor<2>, [hidden, cell]: State) -> State {
        let input = Tensor::cat(vec![x, hidden], 1).unsqueeze::<3>();
        let gates: Tensor<2> = self.gates.forward(input).squeeze_dim(0);
        let [input, forget, output] = [(0, 0.0), (1, 1.0), (2, 0.0)].map(|(gate, more)| {
            activation::sigmoid(gates.clone().narrow(1, gate * WIDTH, WIDTH) + more)
        });
        let new = gates.narrow(1, 3 * WIDTH, WIDTH).tanh();
        let cell = forget * cell + input * new;
        [output * cell.clone().tanh(), cell]
    }
}

/// Embeddings, an LSTM that reads, and a layer of two classes.
#[derive(Module, Debug)]
struct Classifier {
    embeddings: Embedding,
    encoder: Lstm,
    classes: Linear,
}

fn layer(outputs: usize, device: &Device) -> Linear {
    let std = (1.0 / WIDTH as f64).sqrt();
    Linear::new(WIDTH, outputs, true, Layout::OutIn, std, device)
}

impl Classifier {
    fn new(device: &Device) -> Self {
        Self {
            embeddings: Embedding::new(words().len(), WIDTH, 0.3, device),
            encoder: Lstm::new(device),
            classes: layer(2, device),
        }
    }

    /// Logits, `[reviews, 2]`.
    fn forward(&self, reviews: &[&Review], device: &Device) -> Tensor<2> {
        let [hidden, _] = read(&self.embeddings, &self.encoder, reviews, device);
        self.classes.forward(hidden.unsqueeze::<3>()).squeeze_dim(0)
    }
}

/// The states after the last word of each review. Reviews are padded on the left, so that their last words stand together.
fn read(embeddings: &Embedding, encoder: &Lstm, reviews: &[&Review], device: &Device) -> State {
    let longest = reviews
        .iter()
        .map(|review| review.words.len())
        .max()
        .unwrap_or(0);
    let padded = reviews.iter().flat_map(|review| {
        let padding = std::iter::repeat_n(PAD, longest - review.words.len());
        padding
            .chain(review.words.iter().copied())
            .map(|word| word as i64)
    });
    let ids = TensorData::new(padded.collect::<Vec<i64>>(), [reviews.len(), longest]);
    let ids = Tensor::<2, Int>::from_data(ids, device);
    let begun = ids.clone().not_equal_elem(PAD as i64).float();
    let words = embeddings.forward(ids);
    let mut state = [(); 2].map(|()| Tensor::zeros([reviews.len(), WIDTH], device));
    for place in 0..longest {
        // The state stays 0 until the review begins.
        let begun = begun.clone().narrow(1, place, 1);
        let next = encoder.step(words.clone().narrow(1, place, 1).squeeze_dim(1), state);
        state = next.map(|state| state * begun.clone());
    }
    state
}

/// What remains of the classifier, with a decoder and a layer over all words.
#[derive(Module, Debug)]
struct Writer {
    embeddings: Embedding,
    encoder: Lstm,
    decoder: Lstm,
    words: Linear,
}

impl Writer {
    fn from_classifier(classifier: Classifier, device: &Device) -> Self {
        Self {
            embeddings: classifier.embeddings,
            encoder: classifier.encoder,
            decoder: Lstm::new(device),
            words: layer(words().len(), device),
        }
    }

    /// Writes until `next` stops: it gets the logits `[reviews, words]` of each place and returns the words there.
    fn write(
        &self,
        reviews: &[&Review],
        device: &Device,
        mut next: impl FnMut(usize, Tensor<2>) -> Vec<usize>,
    ) {
        let mut state = read(&self.embeddings, &self.encoder, reviews, device);
        let mut last = vec![TASK; reviews.len()];
        for place in 0..SUMMARY {
            let ids: Vec<i64> = last.iter().map(|&word| word as i64).collect();
            let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [last.len(), 1]), device);
            state = self
                .decoder
                .step(self.embeddings.forward(ids).squeeze_dim(1), state);
            let logits = self.words.forward(state[0].clone().unsqueeze::<3>());
            last = next(place, logits.squeeze_dim(0));
        }
    }
}

/// The summed cross-entropy, without reviews whose target is padding.
fn cross_entropy(logits: Tensor<2>, targets: &[usize]) -> Tensor<1> {
    let device = logits.device();
    let ids: Vec<i64> = targets.iter().map(|&id| id as i64).collect();
    let index = Tensor::<1, Int>::from_data(ids.as_slice(), &device).unsqueeze_dim::<2>(1);
    let counts: Vec<f32> = targets
        .iter()
        .map(|&id| f32::from(u8::from(id != PAD)))
        .collect();
    let counts = Tensor::<1>::from_data(counts.as_slice(), &device);
    let logps = activation::log_softmax(logits, 1)
        .gather(1, index)
        .squeeze_dim::<1>(1);
    -(logps * counts).sum()
}

/// Trains with AdamW for some passes as the trainer does: all reviews in each pass, in another order, and a gradient whose length
/// is 1 at most. `loss` is that of a batch, summed, with its number of targets.
fn train<M: Module>(
    mut model: M,
    reviews: &[Review],
    epochs: usize,
    seed: u64,
    loss: impl Fn(&M, &[&Review]) -> (Tensor<1>, usize),
) -> M {
    let mut optimizer = OptimizerStates::adamw(&TrainConfig::default());
    let mut rng = StdRng::seed_from_u64(seed);
    let mut order: Vec<&Review> = reviews.iter().collect();
    let steps = epochs * reviews.len().div_ceil(BATCH);
    let mut step = 0;
    for _ in 0..epochs {
        order.shuffle(&mut rng);
        for batch in order.chunks(BATCH) {
            let (sum, count) = loss(&model, batch);
            let gradients = GradientsParams::from_grads(sum.backward(), &model);
            let rate = 3e-3 * (1.0 - step as f64 / steps as f64);
            let scale = 1.0 / count as f64;
            let clip = clip_factor(global_norm(&model, &gradients) * scale, 1.0);
            model = optimizer.step(model, gradients, rate, scale * clip);
            step += 1;
        }
    }
    model
}

fn train_classifier(
    model: Classifier,
    data: &[Review],
    epochs: usize,
    seed: u64,
    device: &Device,
) -> Classifier {
    train(model, data, epochs, seed, |model, batch| {
        let targets: Vec<usize> = batch
            .iter()
            .map(|review| 1 + usize::from(review.positive))
            .collect();
        // Class 0 would count as padding.
        let logits = model.forward(batch, device);
        let logits = Tensor::cat(
            vec![Tensor::full([batch.len(), 1], -1e9, device), logits],
            1,
        );
        (cross_entropy(logits, &targets), batch.len())
    })
}

fn train_writer(
    model: Writer,
    data: &[Review],
    epochs: usize,
    seed: u64,
    device: &Device,
) -> Writer {
    train(model, data, epochs, seed, |model, batch| {
        let mut sum = Tensor::zeros([1], device);
        let mut count = 0;
        model.write(batch, device, |place, logits| {
            let word = |review: &&Review| review.summary.get(place).copied().unwrap_or(PAD);
            let targets: Vec<usize> = batch.iter().map(word).collect();
            count += targets.iter().filter(|&&word| word != PAD).count();
            sum = sum.clone() + cross_entropy(logits, &targets);
            targets
        });
        (sum, count)
    })
}

/// The share of summaries that the writer gets right to the word.
fn written_right(model: &Writer, data: &[Review], device: &Device) -> f64 {
    let all: Vec<&Review> = data.iter().collect();
    let mut found = vec![Vec::new(); all.len()];
    model.write(&all, device, |_, logits| {
        let best: Vec<usize> = logits
            .argmax(1)
            .into_data()
            .iter::<i64>()
            .map(|word| word as usize)
            .collect();
        for (found, &word) in found.iter_mut().zip(&best) {
            found.push(word);
        }
        best
    });
    let right = data
        .iter()
        .zip(&found)
        .filter(|(review, found)| found.starts_with(&review.summary));
    right.count() as f64 / data.len() as f64
}

/// What the transformer reads and writes in a task.
fn row(review: &Review, target: &[usize]) -> Tokenized {
    let prompt = prompt(review);
    let labels = target.iter().map(|&word| word as i64);
    Tokenized {
        labels: prompt.iter().map(|_| IGNORE_INDEX).chain(labels).collect(),
        input_ids: prompt
            .iter()
            .copied()
            .chain(target.iter().map(|&word| word as u32))
            .collect(),
    }
}

fn prompt(review: &Review) -> Vec<u32> {
    review
        .words
        .iter()
        .map(|&word| word as u32)
        .chain([TASK as u32])
        .collect()
}

fn sentiment(review: &Review) -> Vec<usize> {
    let word = if review.positive {
        "positive"
    } else {
        "negative"
    };
    words()
        .iter()
        .position(|other| *other == word)
        .into_iter()
        .chain([END])
        .collect()
}

fn transformer(device: &Device) -> Result<AutoCausalLm> {
    let config = ModelConfig::from_json(json!({
        "model_type": "llama", "vocab_size": words().len(), "hidden_size": WIDTH, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
        "tie_word_embeddings": true, "initializer_range": 0.1,
    }))?;
    Ok(AutoCausalLm::from_config(&config, device)?)
}

fn train_transformer(
    model: AutoCausalLm,
    data: &[Review],
    target: impl Fn(&Review) -> Vec<usize>,
    epochs: usize,
    seed: u64,
) -> Result<AutoCausalLm> {
    let rows = data.iter().map(|review| row(review, &target(review)));
    let rows = SftDataset::from_examples(rows.collect());
    let batches = rows.into_batches(
        BATCH,
        Collation::Padded { multiple: 1 },
        Some(seed),
        PAD as u32,
    )?;
    let config = TrainConfig {
        learning_rate: 3e-3,
        epochs: epochs as f64,
        progress: false,
        seed,
        ..TrainConfig::default()
    };
    Ok(Trainer::new(config, batches, next_token_loss).fit(model)?.0)
}

/// The share of targets that the transformer writes to the word.
fn answered_right(
    model: &AutoCausalLm,
    data: &[Review],
    target: impl Fn(&Review) -> Vec<usize>,
    device: &Device,
) -> Result<f64> {
    let generation = GenerationConfig {
        max_new_tokens: SUMMARY,
        eos_token_ids: vec![END as u32],
        ..GenerationConfig::default()
    };
    let mut decoder = Decoder::new(model, None, device);
    let mut rows = Vec::new();
    for review in data {
        rows.extend(decoder.join_many(&prompt(review), 1, &generation)?);
    }
    let mut found = vec![Vec::new(); rows.len()];
    while !decoder.is_empty() {
        for next in decoder.step()? {
            if let Some(place) = rows.iter().position(|row| *row == next.row) {
                found[place].push(next.token_id as usize);
            }
        }
    }
    let right = data
        .iter()
        .zip(&found)
        .filter(|(review, found)| **found == target(review));
    Ok(right.count() as f64 / data.len() as f64)
}

fn parameters(model: &impl Module) -> usize {
    let shapes = ft::core::module_path::shapes(model);
    shapes.iter().map(|(_, shape)| shape.num_elements()).sum()
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    ensure!(
        args.first_reviews >= BATCH && args.second_reviews >= BATCH,
        "a task needs {BATCH} reviews or more"
    );
    ensure!(args.seeds > 0, "--seeds must be 1 or more");
    let (device, plain) = (ft::device("cpu")?.autodiff(), ft::device("cpu")?);
    let names = [
        "LSTM: sentiment",
        "LSTM: summary, after sentiment",
        "LSTM: summary, from random weights",
        "transformer: sentiment",
        "transformer: summary, after sentiment",
        "transformer: summary, from random weights",
    ];
    let mut found = vec![Vec::new(); names.len()];
    let mut sizes = [0; 3];
    for seed in 0..args.seeds {
        let part = |part: u64| mix_seed(seed, part);
        let first = reviews(args.first_reviews, part(0));
        let second = reviews(args.second_reviews, part(1));
        let unseen = reviews(UNSEEN, part(2));
        let summary = |review: &Review| review.summary.clone();

        device.seed(part(3));
        let lstm = train_classifier(
            Classifier::new(&device),
            &first,
            args.first_epochs,
            part(4),
            &device,
        );
        let all: Vec<&Review> = unseen.iter().collect();
        let classes = lstm.valid().forward(&all, &plain).argmax(1).into_data();
        let right = classes
            .iter::<i64>()
            .zip(&unseen)
            .filter(|(class, review)| (*class == 1) == review.positive);
        found[0].push(right.count() as f64 / unseen.len() as f64);
        for (place, classifier) in [(1, lstm), (2, Classifier::new(&device))] {
            let writer = Writer::from_classifier(classifier, &device);
            sizes = [
                parameters(&writer),
                parameters(&writer.decoder) + parameters(&writer.words),
                sizes[2],
            ];
            let writer = train_writer(writer, &second, args.second_epochs, part(5), &device);
            found[place].push(written_right(&writer.valid(), &unseen, &plain));
        }

        device.seed(part(6));
        let model = transformer(&device)?;
        sizes[2] = parameters(&model);
        let model = train_transformer(model, &first, sentiment, args.first_epochs, part(7))?;
        found[3].push(answered_right(&model.valid(), &unseen, sentiment, &plain)?);
        for (place, model) in [(4, model), (5, transformer(&device)?)] {
            let model = train_transformer(model, &second, summary, args.second_epochs, part(8))?;
            found[place].push(answered_right(&model.valid(), &unseen, summary, &plain)?);
        }
        eprintln!("seed {seed} of {} done", args.seeds);
    }
    println!(
        "LSTM: {} parameters, of which {} are new in the second task; transformer: {}, of which 0 are new",
        sizes[0], sizes[1], sizes[2]
    );
    println!(
        "share of {UNSEEN} unseen reviews that are right, mean of {} seeds:",
        args.seeds
    );
    for (name, shares) in names.iter().zip(&found) {
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        let each: Vec<String> = shares
            .iter()
            .map(|share| format!("{:.0}", 100.0 * share))
            .collect();
        println!("{name:<44} {:5.1}%  ({})", 100.0 * mean, each.join(", "));
    }
    if args.json {
        let shares: serde_json::Map<String, serde_json::Value> = names
            .iter()
            .zip(&found)
            .map(|(name, shares)| (name.to_string(), json!(shares)))
            .collect();
        println!(
            "{}",
            json!({"right": shares, "parameters": sizes, "peak_rss_mb": ft::peak_rss_mb()})
        );
    }
    Ok(())
}
