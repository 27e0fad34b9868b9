//! Preference training without a reference: supervised training and preferences in one stage, from a base model.
//!
//! ```sh
//! cargo run --release --example orpo -- --model DIR --data pairs.jsonl --output my-adapter
//! ```
//!
//! ORPO adds to the likelihood of the chosen text the odds of the chosen answer against the rejected one. `--loss simpo`,
//! `cpo` and others are related; they start from an instruction-tuned model.

use std::path::Path;

use anyhow::Result;
use clap::Parser;
use ft::align::ReferenceFree;
use ft::align::loss::ReferenceFreeLoss;
use ft::data::PreferenceDataset;

#[path = "shared/alignment.rs"]
#[allow(dead_code)] // The parts that are about references.
mod alignment;
use alignment::{Common, report_pairs};

/// Preference training without a reference.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// orpo, cpo, cpo_hinge, cpo_ipo, simpo or alphapo.
    #[arg(long, default_value = "orpo")]
    loss: ReferenceFreeLoss,
    /// The weight of the preferences; λ in ORPO's paper. Without it what the loss's paper uses.
    #[arg(long)]
    beta: Option<f64>,
    /// The target margin of simpo and alphapo.
    #[arg(long)]
    gamma: Option<f64>,
    /// The weight of the likelihood of the chosen answers.
    #[arg(long)]
    nll_weight: Option<f64>,
    /// Pairs per batch.
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    /// Pairs whose prompt with an answer has more tokens are left out.
    #[arg(long, default_value_t = 1024)]
    seq_len: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let common = &args.common;
    let start = common.start("orpo")?;
    let dataset = PreferenceDataset::load(&common.data, &start.tokenizer, args.seq_len)?;
    eprintln!("{}: {}", common.data.display(), dataset.report);
    let identity = [
        ("rows", dataset.fingerprint().into()),
        ("loss", args.loss.name().into()),
        ("beta", args.beta.into()),
        ("batch_size", args.batch_size.into()),
        ("gamma", args.gamma.into()),
        ("nll_weight", args.nll_weight.into()),
    ];
    let mut settings = args.loss.settings();
    settings.beta = args.beta.unwrap_or(settings.beta);
    settings.gamma = args.gamma.unwrap_or(settings.gamma);
    settings.nll_weight = args.nll_weight.unwrap_or(settings.nll_weight);
    let load = |file: &Path| PreferenceDataset::load(file, &start.tokenizer, args.seq_len);
    let (train, held_out) = common.split(dataset, load)?;
    let policy = common.policy(&start)?;
    let method = ReferenceFree::new(
        args.loss,
        settings,
        &policy,
        train,
        args.batch_size,
        Some(common.seed),
    )?
    .with_evaluation(held_out)?;
    let (_, report) = common.fit(&start, policy, method, &identity, None)?;
    report_pairs(common, &report);
    Ok(())
}
