//! What a GGUF file contains: its keys, its tensors, and how many bits each number takes.
//!
//! ```sh
//! cargo run --release --example gguf_info -- model.gguf
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use ft::core::gguf::{Array, GgufFile, Value};
use serde_json::{Value as Json, json};

/// What a GGUF file contains.
#[derive(Parser)]
struct Args {
    /// The file.
    file: PathBuf,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let file = GgufFile::open(&args.file)?;
    let mut types: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut numbers = 0;
    for tensor in file.tensors() {
        let entry = types.entry(tensor.kind.name()).or_default();
        entry.0 += 1;
        entry.1 += tensor.bytes;
        numbers += tensor.shape.iter().product::<usize>();
    }
    let bits = file.num_bytes() as f64 * 8.0 / numbers.max(1) as f64;
    if args.json {
        let keys = file.metadata().iter();
        let keys = keys.map(|(key, value)| (key.to_string(), plain(value)));
        let tensors = file.tensors().iter().map(|tensor| {
            json!({"name": tensor.name, "shape": tensor.shape, "type": tensor.kind.name(), "bytes": tensor.bytes})
        });
        let line = json!({
            "version": file.version(),
            "bytes": file.num_bytes(),
            "parameters": numbers,
            "bits_per_weight": bits,
            "types": types.iter().map(|(name, (count, _))| (name.to_string(), json!(count))).collect::<serde_json::Map<_, _>>(),
            "metadata": keys.collect::<serde_json::Map<_, _>>(),
            "tensors": tensors.collect::<Vec<_>>(),
        });
        println!("{line}");
        return Ok(());
    }
    println!(
        "{}: GGUF version {}, {:.2} MB, {numbers} numbers, {bits:.3} bits each",
        args.file.display(),
        file.version(),
        file.num_bytes() as f64 / 1e6
    );
    println!();
    for (key, value) in file.metadata().iter() {
        println!("{key:<44} {}", short(&plain(value)));
    }
    println!();
    for (name, (count, bytes)) in &types {
        println!(
            "{count:>5} tensors of {name:<8} {:>10.2} MB",
            *bytes as f64 / 1e6
        );
    }
    if args.tensors {
        println!();
        for tensor in file.tensors() {
            let shape = format!("{:?}", tensor.shape);
            println!(
                "{:<40} {shape:<20} {:<8} {:>10} bytes",
                tensor.name,
                tensor.kind.name(),
                tensor.bytes
            );
        }
    }
    Ok(())
}

/// A value as JSON; of long arrays only how long they are.
fn plain(value: &Value) -> Json {
    const SHOWN: usize = 8;
    match value {
        Value::Bool(value) => json!(value),
        Value::String(value) => json!(value),
        Value::Array(array) if array.len() > SHOWN => json!(format!("{} values", array.len())),
        Value::Array(Array::String(values)) => json!(values),
        Value::Array(_) => match (value.as_integers(), value.as_floats()) {
            (Some(values), _) => json!(values),
            (_, Some(values)) => json!(values),
            _ => json!("values"),
        },
        value => match (value.as_u64(), value.as_f64()) {
            (Some(value), _) => json!(value),
            (_, Some(value)) => json!(value),
            _ => json!(format!("{value:?}")),
        },
    }
}

/// One line of at most 80 characters.
fn short(value: &Json) -> String {
    let text = match value {
        Json::String(text) => text.replace('\n', "\\n"),
        value => value.to_string(),
    };
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
