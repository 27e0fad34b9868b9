//! Merges an adapter into its model, or several adapters combined.
//!
//! ```sh
//! cargo run --release --example merge -- --model DIR_OR_ID --adapter DIR --output DIR
//! cargo run --release --example merge -- --model DIR_OR_ID --adapter DIR:0.7 --adapter DIR:0.3 \
//!     --combine ties --density 0.5 --output DIR
//! ```

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use ft::burn::tensor::FloatDType;
use ft::core::{
    AutoCausalLm, HubOptions, SaveOptions, StageManifest, Tokenizer, copy_generation_config,
    resolve,
};
use ft::peft::{
    Combination, CombinationType, MajoritySign, combine, load_adapter, merge_and_unload,
    merge_report, set_active,
};
use serde_json::{Value, json};

/// Merge an adapter into its model, or several adapters combined.
#[derive(Parser)]
struct Args {
    /// Model folder, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// Adapter folder in PEFT's format, or hub id; with :WEIGHT if it does not count 1. May be given several times.
    #[arg(long, required = true)]
    adapter: Vec<Weighted>,
    /// How several adapters are combined: cat (the exact sum), linear, svd, ties, dare_linear, dare_ties, magnitude_prune,
    /// and the last four with _svd. Default: cat.
    #[arg(long)]
    combine: Option<CombinationType>,
    /// The share of numbers that ties, dare and magnitude_prune keep.
    #[arg(long)]
    density: Option<f64>,
    /// Which sign is that of the majority for ties: the one of the sum (the default), or the most frequent one.
    #[arg(long, value_enum)]
    majority_sign_method: Option<Sign>,
    /// The rank of combinations that are decomposed; the largest of the adapters' by default.
    #[arg(long)]
    svd_rank: Option<usize>,
    /// Cut decomposed factors at this quantile.
    #[arg(long)]
    svd_clamp: Option<f64>,
    /// What dare draws from; 0 by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Folder for the merged model.
    #[arg(long)]
    output: PathBuf,
    /// Type of the merged weights. 16 bits halve the file and round the weights; the error is reported.
    #[arg(long, value_enum, default_value_t = Dtype::Float32)]
    dtype: Dtype,
    /// The maximum size of a file in bytes.
    #[arg(long, default_value_t = 5_000_000_000)]
    max_shard_size: usize,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    Float32,
    Float16,
    Bfloat16,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sign {
    Total,
    Frequency,
}

/// `FOLDER` or `FOLDER:WEIGHT`.
#[derive(Clone)]
struct Weighted {
    adapter: String,
    weight: f64,
}

impl FromStr for Weighted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let weighted = text.rsplit_once(':').and_then(|(adapter, weight)| {
            let weight = weight.parse().ok()?;
            Some((adapter, weight))
        });
        let (adapter, weight) = weighted.unwrap_or((text, 1.0));
        match adapter.is_empty() {
            true => Err("the adapter's folder is missing".into()),
            false => Ok(Self {
                adapter: adapter.to_string(),
                weight,
            }),
        }
    }
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    ft::compute_threads(None);
    let args = Args::parse();
    let device = ft::device("cpu")?;
    let hub = HubOptions::from_env();
    let folder = resolve(&args.model, &hub)?;
    let tokenizer = tokenizer(&args, &folder, &hub)?;
    let stage = stage(&args, &folder, &tokenizer, &hub)?;
    let model = AutoCausalLm::from_pretrained(&folder, &device)?;
    let model = with_adapters(model, &args, &hub)?;
    let dtype = match args.dtype {
        Dtype::Float32 => FloatDType::F32,
        Dtype::Float16 => FloatDType::F16,
        Dtype::Bfloat16 => FloatDType::BF16,
    };
    let report = merge_report(&model, dtype)?;
    let model = merge_and_unload(model)?;
    let options = SaveOptions {
        dtype,
        max_shard_size: args.max_shard_size,
    };
    model.save_pretrained(&args.output, &options)?;
    tokenizer.save_pretrained(&args.output)?;
    copy_generation_config(&folder, &args.output)?;
    stage.save_model(&args.output)?;
    eprintln!(
        "merged {} model saved to {}",
        model.config().model_type(),
        args.output.display()
    );
    if report.error > 0.0 {
        eprintln!(
            "rounding to {dtype:?} loses {:.2}% of the change that the adapter makes",
            100.0 * report.error
        );
    }
    if args.json {
        println!(
            "{}",
            json!({"output": args.output, "rounding_error": report.error, "layers": report.layers})
        );
    }
    Ok(())
}

/// The tokenizer that an adapter comes with, which may have a chat template that the model lacks, or that of the model.
fn tokenizer(args: &Args, folder: &Path, hub: &HubOptions) -> Result<Tokenizer> {
    let mut found: Option<(&str, Tokenizer)> = None;
    for one in &args.adapter {
        let adapter = resolve(&one.adapter, hub)?;
        if !adapter.join("tokenizer.json").is_file() {
            continue;
        }
        let tokenizer = Tokenizer::from_pretrained(&adapter)?;
        let source = |of: &Tokenizer| Some(of.chat_template()?.source().to_string());
        if let Some((first, other)) = &found
            && source(other) != source(&tokenizer)
        {
            bail!(
                "the adapters {first} and {} were trained with different chat templates: merge adapters of one template, or \
                 remove the tokenizer of the one whose template is not wanted",
                one.adapter
            );
        }
        found.get_or_insert((one.adapter.as_str(), tokenizer));
    }
    match found {
        Some((_, tokenizer)) => Ok(tokenizer),
        None => Ok(Tokenizer::from_pretrained(folder)?),
    }
}

/// What the merged model comes from: the stage that trained the adapter, if it is one and has its whole weight, else a stage of its
/// own.
fn stage(
    args: &Args,
    folder: &Path,
    tokenizer: &Tokenizer,
    hub: &HubOptions,
) -> Result<StageManifest> {
    let mut stages = Vec::new();
    for one in &args.adapter {
        stages.push(StageManifest::of_adapter(
            &resolve(&one.adapter, hub)?,
            folder,
        )?);
    }
    if let ([Some(stage)], [one]) = (&stages[..], &args.adapter[..])
        && one.weight == 1.0
        && args.combine.is_none()
    {
        return Ok(stage.clone());
    }
    let mut stage = StageManifest::begin("merge", &args.model, folder, None, tokenizer)?;
    let adapters = args.adapter.iter().zip(&stages);
    let adapters: Vec<Value> = adapters
        .map(|(one, stage)| json!({"adapter": one.adapter, "weight": one.weight, "stage": stage}))
        .collect();
    stage.settings.insert("adapters".into(), adapters.into());
    let combine = args.combine.map(|combine| format!("{combine:?}"));
    stage.settings.insert("combine".into(), combine.into());
    Ok(stage)
}

/// The model with the adapter that is to be merged.
fn with_adapters(model: AutoCausalLm, args: &Args, hub: &HubOptions) -> Result<AutoCausalLm> {
    let settings = args.density.is_some()
        || args.svd_rank.is_some()
        || args.svd_clamp.is_some()
        || args.majority_sign_method.is_some()
        || args.seed.is_some();
    if let ([one], None, false) = (&args.adapter[..], args.combine, settings)
        && one.weight == 1.0
    {
        return Ok(load_adapter(
            model,
            &resolve(&one.adapter, hub)?,
            "default",
            false,
        )?);
    }
    if args.combine.is_none() && settings {
        bail!(
            "--density, --majority-sign-method, --svd-rank, --svd-clamp and --seed are for --combine: say how the adapters \
             are combined"
        );
    }
    let combination_type = args.combine.unwrap_or(CombinationType::Cat);
    if args.seed.is_some() && !combination_type.draws() {
        bail!("--seed has no effect on {combination_type}, which draws nothing: leave it out");
    }
    let mut model = model;
    let mut names = Vec::new();
    for (i, one) in args.adapter.iter().enumerate() {
        let name = format!("adapter{}", i + 1);
        model = load_adapter(model, &resolve(&one.adapter, hub)?, &name, false)?;
        set_active(&mut model, &[])?;
        names.push(name);
    }
    let weights = args.adapter.iter().map(|one| one.weight);
    let adapters: Vec<(&str, f64)> = names.iter().map(String::as_str).zip(weights).collect();
    let how = Combination {
        combination_type,
        density: args.density,
        majority_sign_method: match args.majority_sign_method {
            None | Some(Sign::Total) => MajoritySign::Total,
            Some(Sign::Frequency) => MajoritySign::Frequency,
        },
        svd_rank: args.svd_rank,
        svd_clamp: args.svd_clamp,
        seed: args.seed.unwrap_or_default(),
    };
    let mut model = combine(model, &adapters, "combined", &how)?;
    set_active(&mut model, &["combined"])?;
    Ok(model)
}
