//! Time, memory and losses of distillation steps on fixed batches; prints one JSON line.
//!
//! The batches are those of `sft_step`. Teacher and student are model folders, the student with the vocabulary of the teacher.
//! The loss is `alpha · T² · D + (1 − alpha) · cross-entropy` over all positions but the last of each row; `--beta 0` is the forward
//! divergence, 1 the reverse one, and between them the generalised Jensen-Shannon divergence.
//!
//! ```sh
//! cargo bench --bench distill_step -- --teacher DIR --student DIR --data alpaca.json
//! ```

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Parser;
use ft::core::{AutoCausalLm, Tokenizer};
use ft::data::{Batch, Batches};
use ft::distill::{Distill, DistillConfig, Divergence, TeacherSource};
use ft::kernels::{Precision, set_precision};
use serde_json::json;

#[path = "shared/batches.rs"]
mod batches;

#[path = "shared/held.rs"]
mod held;
use held::Held;

#[path = "shared/method_step.rs"]
mod method_step;
use method_step::{Stepper, median, round};

#[derive(Parser)]
struct Args {
    #[arg(long)]
    teacher: PathBuf,
    #[arg(long)]
    student: PathBuf,
    #[arg(long)]
    data: PathBuf,
    #[arg(long, default_value_t = 4)]
    batch: usize,
    #[arg(long, default_value_t = 256)]
    seq: usize,
    #[arg(long, default_value_t = 8)]
    steps: usize,
    #[arg(long, default_value_t = 2.0)]
    temperature: f64,
    #[arg(long, default_value_t = 1.0)]
    alpha: f64,
    #[arg(long, default_value_t = 0.0)]
    beta: f64,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// The type of the teacher's weights: f32, stored (that of the file), or a packed format, such as int8 or nf4.
    #[arg(long, default_value_t = Held::Stored)]
    weights: Held,
    /// Of matrix products: f32 or bf16.
    #[arg(long, default_value_t)]
    matmul_precision: Precision,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Blocks of ids, whose labels are the ids.
struct Blocks {
    blocks: Vec<Vec<i64>>,
    shape: [usize; 2],
}

impl Batches for Blocks {
    type Batch = Batch;

    fn len(&self, _: usize) -> usize {
        self.blocks.len()
    }

    fn batch(&self, _: usize, index: usize) -> Batch {
        let [batch, seq] = self.shape;
        Batch {
            input_ids: self.blocks[index].clone(),
            labels: self.blocks[index].clone(),
            batch,
            seq,
            lengths: vec![seq; batch],
            ..Batch::default()
        }
    }
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
    let tokenizer = Tokenizer::from_pretrained(&args.teacher)?;
    let blocks = batches::blocks(&args.data, &tokenizer, args.batch * args.seq, args.steps)?;
    let teacher = args.weights.load(&args.teacher, &device)?;
    let mut student = AutoCausalLm::from_pretrained(&args.student, &device)?;
    let config = DistillConfig {
        divergence: match args.beta {
            0.0 => Divergence::Forward,
            1.0 => Divergence::Reverse,
            beta => Divergence::JensenShannon(beta),
        },
        temperature: args.temperature,
        alpha: args.alpha,
        cosine: 0.0,
        layers: 0.0,
    };
    let shape = [args.batch, args.seq];
    let source = TeacherSource::model(&teacher);
    let mut method = Distill::new(config, source, &student, Blocks { blocks, shape })?;
    let mut stepper = Stepper::new(&device, args.lr);
    let (mut times, mut teacher_times) = (Vec::new(), Vec::new());
    let (mut losses, mut divergences) = (Vec::new(), Vec::new());
    for _ in 0..args.steps {
        let step;
        (student, step) = stepper.step(&mut method, student)?;
        teacher_times.push(step.batch_s);
        times.push(step.all_s);
        losses.push(round(step.loss, 5));
        divergences.push(round(step.metric("divergence")?, 5));
    }
    let step = median(&times);
    let line = json!({
        "peer": concat!("ft ", env!("CARGO_PKG_VERSION")),
        "matmul_precision": args.matmul_precision.to_string(),
        "batch": args.batch,
        "seq": args.seq,
        "temperature": args.temperature,
        "alpha": args.alpha,
        "beta": args.beta,
        "lr": args.lr,
        "tokens_per_s": round((args.batch * args.seq) as f64 / step, 1),
        "teacher_states_s": round(median(&teacher_times), 3),
        "step_s": round(step, 3),
        "weights": args.weights.to_string(),
        "peak_rss_mb": ft::peak_rss_mb(),
        "losses": losses,
        "divergences": divergences,
    });
    println!("{line}");
    Ok(())
}
