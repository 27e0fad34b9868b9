//! Time, memory and losses of training an encoder that classifies texts; prints one JSON line.
//!
//! Step `s` has the rows `s · batch` to `(s + 1) · batch` of an Alpaca file in their order. The text is `instruction`, a line
//! break and `input` if there is one; the label is 0 if `output` has fewer than 120 characters, 1 if fewer than 500, else 2.
//! The model's folder has a head of three labels.
//!
//! ```sh
//! cargo bench --bench encoder_step -- --model DIR --data alpaca.json
//! ```

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Parser;
use ft::core::{EncoderSequenceClassifier, ProblemType, Tokenizer};
use ft::data::{Label, LabelledText, LabelledTexts, TextInput};
use ft::kernels::{Precision, set_precision};
use ft::tasks::{classification_batches, classification_step, text_layout};
use ft::train::OnBatches;
use serde_json::json;

#[path = "shared/alpaca.rs"]
mod alpaca;
#[path = "shared/method_step.rs"]
mod method_step;
use method_step::{Stepper, Steps, round};

#[derive(Parser)]
struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    data: PathBuf,
    #[arg(long, default_value_t = 32)]
    batch: usize,
    #[arg(long, default_value_t = 128)]
    seq: usize,
    #[arg(long, default_value_t = 10)]
    steps: usize,
    #[arg(long, default_value_t = 5e-5)]
    lr: f64,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Of matrix products: f32 or bf16.
    #[arg(long, default_value_t)]
    matmul_precision: Precision,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        args.steps > 2,
        "--steps must be at least 3: the first two are not timed"
    );
    ft::compute_threads(Some(args.threads));
    let possible = set_precision(args.matmul_precision);
    anyhow::ensure!(possible, "this processor has no instructions for bf16");
    let device = ft::device("cpu")?.autodiff();
    device.seed(0);
    let model = EncoderSequenceClassifier::from_pretrained(&args.model, &device)?;
    let tokenizer = Tokenizer::from_pretrained(&args.model)?;
    let classes = model.config().labels.clone();
    let rows = alpaca::rows(&args.data)?.into_iter();
    let rows = rows.take(args.batch * args.steps);
    let rows = rows.map(|[instruction, input, output]| {
        let class = match output.chars().count() {
            0..120 => 0,
            120..500 => 1,
            _ => 2,
        };
        LabelledText {
            label: Label::Class(classes[class].clone()),
            text: match input.is_empty() {
                true => instruction,
                false => format!("{instruction}\n{input}"),
            },
            pair: None,
        }
    });
    let rows: Vec<LabelledText> = rows.collect();
    ensure!(
        rows.len() == args.batch * args.steps,
        "{} has only {} rows",
        args.data.display(),
        rows.len()
    );
    let positions = model.dims().max_position_embeddings;
    let input = TextInput::new(&tokenizer, positions, Some(args.seq));
    let examples = LabelledTexts::new(rows)?.tokenize(&input, &classes)?;
    let layout = text_layout(model.attends_by_tile(), &device, input.padding());
    let batches = classification_batches(examples, args.batch, None, layout)?;
    let problem = ProblemType::SingleLabelClassification;
    let mut method = OnBatches::new(batches, classification_step(problem));
    let mut stepper = Stepper::new(&device, args.lr);
    let loaded_rss_mb = ft::peak_rss_mb();
    let Steps { seconds, losses } = stepper.steps(&mut method, model, args.steps)?;
    let line = json!({
        "peer": concat!("ft ", env!("CARGO_PKG_VERSION")),
        "matmul_precision": args.matmul_precision.to_string(),
        "batch": args.batch,
        "seq": args.seq,
        "lr": args.lr,
        "examples_per_s": round((args.batch * (args.steps - 2)) as f64 / seconds, 2),
        "loaded_rss_mb": loaded_rss_mb,
        "peak_rss_mb": ft::peak_rss_mb(),
        "losses": losses,
    });
    println!("{line}");
    Ok(())
}
