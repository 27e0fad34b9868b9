//! Distillation of a language model: a small student learns a teacher's distribution of every next token.
//!
//! ```sh
//! cargo run --release --example distill_lm -- --teacher DIR --student layers:0,2,4,6 --data chats.jsonl --output my-student
//! ```
//!
//! `--student` is a model folder, a `config.json` (random weights), or some of the teacher's layers. The same student is also
//! trained without the teacher, from the same start, on the same batches, and both are compared on held-out rows; `--no-twin`
//! leaves that out. With `--offline-logits DIR` the teacher's likeliest tokens are written once, for all rows, and its passes are
//! left out of the steps, also of later runs with other seeds or students. With `--endpoint` a server writes them (vLLM), for a teacher
//! that does not fit here: `--teacher` is then a folder with its tokenizer. With `--own-answers` the student learns along answers that it samples, the
//! twin those of the data.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use ft::core::{
    AutoCausalLm, CausalLm, GenerationConfig, HubOptions, ModelConfig, SaveOptions, Tokenizer,
    Weights, copy_generation_config, resolve,
};
use ft::data::{Collation, Format, SftDataset};
use ft::distill::{
    Distill, DistillConfig, Divergence, OwnAnswers, ServerTeacher, TeacherSource, compare,
    narrow_student_of, write_top_logits,
};
use ft::eval::server::ServerOptions;
use ft::kernels::PackedFormat;
use ft::train::{TrainConfig, Trainer, evaluate, next_token_loss};
use serde_json::json;

#[path = "shared/computation.rs"]
mod computation;
use computation::Computation;

/// Distillation of a language model.
#[derive(Parser)]
struct Args {
    /// Model folder of the teacher, or hub id (needs --features hub); with --endpoint only its tokenizer is read.
    #[arg(long)]
    teacher: String,
    /// Round the teacher's linear layers to blocks of this format: q8_0, q4_k, nf4, ... int8 also rounds what they are multiplied
    /// with, and halves the time of the teacher.
    #[arg(long, conflicts_with = "endpoint")]
    teacher_format: Option<PackedFormat>,
    /// Address of a server that gives prompt_logprobs, as vLLM does, for --offline-logits; it gives 20 tokens unless it is started with
    /// --max-logprobs.
    #[arg(long, requires_all = ["offline_logits", "endpoint_model"])]
    endpoint: Option<String>,
    /// The teacher's name on the server; vLLM's is the path or id that it was started with.
    #[arg(long, requires = "endpoint")]
    endpoint_model: Option<String>,
    /// Environment variable with the server's key.
    #[arg(long, requires = "endpoint")]
    api_key_env: Option<String>,
    /// Model folder, a config.json, or `layers:0,2,4` for these layers of the teacher.
    #[arg(long)]
    student: String,
    /// With `layers:`, smaller sizes than the teacher's by their names in config.json, such as
    /// hidden_size=384,num_attention_heads=6,num_key_value_heads=2,intermediate_size=1024.
    #[arg(long, value_delimiter = ',', value_parser = size)]
    sizes: Vec<(String, u64)>,
    /// JSON or JSONL file.
    #[arg(long)]
    data: PathBuf,
    /// alpaca, sharegpt, messages or prompt_completion; without it, by the columns of the first row.
    #[arg(long)]
    format: Option<Format>,
    /// Folder for the student.
    #[arg(long)]
    output: PathBuf,
    /// kl (forward), reverse_kl, or jsd:BETA.
    #[arg(long, default_value = "kl")]
    loss: Loss,
    /// The temperature of both distributions; without it 2, and 1 with --offline-logits, where fewer tokens suffice.
    #[arg(long)]
    temperature: Option<f64>,
    /// The weight of the teacher, beside that of the data.
    #[arg(long, default_value_t = 0.5)]
    alpha: f64,
    /// The weight of 1 - cos between the last hidden states, for a student as wide as its teacher.
    #[arg(long, default_value_t = 0.0)]
    cosine: f64,
    /// The weight of the mean squared difference between hidden states of blocks at the same share of the depth, for a student as wide as
    /// its teacher.
    #[arg(long, default_value_t = 0.0)]
    layers: f64,
    /// Folder for the teacher's likeliest tokens; what it has is used.
    #[arg(long)]
    offline_logits: Option<PathBuf>,
    /// How many likely tokens are written.
    #[arg(long, default_value_t = 64)]
    top_k: usize,
    /// The share of the batches whose answers the student samples itself (on-policy); the teacher is compared along them.
    #[arg(long, default_value_t = 0.0, conflicts_with = "offline_logits")]
    own_answers: f64,
    /// The largest length of own answers.
    #[arg(long, default_value_t = 128)]
    max_new_tokens: usize,
    /// Do not train the same student without the teacher.
    #[arg(long)]
    no_twin: bool,
    /// The share of the rows that is held out for evaluation.
    #[arg(long, default_value_t = 0.1)]
    eval_fraction: f64,
    /// Passes over the data.
    #[arg(long, default_value_t = 1.0)]
    epochs: f64,
    /// Optimizer steps in all; overrides --epochs.
    #[arg(long)]
    max_steps: Option<usize>,
    /// Rows per batch.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Rows are cut at this length.
    #[arg(long, default_value_t = 512)]
    seq_len: usize,
    /// Peak learning rate; it falls linearly.
    #[arg(long, default_value_t = 3e-4)]
    lr: f64,
    /// Seed of the split, the order, and of random weights.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Continue from the newest checkpoint in --output.
    #[arg(long)]
    resume: bool,
    /// Start again although --output contains a run.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    #[command(flatten)]
    computation: Computation,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// A divergence by name.
#[derive(Clone, Copy)]
struct Loss(Divergence);

impl FromStr for Loss {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let divergence = match name.split_once(':') {
            None if name == "kl" => Divergence::Forward,
            None if name == "reverse_kl" => Divergence::Reverse,
            None if name == "jsd" => Divergence::JensenShannon(0.5),
            Some(("jsd", beta)) => {
                let beta = beta.parse().map_err(|_| format!("{beta} is no number"))?;
                Divergence::JensenShannon(beta)
            }
            _ => return Err("use kl, reverse_kl, or jsd:BETA".into()),
        };
        Ok(Self(divergence))
    }
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let device = args.computation.device()?.autodiff();
    let temperature = match args.offline_logits {
        Some(_) => 1.0,
        None => 2.0,
    };
    let temperature = args.temperature.unwrap_or(temperature);
    let config = DistillConfig {
        divergence: args.loss.0,
        temperature,
        alpha: args.alpha,
        cosine: args.cosine,
        layers: args.layers,
    };
    config.validate()?;
    ensure!(
        args.endpoint.is_none() || temperature == 1.0,
        "a server's log-probabilities have a temperature of 1: leave out --temperature"
    );
    ensure!(
        (args.cosine == 0.0 && args.layers == 0.0) || args.offline_logits.is_none(),
        "--cosine and --layers compare hidden states, which --offline-logits does not have: leave them out"
    );

    let server = server(&args)?;

    // The data before the models, so that errors in a file are reported at once.
    let folder = resolve(&args.teacher, &HubOptions::from_env())?;
    let tokenizer = Tokenizer::from_pretrained(&folder)?;
    let format = match args.format {
        Some(format) => format,
        None => Format::of_file(&args.data)?,
    };
    let dataset = SftDataset::load(&args.data, format, &tokenizer, args.seq_len)?;
    eprintln!("{}: {}", args.data.display(), dataset.report);
    let rows = dataset.examples.clone();
    let (train, held_out) = dataset.split(args.eval_fraction, args.seed)?;
    ensure!(
        !held_out.is_empty(),
        "no row is held out: raise --eval-fraction, or give more rows"
    );
    let print = train.fingerprint();
    let pad = tokenizer
        .pad_token_id()
        .or(tokenizer.eos_token_id())
        .unwrap_or(0);
    let padded = Collation::Padded { multiple: 1 };
    let batches = |data: SftDataset, seed| data.into_batches(args.batch_size, padded, seed, pad);
    let held_out_batches = batches(held_out.clone(), None)?;

    let mut teacher = match server {
        Some(_) => None,
        None => Some(AutoCausalLm::from_pretrained_with(
            &folder,
            &device,
            Weights::Stored,
        )?),
    };
    let student = student(&args, teacher.as_ref(), &tokenizer, &device)?;
    for model in teacher.iter().chain([&student]) {
        tokenizer.check_vocab(model.dims().vocab_size)?;
        model.dims().check_length(args.seq_len)?;
    }
    let parameters = |model: &AutoCausalLm| -> usize {
        let shapes = ft::core::module_path::shapes(model);
        shapes.iter().map(|(_, shape)| shape.num_elements()).sum()
    };
    for (name, model) in teacher
        .iter()
        .map(|model| ("teacher", model))
        .chain([("student", &student)])
    {
        eprintln!(
            "{name}: {} layers, {} parameters",
            model.dims().num_layers,
            parameters(model)
        );
    }
    // A student of the teacher's layers has them as they were.
    if let (Some(teacher), Some(format)) = (&mut teacher, args.teacher_format) {
        ft::quant::pack_model(teacher, format)?;
        eprintln!("teacher: linear layers in {format}");
    }
    let loss_of = |model: &AutoCausalLm| -> Result<f64> {
        Ok(evaluate(model, &held_out_batches, next_token_loss)?.loss)
    };
    let of_teacher = teacher.as_ref().map(loss_of).transpose()?;

    let source = match (&args.offline_logits, &teacher) {
        (None, Some(teacher)) => TeacherSource::model(teacher),
        (None, None) => bail!("--endpoint needs --offline-logits"),
        (Some(folder), teacher) => {
            let (k, vocab_size) = (args.top_k, student.dims().vocab_size);
            let mut listen = |done, of| eprintln!("teacher: {done} of {of} rows");
            let top = match (teacher, &server) {
                (Some(teacher), _) => write_top_logits(
                    teacher,
                    &rows,
                    k,
                    temperature,
                    args.batch_size,
                    folder,
                    &mut listen,
                )?,
                (None, Some(server)) => {
                    server.write_top_logits(&rows, vocab_size, k, folder, &mut listen)?
                }
                (None, None) => bail!("there is no teacher"),
            };
            eprintln!(
                "{} positions with {} tokens each, which leave out {:.2}% of the probability",
                top.positions(),
                top.k(),
                100.0 * top.mean_rest()
            );
            if top.mean_rest() > 0.1 {
                eprintln!(
                    "warning: the tokens leave out more than a tenth of the probability, so the divergence is much below that of \
                     the whole distribution: raise --top-k or lower --temperature"
                );
            }
            TeacherSource::Top(top.into())
        }
    };
    let settings = |output: PathBuf| TrainConfig {
        learning_rate: args.lr,
        epochs: args.epochs,
        max_steps: args.max_steps,
        seed: args.seed,
        // The twin begins when the student has ended.
        resume: args.resume && (output == args.output || output.join("train_log.jsonl").is_file()),
        output_dir: Some(output),
        save_every: Some(100),
        save_total_limit: Some(2),
        overwrite: args.overwrite,
        ..TrainConfig::default()
    };
    let identity = format!(
        "{} {} {:?} {print} {} {:?} {} {} {} {} {:?} {} {}",
        match (&args.endpoint, &args.endpoint_model) {
            (Some(endpoint), Some(model)) => format!("{} {endpoint} {model}", args.teacher),
            _ => match args.teacher_format {
                Some(format) => format!("{} in {format}", args.teacher),
                None => args.teacher.clone(),
            },
        },
        args.student,
        args.sizes,
        args.batch_size,
        args.loss.0,
        temperature,
        args.alpha,
        args.cosine,
        args.layers,
        args.offline_logits.is_some().then_some(args.top_k),
        args.own_answers,
        args.max_new_tokens
    );
    let seed = Some(args.seed);
    let method = Distill::new(config, source, &student, batches(train.clone(), seed)?)?
        .with_evaluation(batches(held_out.clone(), None)?);
    let method = match args.own_answers {
        0.0 => method,
        share => {
            let generation = GenerationConfig::from_pretrained(&folder, Some(&tokenizer))?;
            let generation = GenerationConfig {
                max_new_tokens: args.max_new_tokens,
                temperature: 1.0,
                repetition_penalty: 1.0,
                ..generation
            };
            method.with_own_answers(OwnAnswers {
                tokenizer: tokenizer.clone(),
                share,
                generation,
                max_rows: args.batch_size,
            })?
        }
    };
    // The twin begins with the same weights.
    let start = (!args.no_twin).then(|| student.clone());
    let (trained, report) = Trainer::with_method(settings(args.output.clone()), method)
        .with_identity("distillation", identity.as_str())
        .fit(student)?;
    trained.save_pretrained(&args.output, &SaveOptions::default())?;
    tokenizer.save_pretrained(&args.output)?;
    copy_generation_config(&folder, &args.output)?;
    eprintln!("student saved to {}", args.output.display());

    let alone = match start {
        None => None,
        Some(student) => {
            eprintln!("the same student without the teacher:");
            let output = args.output.join("without_teacher");
            let (twin, _) = Trainer::new(settings(output), batches(train, seed)?, next_token_loss)
                .with_identity("distillation", identity.as_str())
                .fit(student)?;
            Some(twin)
        }
    };
    // Both are compared with the teacher as a model, also if the training did without it, where it is not on a server.
    let measure = |model: &AutoCausalLm| -> Result<[f64; 3]> {
        let Some(teacher) = &teacher else {
            return Ok([loss_of(model)?, f64::NAN, f64::NAN]);
        };
        let found = compare(config, teacher, model, &held_out_batches)?;
        let metric = |name: &str| found.metrics.get(name).copied().unwrap_or(f64::NAN);
        Ok([found.loss, metric("divergence"), metric("agreement")])
    };
    let own = measure(&trained)?;
    let twin = alone.as_ref().map(measure).transpose()?;
    let show = |name: &str, [loss, divergence, agreement]: [f64; 3]| {
        eprint!("{name}: held-out loss {loss:.4}");
        match divergence.is_nan() {
            true => eprintln!(),
            false => eprintln!(
                ", {divergence:.4} nats from the teacher, the same first choice {:.1}%",
                100.0 * agreement
            ),
        }
    };
    if let Some(loss) = of_teacher {
        eprintln!("teacher: held-out loss {loss:.4}");
    }
    show("student with the teacher", own);
    if let Some(twin) = twin {
        show("student without the teacher", twin);
    }
    if args.json {
        let before = report.eval_before().map(|evaluation| evaluation.loss);
        let line = json!({
            "eval_loss_teacher": of_teacher,
            "eval_loss_before": before,
            "eval_loss_after": own[0],
            "eval_loss_without_teacher": twin.map(|twin| twin[0]),
            "divergence": own[1],
            "divergence_without_teacher": twin.map(|twin| twin[1]),
            "agreement": own[2],
            "agreement_without_teacher": twin.map(|twin| twin[2]),
            "steps": report.steps,
            "tokens_per_s": report.tokens_per_s,
            "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
    ensure!(report.steps > 0, "no step was taken");
    Ok(())
}

/// `NAME=NUMBER`.
fn size(text: &str) -> Result<(String, u64)> {
    let (name, number) = text
        .split_once('=')
        .with_context(|| format!("`{text}` is no NAME=NUMBER"))?;
    let number = number
        .parse()
        .with_context(|| format!("`{number}` is no whole number"))?;
    Ok((name.to_string(), number))
}

/// The teacher behind a server, if there is one.
fn server(args: &Args) -> Result<Option<ServerTeacher>> {
    let (Some(endpoint), Some(model)) = (&args.endpoint, &args.endpoint_model) else {
        return Ok(None);
    };
    ensure!(
        !args.student.starts_with("layers:"),
        "--student layers:... is cut from the teacher's weights, which are on the server: cut the student of a smaller model first, \
         and give its folder"
    );
    let options = ServerOptions {
        api_key_env: args.api_key_env.clone(),
        ..ServerOptions::default()
    };
    Ok(Some(ServerTeacher::new(endpoint, model, options)?))
}

/// The student before the training.
fn student(
    args: &Args,
    teacher: Option<&AutoCausalLm>,
    tokenizer: &Tokenizer,
    device: &ft::burn::tensor::Device,
) -> Result<AutoCausalLm> {
    if let Some(layers) = args.student.strip_prefix("layers:") {
        let layers = layers.split(',').map(|layer| layer.trim().parse());
        let layers: Vec<usize> = layers
            .collect::<Result<_, _>>()
            .with_context(|| format!("--student {}: layers are numbers from 0", args.student))?;
        let sizes = args.sizes.iter().cloned();
        let sizes = sizes.map(|(name, size)| (name, size.into())).collect();
        let teacher = teacher.context("--student layers:... needs the teacher's weights")?;
        return Ok(narrow_student_of(teacher, &layers, &sizes)?);
    }
    ensure!(
        args.sizes.is_empty(),
        "--sizes needs --student layers:..., from which a narrower student is cut"
    );
    let path = Path::new(&args.student);
    if path.is_file() {
        let text = std::fs::read_to_string(path)?;
        let config = ModelConfig::from_json(serde_json::from_str(&text)?)?;
        device.seed(args.seed);
        let model = AutoCausalLm::from_config(&config, device)?;
        // What is computed before the training seeds the device too.
        ft::core::module_path::draw(&model);
        return Ok(model);
    }
    if path.is_dir() {
        if path.join("tokenizer.json").is_file() {
            let own = Tokenizer::from_pretrained(path)?;
            ensure!(
                own.has_tokens_of(tokenizer),
                "the tokenizers of --student and --teacher give other numbers to some tokens: distillation of logits needs the \
                 same tokenizer"
            );
        }
        return Ok(AutoCausalLm::from_pretrained(path, device)?);
    }
    bail!(
        "--student {} is neither a folder nor a config.json nor layers:...",
        args.student
    )
}
