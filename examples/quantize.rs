//! A model in few bits: a GGUF file for llama.cpp, Ollama and this workspace, or a folder for transformers and vLLM.
//!
//! ```sh
//! cargo run --release --example quantize -- --model DIR_OR_ID --format q4_k_m --output model-q4_k_m.gguf
//! cargo run --release --example quantize -- --model DIR_OR_ID --method gptq --bits 4 --group-size 64 --calibration text.jsonl \
//!     --output model-gptq
//! ```
//!
//! With `--format` the file has one of llama.cpp's mixes, and `--calibration FILE` keeps the errors small that matter on that text, as
//! with an importance matrix of llama.cpp. Ollama's `Modelfile` is written beside it: `ollama create NAME -f Modelfile`.
//!
//! With `--method` the linear layers are rounded to groups of integers, and the folder has the layout of that method: GPTQ's for
//! `gptq`, AWQ's for `awq` in 4 bits, that of the package `hqq` for `hqq`, and that of compressed-tensors for others. `gptq` and
//! `awq` need a calibration text.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use ft::core::{
    AutoCausalLm, BackboneConfig, HubOptions, Tokenizer, Weights, copy_generation_config,
    open_weights, resolve,
};
use ft::quant::{
    Algorithm, FolderOptions, GgufOptions, Importance, Mix, PackedLayout, QuantizeConfig, Scheme,
    calibration_windows, quantize_model, write_gguf, write_modelfile, write_packed,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// A model in few bits, as a GGUF file or a folder.
#[derive(Parser)]
struct Args {
    /// Model folder, .gguf file, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// A GGUF file in this mix of llama.cpp: q4_k_m, q8_0, f16 and others.
    #[arg(long, required_unless_present = "method", conflicts_with_all = ["method", "bits", "group_size"])]
    format: Option<Mix>,
    /// A folder whose linear layers are rounded by this method: rtn (to nearest), gptq, awq or hqq.
    #[arg(long, value_parser = method)]
    method: Option<Algorithm>,
    /// Bits of an integer, from 2 to 8.
    #[arg(long, default_value_t = 4)]
    bits: u32,
    /// Numbers that share a scale: a multiple of 32 that divides the columns of all layers.
    #[arg(long, default_value_t = 64)]
    group_size: usize,
    /// Text that GPTQ and AWQ calibrate on, or by which a mix weighs columns: JSONL with a field `text`, or plain text.
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
    Algorithm::by_name(name).ok_or_else(|| "the methods are rtn, gptq, awq and hqq".to_string())
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let start = Instant::now();
    let source = resolve(&args.model, &HubOptions::from_env())?;
    let tokenizer = Tokenizer::from_pretrained(&source)?;
    let mut line = match (args.format, args.method) {
        (Some(mix), _) => file(mix, &source, &tokenizer, &args)?,
        (None, Some(method)) => folder(method, &source, &tokenizer, &args)?,
        (None, None) => unreachable!("one of them is required"),
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
fn file(mix: Mix, source: &Path, tokenizer: &Tokenizer, args: &Args) -> Result<Value> {
    let config = BackboneConfig::from_pretrained(source)?.to_json();
    let importance = match windows(tokenizer, args)? {
        None => None,
        Some(windows) => {
            let mut model = load(source)?;
            let (bar, mut progress) = bar("blocks measured")?;
            let importance = Importance::measure(&mut model, &windows, &mut progress)?;
            bar.finish();
            Some(importance)
        }
    };
    let (bar, progress) = bar("tensors")?;
    let options = GgufOptions {
        name: (source.file_stem()).map(|name| name.to_string_lossy().to_string()),
        importance: importance.as_ref(),
        progress: Some(&progress),
        ..GgufOptions::new(mix)
    };
    let weights = open_weights(source)?;
    let written = write_gguf(&*weights, &config, tokenizer, &args.output, &options)?;
    bar.finish();
    write_modelfile(&args.output, tokenizer)?;
    Ok(json!({
        "bytes": written.bytes,
        "bits_per_weight": written.bits_per_weight(),
        "mean_error": written.mean_error(),
    }))
}

/// A folder with packed weights.
fn folder(
    algorithm: Algorithm,
    source: &Path,
    tokenizer: &Tokenizer,
    args: &Args,
) -> Result<Value> {
    ensure!(
        args.group_size > 0 && args.group_size.is_multiple_of(32),
        "--group-size {}: give a multiple of 32",
        args.group_size
    );
    let config = QuantizeConfig {
        algorithm,
        scheme: Scheme::grouped(args.bits, args.group_size),
    };
    let layout = match algorithm {
        Algorithm::Gptq(_) => PackedLayout::Gptq,
        Algorithm::Awq if args.bits == 4 => PackedLayout::Awq,
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
