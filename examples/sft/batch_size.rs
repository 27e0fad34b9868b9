//! The size of batches, given or found from the memory that a step is estimated to take.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use ft::burn::tensor::Device;
use ft::core::{AutoCausalLm, ModelConfig, Tokenizer, Weights};
use ft::data::SftDataset;
use ft::train::{
    MANIFEST, Manifest, MemoryEstimate, Workload, batch_size_within, machine_memory,
    resident_memory,
};
use serde_json::json;

use crate::Args;
use crate::trains::{Start, Trains};

/// Rows per batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum BatchSize {
    Rows(usize),
    /// As many as fit.
    Auto,
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(rows) if rows > 0 => Ok(Self::Rows(rows)),
            _ if text == "auto" => Ok(Self::Auto),
            _ => Err("it is a number of rows, 1 or more, or auto".into()),
        }
    }
}

/// Tokens of the longest row.
pub(crate) fn longest(rows: &SftDataset) -> usize {
    let lengths = rows.examples.iter().map(|example| example.len());
    lengths.max().unwrap_or(0)
}

/// The rows of a batch, found from the memory that a step is estimated to take. With `--estimate` the estimate is printed, and there is
/// no batch size. `longest` is the number of tokens of the longest row.
pub(crate) fn batch_size(
    args: &Args,
    folder: &Path,
    tokenizer: &Tokenizer,
    device: &Device,
    longest: usize,
) -> Result<Option<usize>> {
    /// What is left free for other programs, and for what an estimate may be wrong by.
    const SHARE: f64 = 0.9;
    /// Larger batches are no faster on a CPU.
    const MOST: usize = 64;
    ensure!(
        ft::kernels::is_cpu(device),
        "--estimate and --batch-size auto are for --device cpu: name a batch size"
    );
    // A run that is resumed has the batches that it began with.
    if let (true, false, Ok(manifest)) = (
        args.resume,
        args.estimate,
        Manifest::read(args.output.join(MANIFEST)),
    ) {
        let given = manifest.arguments.iter();
        let mut found = given.filter_map(|one| one.strip_prefix("--batch-size=")?.parse().ok());
        if let Some(rows) = found.next_back() {
            return Ok(Some(rows));
        }
    }
    let program = resident_memory().unwrap_or_default();
    // Frozen weights are mapped and not read. Weights that train are known from the configuration.
    let mut model = match &args.trains.method {
        Trains::Adapter(_) => AutoCausalLm::from_pretrained_with(folder, device, Weights::Stored)?,
        Trains::Weights(_) => {
            AutoCausalLm::from_config(&ModelConfig::from_pretrained(folder)?, device)?
        }
    };
    if let Some(format) = args.base_format.filter(|_| args.trains.loftq.is_none()) {
        ft::quant::pack_model(&mut model, format)?;
    }
    // The number of steps is a setting of AdaLora, and nothing to memory.
    const STEPS: usize = 10_000;
    let start = Start {
        base: &args.model,
        tokenizer,
        batches: None,
        base_format: args.base_format,
        device,
        seed: args.seed,
        steps: STEPS,
    };
    let model = args.trains.prepare(model, &start)?.model;
    let work = |batch_size| Workload {
        batch_size,
        seq_len: longest,
        gradient_accumulation_steps: args.grad_accum,
        optim: args.optim,
        gradient_checkpointing: args.gradient_checkpointing,
        saves: true,
    };
    let machine = machine_memory();
    let rows = match args.batch_size {
        BatchSize::Rows(rows) => rows,
        BatchSize::Auto => {
            let machine = machine.context(
                "--batch-size auto: the system does not report its memory; name a number",
            )?;
            let limit = (machine as f64 * SHARE) as u64;
            batch_size_within(&model, &work(1), program, limit, MOST).with_context(|| {
                format!(
                    "a batch of one row of {longest} tokens does not fit in {} MB: use --gradient-checkpointing, a smaller \
                     --seq-len, or --optim adamw-8bit",
                    limit >> 20
                )
            })?
        }
    };
    let estimate = MemoryEstimate::of(&model, &work(rows));
    let peak = estimate.of_process(program) >> 20;
    if !args.estimate {
        eprintln!("batches of {rows} rows: {peak} MB are estimated");
        return Ok(Some(rows));
    }
    eprintln!("{rows} rows of up to {longest} tokens in a batch");
    eprintln!("{}", estimate.table(program, machine));
    if args.json {
        let line = json!({
            "batch_size": rows, "longest_row": longest, "peak_mb": peak, "moment": estimate.moment.to_string(),
            "weights": estimate.weights, "gradients": estimate.gradients, "optimizer": estimate.optimizer,
            "activations": estimate.activations, "machine_mb": machine.map(|bytes| bytes >> 20),
        });
        println!("{line}");
    }
    Ok(None)
}
