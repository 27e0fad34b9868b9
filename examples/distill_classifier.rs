//! Distillation of a text classifier: messages to the customers of a bank, of which some are fraud.
//!
//! ```sh
//! cargo run --release --example distill_classifier
//! ```
//!
//! A message is made of sentences, each of which makes fraud more or less likely. Labels are drawn with that probability, so that
//! many messages are uncertain, and a label says less about them than a teacher's distribution does. The teacher, a BERT of two
//! blocks, learns from many labelled messages, the student of one narrow block from few. Three students begin with the same
//! weights: one has the labels alone, one the teacher's distributions beside them, and one the teacher's distributions of messages
//! without labels. Accuracy is that of the likelier class of unseen messages, beside the size and the time of each model.
//!
//! All begins with random weights; `--teacher DIR` takes a trained encoder of BERT's family for the teacher, and its tokenizer.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use ft::burn::module::Module;
use ft::burn::optim::GradientsParams;
use ft::burn::tensor::{Device, Int, Tensor, activation};
use ft::core::{
    BackboneConfig, EncoderSequenceClassifier, EncoderTask, EncoderTaskConfig, Tokenizer, mix_seed,
};
use ft::distill::loss::soft_targets;
use ft::embed::{TextBatch, TextTokens};
use ft::eval::classification::calibration;
use ft::train::{OptimizerStates, TrainConfig};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::json;

#[path = "shared/students.rs"]
mod students;
use students::{ALONE, ALONE_AT_BEST, TEACHER};

/// Distillation of a classifier of texts.
#[derive(Parser)]
struct Args {
    /// Folder of a trained encoder for the teacher; without it a BERT with random weights.
    #[arg(long)]
    teacher: Option<PathBuf>,
    /// Labelled messages of the teacher.
    #[arg(long, default_value_t = 3000)]
    teacher_messages: usize,
    /// Labelled messages of the students.
    #[arg(long, default_value_t = 150)]
    student_messages: usize,
    /// The temperature of both distributions.
    #[arg(long, default_value_t = 2.0)]
    temperature: f64,
    /// The weight of the teacher, beside that of the labels.
    #[arg(long, default_value_t = 0.8)]
    alpha: f64,
    /// Optimizer steps of each model.
    #[arg(long, default_value_t = 600)]
    steps: usize,
    /// How often all is done, with other messages and weights.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

const BATCH: usize = 16;
const UNSEEN: usize = 1000;

/// Sentences, and how much each adds to the log-odds of fraud.
const CUES: [(f64, [&str; 4]); 12] = [
    (
        1.6,
        [
            "Reply with your password.",
            "Please confirm your PIN here.",
            "Send us the code that you received.",
            "Tell us your full card number.",
        ],
    ),
    (
        1.4,
        [
            "Pay the fee with gift cards.",
            "Buy vouchers and send the numbers.",
            "The fee is taken in crypto coins.",
            "Pay with prepaid cards only.",
        ],
    ),
    (
        1.1,
        [
            "Open bank-secure-login.top now.",
            "Log in at http://verify-acc0unt.ru today.",
            "Follow the short link within the hour.",
            "Use this new page to log in.",
        ],
    ),
    (
        0.9,
        [
            "Your account will be closed today.",
            "This is the last warning.",
            "Act at once or lose your money.",
            "Your card is blocked in 30 minutes.",
        ],
    ),
    (
        0.6,
        [
            "You have won a refund.",
            "An unknown transfer was stopped.",
            "A new device logged in.",
            "Your tax refund is ready.",
        ],
    ),
    (
        0.4,
        [
            "A payment abroad was declined.",
            "A large amount was reserved.",
            "Your limit was reached.",
            "Someone asked for a new card.",
        ],
    ),
    (
        -0.4,
        [
            "Your statement for May is ready.",
            "The rate of your savings changes in June.",
            "Our branch has new opening hours.",
            "Your new card is in the post.",
        ],
    ),
    (
        -0.6,
        [
            "You paid 12.40 at the bakery.",
            "Your rent was transferred as planned.",
            "The gym took 29.90 by direct debit.",
            "Your salary has arrived.",
        ],
    ),
    (
        -0.9,
        [
            "You need not do anything.",
            "No reply is needed.",
            "This is for your information only.",
            "You can turn off these messages in the app.",
        ],
    ),
    (
        -1.1,
        [
            "Call the number on the back of your card.",
            "Ask at your branch if you are unsure.",
            "We never ask for your password.",
            "Log in with the app as usual.",
        ],
    ),
    (
        0.0,
        [
            "Dear customer,",
            "Hello,",
            "Good morning,",
            "Dear Ms Brown,",
        ],
    ),
    (
        0.0,
        [
            "Your bank.",
            "The service team.",
            "Kind regards.",
            "Thank you.",
        ],
    ),
];

/// A message, and the probability that it is fraud.
struct Message {
    text: TextTokens,
    fraud: f64,
    label: i64,
}

fn messages(count: usize, seed: u64, tokenizer: &Tokenizer) -> Result<Vec<Message>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut one = || {
        let greeting = CUES[10].1.choose(&mut rng).copied().unwrap_or_default();
        let end = CUES[11].1.choose(&mut rng).copied().unwrap_or_default();
        let mut cues: Vec<&(f64, [&str; 4])> = CUES[..10].iter().collect();
        cues.shuffle(&mut rng);
        let cues = &cues[..rng.random_range(2..=4)];
        let odds: f64 = cues.iter().map(|(weight, _)| weight).sum();
        let sentences = cues
            .iter()
            .filter_map(|(_, sentences)| sentences.choose(&mut rng).copied());
        let text = [greeting]
            .into_iter()
            .chain(sentences.collect::<Vec<_>>())
            .chain([end]);
        let text = text.collect::<Vec<_>>().join(" ");
        // On average the sentences of a message add 0.9.
        let fraud = 1.0 / (1.0 + (-1.5 * (odds - 0.9)).exp());
        Ok(Message {
            text: TextTokens {
                ids: tokenizer.encode(&text, true)?,
                ..TextTokens::default()
            },
            fraud,
            label: i64::from(rng.random_bool(fraud)),
        })
    };
    (0..count).map(|_| one()).collect()
}

fn logits(model: &EncoderSequenceClassifier, batch: &[&Message], device: &Device) -> Tensor<2> {
    let texts: Vec<&TextTokens> = batch.iter().map(|message| &message.text).collect();
    let batch = TextBatch::packed(&texts);
    model.scores(&batch.tokens(device), batch.places())
}

/// What a model learns from.
struct Lesson<'a> {
    messages: &'a [Message],
    /// The teacher, and its weight.
    teacher: Option<(&'a EncoderSequenceClassifier, f64)>,
    temperature: f64,
    rate: f64,
}

fn train(
    mut model: EncoderSequenceClassifier,
    lesson: &Lesson<'_>,
    steps: usize,
    seed: u64,
    device: &Device,
    mut at_tenths: impl FnMut(&EncoderSequenceClassifier) -> Result<()>,
) -> Result<EncoderSequenceClassifier> {
    let mut optimizer = OptimizerStates::adamw(&TrainConfig::default());
    let mut rng = StdRng::seed_from_u64(seed);
    for step in 0..steps {
        let batch: Vec<&Message> = lesson.messages.choose_multiple(&mut rng, BATCH).collect();
        let scores = logits(&model, &batch, device);
        let labels: Vec<i64> = batch.iter().map(|message| message.label).collect();
        let index = Tensor::<1, Int>::from_data(labels.as_slice(), device).unsqueeze_dim::<2>(1);
        let of_labels = -activation::log_softmax(scores.clone(), 1)
            .gather(1, index)
            .squeeze_dim::<1>(1);
        let losses = match lesson.teacher {
            None => of_labels,
            Some((teacher, alpha)) => {
                let taught = Tensor::from_inner(logits(teacher, &batch, &device.clone().inner()));
                soft_targets(scores, taught, lesson.temperature) * alpha + of_labels * (1.0 - alpha)
            }
        };
        let gradients = GradientsParams::from_grads(losses.sum().backward(), &model);
        // A tenth of the steps to rise, then down to 0.
        let done = (step + 1) as f64 / steps as f64;
        let rate = lesson.rate * (10.0 * done).min((1.0 - done) / 0.9);
        model = optimizer.step(model, gradients, rate, 1.0 / BATCH as f64);
        if step + 1 == steps || (step + 1).is_multiple_of(steps.div_ceil(10)) {
            at_tenths(&model)?;
        }
    }
    Ok(model)
}

/// What a model makes of unseen messages.
#[derive(Clone, Copy, Default)]
struct Tested {
    /// The share of messages whose likelier class is found.
    accuracy: f64,
    /// The expected calibration error of the probabilities, of the labels as they were drawn.
    calibration_error: f64,
    /// Milliseconds a message.
    ms: f64,
}

fn test(
    model: &EncoderSequenceClassifier,
    messages: &[Message],
    device: &Device,
) -> Result<Tested> {
    let (mut right, mut confidences, mut correct) = (0, Vec::new(), Vec::new());
    let start = Instant::now();
    for message in messages {
        let scores = logits(model, &[message], device);
        let fraud = activation::softmax(scores, 1)
            .into_data()
            .try_to_vec::<f32>()?[1];
        let class = fraud > 0.5;
        right += usize::from(class == (message.fraud > 0.5));
        confidences.push(f64::from(fraud.max(1.0 - fraud)));
        correct.push(class == (message.label == 1));
    }
    let count = messages.len() as f64;
    Ok(Tested {
        accuracy: right as f64 / count,
        ms: 1e3 * start.elapsed().as_secs_f64() / count,
        calibration_error: calibration(&confidences, &correct, 15)?.expected_error,
    })
}

/// A BERT with random weights.
fn bert(
    blocks: usize,
    width: usize,
    vocab: usize,
    device: &Device,
) -> Result<EncoderSequenceClassifier> {
    let body = BackboneConfig::from_json(json!({
        "model_type": "bert", "vocab_size": vocab, "hidden_size": width, "intermediate_size": 4 * width,
        "num_hidden_layers": blocks, "num_attention_heads": width / 32, "max_position_embeddings": 256,
        "initializer_range": 0.04,
    }))?;
    let config = EncoderTaskConfig::new(body, EncoderTask::SequenceClassification, labels())?;
    Ok(EncoderSequenceClassifier::from_config(&config, device)?)
}

fn labels() -> Vec<String> {
    ["legitimate", "fraud"].map(String::from).to_vec()
}

fn parameters(model: &EncoderSequenceClassifier) -> usize {
    let shapes = ft::core::module_path::shapes(model);
    shapes.iter().map(|(_, shape)| shape.num_elements()).sum()
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    ensure!(
        args.seeds >= 2,
        "--seeds must be 2 or more: intervals need several"
    );
    ensure!(
        args.teacher_messages >= BATCH && args.student_messages >= BATCH,
        "a model needs {BATCH} messages or more"
    );
    let (device, plain) = (ft::device("cpu")?.autodiff(), ft::device("cpu")?);
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/tiny-llama");
    let tokenizer = Tokenizer::from_pretrained(args.teacher.as_deref().unwrap_or(&shipped))?;
    let vocab = tokenizer.vocab_size();
    let names = [
        "teacher",
        "student, labels alone",
        "student, labels alone, at its best",
        "student, labels and teacher",
        "student, teacher without labels",
    ];
    let mut found = vec![Vec::new(); names.len()];
    let (mut times, mut sizes, mut errors) = ([0.0; 2], [0; 2], [0.0; 4]);
    for seed in 0..args.seeds {
        let part = |part: u64| mix_seed(seed, part);
        let many = messages(args.teacher_messages, part(0), &tokenizer)?;
        let few = messages(args.student_messages, part(1), &tokenizer)?;
        let unseen = messages(UNSEEN, part(2), &tokenizer)?;
        device.seed(part(3));
        let (teacher, rate) = match &args.teacher {
            None => (bert(2, 96, vocab, &device)?, 5e-4),
            Some(folder) => {
                let model =
                    EncoderSequenceClassifier::from_encoder(folder, labels(), part(3), &device);
                (model?, 1e-4)
            }
        };
        let lesson = |messages, teacher, rate| Lesson {
            messages,
            teacher,
            temperature: args.temperature,
            rate,
        };
        let teacher = train(
            teacher,
            &lesson(&many, None, rate),
            args.steps,
            part(4),
            &device,
            |_| Ok(()),
        )?
        .valid();
        device.seed(part(5));
        let student = bert(1, 32, vocab, &device)?;
        // Its weights are drawn now, so that all students begin with the same.
        ft::core::module_path::draw(&student);
        sizes = [parameters(&teacher), parameters(&student)];
        let trained =
            |messages, alpha: Option<f64>, at_tenths: &mut dyn FnMut(f64)| -> Result<Tested> {
                let teacher = alpha.map(|alpha| (&teacher, alpha));
                let lesson = lesson(messages, teacher, 1e-3);
                let mut last = Tested::default();
                let start = student.clone();
                train(start, &lesson, args.steps, part(6), &device, |model| {
                    last = test(&model.valid(), &unseen, &plain)?;
                    at_tenths(last.accuracy);
                    Ok(())
                })?;
                Ok(last)
            };
        let tested = test(&teacher, &unseen, &plain)?;
        found[TEACHER].push(tested.accuracy);
        errors[0] += tested.calibration_error / args.seeds as f64;
        times[0] += tested.ms / args.seeds as f64;
        let mut best = 0.0f64;
        let students = [
            trained(&few, None, &mut |accuracy| best = best.max(accuracy))?,
            trained(&few, Some(args.alpha), &mut |_| {})?,
            trained(&many, Some(1.0), &mut |_| {})?,
        ];
        found[ALONE_AT_BEST].push(best);
        let places = [ALONE, ALONE_AT_BEST + 1, ALONE_AT_BEST + 2];
        for (number, (place, tested)) in places.into_iter().zip(students).enumerate() {
            found[place].push(tested.accuracy);
            errors[number + 1] += tested.calibration_error / args.seeds as f64;
            times[1] += tested.ms / (students.len() as f64 * args.seeds as f64);
        }
        let last: Vec<String> = found
            .iter()
            .filter_map(|all| all.last())
            .map(|accuracy| format!("{:.1}%", 100.0 * accuracy))
            .collect();
        eprintln!("seed {seed}: {} of unseen messages right", last.join(", "));
    }
    for (name, size, ms) in [
        ("teacher", sizes[0], times[0]),
        ("student", sizes[1], times[1]),
    ] {
        let mb = size as f64 * 4e-6;
        println!("{name}: {size} parameters, {mb:.1} MB, {ms:.2} ms a message");
    }
    let percent = errors.map(|error| format!("{:.1}%", 100.0 * error));
    println!(
        "expected calibration error, without the best moment: {}",
        percent.join(", ")
    );
    let mut line = students::report(&names, &found)?;
    if args.json {
        line.insert("parameters".into(), json!(sizes));
        line.insert("ms".into(), json!(times));
        line.insert("calibration_errors".into(), json!(errors));
        line.insert("peak_rss_mb".into(), ft::peak_rss_mb().into());
        println!("{}", serde_json::Value::Object(line));
    }
    Ok(())
}
