//! Preference training on single answers, each desirable or not: KTO, APO-zero and BCO.
//!
//! ```sh
//! cargo run --release --example kto -- --model DIR --data feedback.jsonl --output my-adapter
//! ```
//!
//! Rows have a prompt, a completion and a label; `ft::data::UnpairedSample` lists the forms. If one kind of answer is
//! rarer, it is weighted so that both kinds count equally.

use std::path::Path;

use anyhow::Result;
use clap::Parser;
use ft::align::loss::KtoWeights;
use ft::align::{Kto, KtoConfig, UnpairedLoss};
use ft::data::UnpairedDataset;
use ft::train::EvalMetrics;
use serde_json::{Value, json};

#[path = "shared/alignment.rs"]
#[allow(dead_code)] // The result of pairs.
mod alignment;
use alignment::{Common, reference, usual_reference, with_contents};

/// Preference training on single answers.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// kto, apo_zero_unpaired or bco.
    #[arg(long, default_value = "kto")]
    loss: UnpairedLoss,
    /// How strongly the policy is kept near the reference.
    #[arg(long, default_value_t = 0.1)]
    beta: f64,
    /// How much desirable answers count. Without it and --undesirable-weight, the rarer kind counts more.
    #[arg(long)]
    desirable_weight: Option<f64>,
    /// How much undesirable answers count; 1 if only the other is given.
    #[arg(long)]
    undesirable_weight: Option<f64>,
    /// adapter-off, start, or a model folder.
    #[arg(long)]
    reference: Option<String>,
    /// Answers per batch; 2 or more for kto.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Rows with more tokens are left out.
    #[arg(long, default_value_t = 1024)]
    seq_len: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let common = &args.common;
    let start = common.start("kto")?;
    let dataset = UnpairedDataset::load(&common.data, &start.tokenizer, args.seq_len)?;
    eprintln!("{}: {}", common.data.display(), dataset.report);
    let (desirable, undesirable) = dataset.counts();
    eprintln!("{desirable} answers are desirable, {undesirable} are not");
    let policy = common.policy(&start)?;
    let identity = [
        ("rows", dataset.fingerprint().into()),
        ("loss", args.loss.name().into()),
        ("beta", args.beta.into()),
        (
            "weights",
            json!([args.desirable_weight, args.undesirable_weight]),
        ),
        ("batch_size", args.batch_size.into()),
        ("reference", with_contents(args.reference.as_deref())?),
    ];
    let weights = match (args.desirable_weight, args.undesirable_weight) {
        (None, None) => None,
        (desirable, undesirable) => Some(KtoWeights {
            desirable: desirable.unwrap_or(1.0),
            undesirable: undesirable.unwrap_or(1.0),
        }),
    };
    let config = KtoConfig {
        loss: args.loss,
        beta: args.beta,
        weights,
    };
    let name = args.reference.as_deref().unwrap_or(usual_reference(common));
    let reference = reference(name, &policy, &start)?;
    let load = |file: &Path| UnpairedDataset::load(file, &start.tokenizer, args.seq_len);
    let (train, held_out) = common.split(dataset, load)?;
    let (size, seed) = (args.batch_size, Some(common.seed));
    let method =
        Kto::new(config, reference, &policy, train, size, seed)?.with_evaluation(held_out)?;
    let (_, report) = common.fit(&start, policy, method, &identity, None)?;
    let [before, after] = [report.eval_before(), report.eval_after()].map(evaluation);
    eprintln!("held out: {before} -> {after}");
    if common.json {
        let line = json!({
            "losses": report.train_losses,
            "eval_before": before,
            "eval_after": after,
            "steps": report.steps,
            "tokens_per_s": report.tokens_per_s,
            "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
    Ok(())
}

/// What an evaluation found. The margin is the mean reward of desirable answers minus that of the others.
fn evaluation(evaluation: Option<&EvalMetrics>) -> Value {
    let Some(evaluation) = evaluation else {
        return Value::Null;
    };
    let metric = |name: &str| evaluation.metrics.get(name).copied();
    let (chosen, rejected) = (metric("rewards/chosen"), metric("rewards/rejected"));
    json!({
        "loss": evaluation.loss,
        "margin": chosen.zip(rejected).map(|(chosen, rejected)| chosen - rejected),
        "chosen": chosen,
        "rejected": rejected,
        "kl": metric("kl"),
    })
}
