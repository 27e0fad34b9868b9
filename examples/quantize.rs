//! A model in few bits: a GGUF file for llama.cpp, Ollama and this workspace, or a folder for transformers and vLLM.
//!
//! ```sh
//! cargo run --release --example quantize -- --model DIR_OR_ID --format q4_k_m --output model-q4_k_m.gguf
//! cargo run --release --example quantize -- --model DIR_OR_ID --bits-per-weight 4.5 --calibration text.jsonl --output model.gguf
//! cargo run --release --example quantize -- --model DIR_OR_ID --method gptq --bits 4 --group-size 64 --calibration text.jsonl \
//!     --output model-gptq
//! ```
//!
//! With `--format` the file has one of llama.cpp's mixes, and `--calibration FILE` keeps the errors small that matter on that text, as
//! with an importance matrix of llama.cpp. Ollama's `Modelfile` is written beside it: `ollama create NAME -f Modelfile`.
//!
//! With `--bits-per-weight N` or `--megabytes N` the file is at most so large, with all that is in it. Each matrix gets the type with
//! which the hidden states change least on the calibration text.
//!
//! With `--method` the linear layers are rounded to groups of integers, and the folder has the layout of that method: GPTQ's for
//! `gptq`, AWQ's for `awq` in 4 bits, that of the package `hqq` for `hqq`, and that of compressed-tensors for others. `gptq`,
//! `awq` and `smoothquant` need a calibration text. `smoothquant` has 8 bits in weights and in inputs, which are rounded when they
//! are there.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{ArgGroup, Parser};
use ft::core::gguf::TensorType;
use ft::core::{
    AutoCausalLm, BackboneConfig, HubOptions, Tokenizer, Weights, copy_generation_config,
    open_weights, resolve,
};
use ft::quant::{
    Algorithm, Budget, FolderOptions, GgufOptions, Importance, Mix, PackedLayout, QuantizeConfig,
    Scheme, Sensitivity, Written, calibration_windows, fit_mix, quantize_model, write_gguf,
    write_modelfile, write_packed,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// A model in few bits, as a GGUF file or a folder.
#[derive(Parser)]
#[command(group = ArgGroup::new("target").required(true).args(["format", "bits_per_weight", "megabytes", "method"]))]
struct Args {
    /// Model folder, .gguf file, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// A GGUF file in this mix of llama.cpp: q4_k_m, q8_0, f16 and others.
    #[arg(long, conflicts_with_all = ["bits", "group_size"])]
    format: Option<Mix>,
    /// A GGUF file of at most so many bits for each number of the model, with the types that suit it best.
    #[arg(long, requires = "calibration", conflicts_with_all = ["bits", "group_size"])]
    bits_per_weight: Option<f64>,
    /// The same by the size of the file, in millions of bytes.
    #[arg(long, requires = "calibration", conflicts_with_all = ["bits", "group_size"])]
    megabytes: Option<f64>,
    /// A folder whose linear layers are rounded by this method: rtn (to nearest), gptq, awq, hqq or smoothquant.
    #[arg(long, value_parser = method)]
    method: Option<Algorithm>,
    /// Bits of an integer, from 2 to 8. Without it 4, and 8 for smoothquant, which has no others.
    #[arg(long)]
    bits: Option<u32>,
    /// Numbers that share a scale: a multiple of 32 that divides the columns of all layers. Without it 64. Not for smoothquant,
    /// which has a scale for each row.
    #[arg(long)]
    group_size: Option<usize>,
    /// How much of the difference between columns smoothquant moves from inputs to weights, from 0 to 1. Without it 0.5.
    #[arg(long, conflicts_with_all = ["format", "bits_per_weight", "megabytes"])]
    alpha: Option<f32>,
    /// Text that GPTQ, AWQ and SmoothQuant calibrate on, or by which a mix weighs columns: JSONL with a field `text`, or plain text.
    #[arg(long)]
    calibration: Option<PathBuf>,
    /// Windows of the calibration text.
    #[arg(long, default_value_t = 128)]
    samples: usize,
    /// Tokens per window.
    #[arg(long, default_value_t = 512)]
    context: usize,
    /// The file, or with --method the folder, to write.
    #[arg(long)]
    output: PathBuf,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn method(name: &str) -> Result<Algorithm, String> {
    Algorithm::by_name(name)
        .ok_or_else(|| "the methods are rtn, gptq, awq, hqq and smoothquant".to_string())
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let start = Instant::now();
    let source = resolve(&args.model, &HubOptions::from_env())?;
    let tokenizer = Tokenizer::from_pretrained(&source)?;
    let mut line = match args.method {
        Some(method) => folder(method, &source, &tokenizer, &args)?,
        None => file(&source, &tokenizer, &args)?,
    };
    let seconds = start.elapsed().as_secs_f64();
    eprintln!(
        "{}: {:.2} MB, {:.3} bits a weight, mean error {:.5}, {seconds:.2} s",
        args.output.display(),
        line["bytes"].as_f64().unwrap_or_default() / 1e6,
        line["bits_per_weight"].as_f64().unwrap_or_default(),
        line["mean_error"].as_f64().unwrap_or_default(),
    );
    if args.json {
        line["seconds"] = seconds.into();
        line["peak_rss_mb"] = ft::peak_rss_mb().into();
        println!("{line}");
    }
    Ok(())
}

/// A GGUF file.
fn file(source: &Path, tokenizer: &Tokenizer, args: &Args) -> Result<Value> {
    let config = BackboneConfig::from_pretrained(source)?.to_json();
    let weights = open_weights(source)?;
    let name = (source.file_stem()).map(|name| name.to_string_lossy().to_string());
    let megabytes = args
        .megabytes
        .map(|size| Budget::Bytes((size * 1e6) as u64));
    let budget = megabytes.or(args.bits_per_weight.map(Budget::BitsPerWeight));
    let measured = match windows(tokenizer, args)? {
        None => None,
        Some(windows) => {
            let mut model = load(source)?;
            let (bar, mut progress) = bar("blocks measured")?;
            let measured = match budget {
                Some(_) => Sensitivity::measure(&mut model, &windows, &mut progress)?,
                None => Sensitivity {
                    importance: Importance::measure(&mut model, &windows, &mut progress)?,
                    ..Sensitivity::default()
                },
            };
            bar.finish();
            Some(measured)
        }
    };
    let fit = match (budget, &measured) {
        (Some(budget), Some(measured)) => {
            let (bar, mut progress) = bar("tensors tried")?;
            let fit = fit_mix(
                &*weights,
                &config,
                tokenizer,
                name.as_deref(),
                measured,
                budget,
                &mut progress,
            )?;
            bar.finish();
            Some(fit)
        }
        _ => None,
    };
    let mix = fit.as_ref().map(|fit| fit.mix).or(args.format);
    let (bar, progress) = bar("tensors")?;
    let options = GgufOptions {
        types: fit.as_ref().map(|fit| &fit.types),
        name,
        importance: measured.as_ref().map(|measured| &measured.importance),
        progress: Some(&progress),
        ..GgufOptions::new(mix.context("a budget needs --calibration FILE")?)
    };
    let written = write_gguf(&*weights, &config, tokenizer, &args.output, &options)?;
    bar.finish();
    write_modelfile(&args.output, tokenizer)?;
    let mut line = json!({
        "bytes": written.bytes,
        "bits_per_weight": written.bits_per_weight(),
        "mean_error": written.mean_error(),
    });
    if let Some(fit) = &fit {
        print_types(&written);
        let types = fit
            .types
            .iter()
            .map(|(name, kind)| (name.clone(), kind.name().into()));
        line["types"] = Value::Object(types.collect());
        line["error"] = fit.error.into();
    }
    Ok(line)
}

/// The types of matrices: a line for each kind, with its blocks from the first to the last.
fn print_types(written: &Written) {
    let mut kinds: Vec<(&str, Vec<&str>)> = Vec::new();
    for tensor in written
        .tensors
        .iter()
        .filter(|tensor| tensor.kind != TensorType::F32)
    {
        let block = tensor
            .name
            .strip_prefix("blk.")
            .and_then(|rest| rest.split_once('.'));
        let name = block.map_or(&tensor.name[..], |(_, name)| name);
        match kinds.iter_mut().find(|(known, _)| *known == name) {
            Some((_, types)) => types.push(tensor.kind.name()),
            None => kinds.push((name, vec![tensor.kind.name()])),
        }
    }
    for (name, types) in kinds {
        eprintln!("{name:24} {}", types.join(" "));
    }
}

/// A folder with packed weights.
fn folder(
    algorithm: Algorithm,
    source: &Path,
    tokenizer: &Tokenizer,
    args: &Args,
) -> Result<Value> {
    let group_size = args.group_size.unwrap_or(64);
    ensure!(
        group_size > 0 && group_size.is_multiple_of(32),
        "--group-size {group_size}: give a multiple of 32"
    );
    let smooth = matches!(algorithm, Algorithm::SmoothQuant { .. });
    ensure!(
        !smooth || args.group_size.is_none(),
        "smoothquant has a scale for each row and no groups: leave out --group-size"
    );
    ensure!(
        smooth || args.alpha.is_none(),
        "--alpha is for --method smoothquant"
    );
    let bits = args.bits.unwrap_or(if smooth { 8 } else { 4 });
    let config = QuantizeConfig {
        algorithm: match args.alpha {
            Some(alpha) => Algorithm::SmoothQuant { alpha },
            None => algorithm,
        },
        scheme: match smooth {
            true => Scheme::rows(bits),
            false => Scheme::grouped(bits, group_size),
        },
    };
    let layout = match algorithm {
        Algorithm::Gptq(_) => PackedLayout::Gptq,
        Algorithm::Awq if bits == 4 => PackedLayout::Awq,
        Algorithm::Hqq(_) => PackedLayout::Hqq,
        _ => PackedLayout::CompressedTensors,
    };
    let windows = windows(tokenizer, args)?;
    let mut model = load(source)?;
    let (bar, mut progress) = bar("layers")?;
    let quantized = quantize_model(&mut model, &config, windows.as_deref(), &mut progress)?;
    bar.finish();
    let settings = model.config().to_json();
    write_packed(
        &model,
        &settings,
        layout,
        &args.output,
        &FolderOptions::default(),
    )?;
    tokenizer.save_pretrained(&args.output)?;
    copy_generation_config(source, &args.output)?;
    let mut bytes = 0;
    for entry in std::fs::read_dir(&args.output)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_string_lossy()
            .ends_with(".safetensors")
        {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(json!({
        "layout": layout.name(),
        "bytes": bytes,
        "bits_per_weight": quantized.bits_per_weight(),
        "mean_error": quantized.mean_error(),
    }))
}

fn load(source: &Path) -> Result<AutoCausalLm> {
    let device = ft::device("cpu")?;
    Ok(AutoCausalLm::from_pretrained_with(
        source,
        &device,
        Weights::Stored,
    )?)
}

/// The windows of the calibration text.
fn windows(tokenizer: &Tokenizer, args: &Args) -> Result<Option<Vec<Vec<u32>>>> {
    let Some(path) = &args.calibration else {
        return Ok(None);
    };
    let windows = calibration_windows(path, tokenizer, args.context, args.samples)?;
    Ok(Some(windows))
}

/// A bar, and what moves it.
fn bar(unit: &str) -> Result<(ProgressBar, impl Fn(usize, usize) + use<>)> {
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(&format!(
        "{{bar:30}} {{pos}}/{{len}} {unit}  {{eta}} left"
    ))?);
    let moved = bar.clone();
    let progress = move |done: usize, all: usize| {
        moved.set_length(all as u64);
        moved.set_position(done as u64);
    };
    Ok((bar, progress))
}
