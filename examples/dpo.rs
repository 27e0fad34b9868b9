//! Preference training on pairs of answers: DPO and its relatives.
//!
//! ```sh
//! cargo run --release --example dpo -- --model DIR --data pairs.jsonl --output my-adapter
//! ```
//!
//! Rows have a prompt, a chosen and a rejected answer; `ft::data::PreferenceSample` lists the forms. The reference is the
//! model with the new adapter switched off, which needs no memory. `--reference start` is the policy as it is at the start,
//! `--reference DIR` another model, and `--reference cached` computes the log-probabilities of the model without the adapter
//! once and keeps them in `--output`. Losses without a reference (`--loss orpo`, `cpo`, `simpo`, ...) are those of the
//! example `orpo`.

use std::path::Path;

use anyhow::{Result, ensure};
use clap::Parser;
use ft::align::loss::{FDivergence, PairLosses, PairSettings, ReferenceFreeLoss};
use ft::align::{Dpo, DpoConfig, Reference, ReferenceFree, add_reference_logps};
use ft::data::PreferenceDataset;

#[path = "shared/alignment.rs"]
mod alignment;
use alignment::{Common, reference, report_pairs, usual_reference, with_contents};

/// Preference training on pairs of answers.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// NAME, or several as NAME:WEIGHT,NAME:WEIGHT: sigmoid, hinge, ipo, exo_pair, nca_pair, robust, bco_pair, sppo_hard, aot,
    /// aot_unpaired, apo_zero, apo_down, discopop, sft, sigmoid_norm; without a reference orpo, cpo, simpo, alphapo.
    #[arg(long, default_value = "sigmoid")]
    loss: String,
    /// How strongly the policy is kept near the reference. Without it 0.1, or what the loss's paper uses.
    #[arg(long)]
    beta: Option<f64>,
    /// The share of pairs whose labels are taken to be swapped.
    #[arg(long, default_value_t = 0.0)]
    label_smoothing: f64,
    /// How much tokens beyond the shorter answer's length count (LD-DPO).
    #[arg(long, default_value_t = 1.0)]
    ld_alpha: f64,
    /// The divergence from the reference: reverse_kl, forward_kl, js_divergence or alpha_divergence:ALPHA.
    #[arg(long, default_value_t = FDivergence::ReverseKl)]
    f_divergence: FDivergence,
    /// Weight pairs by how likely the policy is to give them (WPO).
    #[arg(long)]
    use_weighting: bool,
    /// adapter-off, start, cached, none, or a model folder.
    #[arg(long)]
    reference: Option<String>,
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
    let start = common.start("dpo")?;
    let mut dataset = PreferenceDataset::load(&common.data, &start.tokenizer, args.seq_len)?;
    eprintln!("{}: {}", common.data.display(), dataset.report);
    let policy = common.policy(&start)?;
    let identity = [
        ("rows", dataset.fingerprint().into()),
        ("loss", args.loss.as_str().into()),
        ("beta", args.beta.into()),
        ("batch_size", args.batch_size.into()),
        ("label_smoothing", args.label_smoothing.into()),
        ("ld_alpha", args.ld_alpha.into()),
        ("f_divergence", args.f_divergence.to_string().into()),
        ("use_weighting", args.use_weighting.into()),
        ("reference", with_contents(args.reference.as_deref())?),
    ];
    let seed = Some(common.seed);

    if let Ok(loss) = args.loss.parse::<ReferenceFreeLoss>() {
        ensure!(
            args.reference.as_deref().is_none_or(|name| name == "none"),
            "the loss {loss} has no reference: leave out --reference"
        );
        ensure!(
            args.ld_alpha == 1.0
                && !args.use_weighting
                && args.f_divergence == FDivergence::ReverseKl,
            "--ld-alpha, --f-divergence and --use-weighting have no effect on the loss {loss}: leave them out"
        );
        let mut settings = loss.settings();
        settings.beta = args.beta.unwrap_or(settings.beta);
        settings.label_smoothing = args.label_smoothing;
        let load = |file: &Path| PreferenceDataset::load(file, &start.tokenizer, args.seq_len);
        let (train, held_out) = common.split(dataset, load)?;
        let method = ReferenceFree::new(loss, settings, &policy, train, args.batch_size, seed)?
            .with_evaluation(held_out)?;
        let (_, report) = common.fit(&start, policy, method, &identity, None)?;
        report_pairs(common, &report);
        return Ok(());
    }

    let settings = PairSettings {
        beta: args.beta.unwrap_or(0.1),
        label_smoothing: args.label_smoothing,
        f_divergence: args.f_divergence,
        ..PairSettings::default()
    };
    let config = DpoConfig {
        losses: args.loss.parse::<PairLosses>()?,
        settings,
        ld_alpha: args.ld_alpha,
        use_weighting: args.use_weighting,
    };
    config.validate()?;
    let name = args.reference.as_deref().unwrap_or(usual_reference(common));
    ensure!(
        name != "none",
        "the loss {} needs a reference; orpo, cpo, simpo and alphapo need none",
        config.losses
    );
    let reference = match name {
        "cached" => {
            ensure!(
                common.eval_data.is_none(),
                "--reference cached has log-probabilities of the rows of --data only: hold rows out with --eval-fraction, or use another reference"
            );
            let model = reference(usual_reference(common), &policy, &start)?;
            let file = common.output.join("reference_logps.json");
            let mut listen = |done: usize, of: usize| {
                if done == of || (done / args.batch_size).is_multiple_of(25) {
                    eprintln!("reference: {done} of {of} pairs");
                }
            };
            let (alpha, size) = (args.ld_alpha, args.batch_size);
            add_reference_logps(
                &mut dataset,
                &model,
                &policy,
                alpha,
                size,
                Some(&file),
                &mut listen,
            )?;
            Reference::Precomputed
        }
        name => reference(name, &policy, &start)?,
    };
    let load = |file: &Path| PreferenceDataset::load(file, &start.tokenizer, args.seq_len);
    let (train, held_out) = common.split(dataset, load)?;
    let method = Dpo::new(config, reference, &policy, train, args.batch_size, seed)?
        .with_evaluation(held_out)?;
    let (_, report) = common.fit(&start, policy, method, &identity, None)?;
    report_pairs(common, &report);
    Ok(())
}
