//! A GGUF file as a folder of Hugging Face, in 16 or 32 bits.
//!
//! ```sh
//! cargo run --release --example dequantize -- --model model-q4_k_m.gguf --output DIR
//! ```

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Parser;
use ft::burn::tensor::FloatDType;
use ft::core::{
    AutoCausalLm, HubOptions, SaveOptions, Tokenizer, Weights, copy_generation_config, dequantize,
    resolve,
};
use serde_json::json;

/// A GGUF file as a folder of Hugging Face.
#[derive(Parser)]
struct Args {
    /// The .gguf file.
    #[arg(long)]
    model: String,
    /// float16, bfloat16 or float32.
    #[arg(long, default_value = "float16")]
    dtype: String,
    /// The folder to write.
    #[arg(long)]
    output: PathBuf,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let start = Instant::now();
    let dtype = match args.dtype.as_str() {
        "float16" => FloatDType::F16,
        "bfloat16" => FloatDType::BF16,
        "float32" => FloatDType::F32,
        other => bail!("--dtype {other}: give float16, bfloat16 or float32"),
    };
    let path = resolve(&args.model, &HubOptions::from_env())?;
    let device = ft::device("cpu")?;
    let mut model = AutoCausalLm::from_pretrained_with(&path, &device, Weights::Stored)?;
    let count = dequantize(&mut model);
    let options = SaveOptions {
        dtype,
        ..SaveOptions::default()
    };
    model.save_pretrained(&args.output, &options)?;
    Tokenizer::from_pretrained(&path)?.save_pretrained(&args.output)?;
    copy_generation_config(&path, &args.output)?;
    let bytes = std::fs::metadata(args.output.join("model.safetensors")).map(|file| file.len());
    let seconds = start.elapsed().as_secs_f64();
    eprintln!(
        "{}: {count} matrices decoded, {seconds:.2} s",
        args.output.display()
    );
    if args.json {
        let line = json!({
            "seconds": seconds,
            "peak_rss_mb": ft::peak_rss_mb(),
            "bytes": bytes.ok(),
            "decoded": count,
        });
        println!("{line}");
    }
    Ok(())
}
