//! Merges an adapter into its model.
//!
//! ```sh
//! cargo run --release --example merge -- --model DIR_OR_ID --adapter DIR --output DIR
//! ```

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use ft::burn::tensor::FloatDType;
use ft::core::{AutoCausalLm, HubOptions, SaveOptions, Tokenizer, copy_generation_config, resolve};
use ft::peft::{load_adapter, merge_and_unload};
use serde_json::json;

/// Merge an adapter into its model.
#[derive(Parser)]
struct Args {
    /// Model folder, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// Adapter folder in PEFT's format, or hub id.
    #[arg(long)]
    adapter: String,
    /// Folder for the merged model.
    #[arg(long)]
    output: PathBuf,
    /// Type of the merged weights. 16 bits halve the file and round the weights.
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

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let device = ft::device("cpu")?;
    let hub = HubOptions::from_env();
    let folder = resolve(&args.model, &hub)?;
    let tokenizer = Tokenizer::from_pretrained(&folder)?;
    let model = AutoCausalLm::from_pretrained(&folder, &device)?;
    let model = load_adapter(model, &resolve(&args.adapter, &hub)?, "default", false)?;
    let model = merge_and_unload(model)?;
    let options = SaveOptions {
        dtype: match args.dtype {
            Dtype::Float32 => FloatDType::F32,
            Dtype::Float16 => FloatDType::F16,
            Dtype::Bfloat16 => FloatDType::BF16,
        },
        max_shard_size: args.max_shard_size,
    };
    model.save_pretrained(&args.output, &options)?;
    tokenizer.save_pretrained(&args.output)?;
    copy_generation_config(&folder, &args.output)?;
    eprintln!(
        "merged {} model saved to {}",
        model.config().model_type(),
        args.output.display()
    );
    if args.json {
        println!("{}", json!({"output": args.output}));
    }
    Ok(())
}
