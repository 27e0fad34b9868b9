//! What adapters are: lists them, compares two, makes LoRA of one.
//!
//! ```sh
//! cargo run --release --example adapters -- list --model DIR_OR_ID --adapter DIR --adapter DIR
//! cargo run --release --example adapters -- compare --model DIR_OR_ID --adapter DIR --adapter DIR
//! cargo run --release --example adapters -- convert --model DIR_OR_ID --adapter DIR --rank 16 --output DIR
//! ```

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use ft::core::{AutoCausalLm, HubOptions, Weights, resolve};
use ft::peft::{
    compare, convert_to_lora, delete, describe, load_adapter, save_adapter, set_active,
};
use serde_json::json;

/// What adapters are: list them, compare two, make LoRA of one.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object as the last line of stdout.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// A table of names, methods, layers, ranks, numbers of parameters and sizes.
    List(Adapters),
    /// Settings that differ, and how alike the changes of the weights of two adapters are, layer by layer.
    Compare(Adapters),
    /// Any adapter that can be merged, as LoRA, with the error.
    Convert {
        #[command(flatten)]
        adapters: Adapters,
        /// The rank.
        #[arg(long)]
        rank: usize,
        /// Folder for the LoRA adapter.
        #[arg(long)]
        output: PathBuf,
    },
}

#[derive(clap::Args)]
struct Adapters {
    /// Model folder, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// Adapter folder in PEFT's format, or hub id. May be given several times.
    #[arg(long, required = true)]
    adapter: Vec<String>,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let line = match &args.command {
        Command::List(adapters) => {
            let (model, _) = adapters.load()?;
            let list = describe(&model);
            eprintln!("{list}");
            json!({"adapters": list})
        }
        Command::Compare(adapters) => {
            let (model, names) = adapters.load()?;
            let [first, second] = &names[..] else {
                bail!(
                    "two adapters are compared, not {}: give --adapter twice",
                    names.len()
                );
            };
            let comparison = compare(&model, first, second)?;
            eprintln!("{comparison}");
            json!(comparison)
        }
        Command::Convert {
            adapters,
            rank,
            output,
        } => convert(adapters, *rank, output)?,
    };
    if args.json {
        println!("{line}");
    }
    Ok(())
}

impl Adapters {
    /// The model with the adapters, all switched off, and their names: those of their folders.
    fn load(&self) -> Result<(AutoCausalLm, Vec<String>)> {
        let (device, hub) = (ft::device("cpu")?, HubOptions::from_env());
        let folder = resolve(&self.model, &hub)?;
        let mut model = AutoCausalLm::from_pretrained_with(&folder, &device, Weights::Stored)?;
        let mut names: Vec<String> = Vec::new();
        for adapter in &self.adapter {
            let own = adapter
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap_or(adapter);
            let mut name = own.replace(['.', '\\'], "_");
            if name.is_empty() || names.contains(&name) {
                name = format!("{name}{}", names.len() + 1);
            }
            model = load_adapter(model, &resolve(adapter, &hub)?, &name, false)?;
            set_active(&mut model, &[])?;
            names.push(name);
        }
        Ok((model, names))
    }
}

fn convert(adapters: &Adapters, rank: usize, output: &PathBuf) -> Result<serde_json::Value> {
    let (model, names) = adapters.load()?;
    let [name] = &names[..] else {
        bail!("one adapter is converted at a time, not {}", names.len());
    };
    // The adapter in the folder itself is the one called default.
    let made = "default";
    let (model, name) = match name == made {
        false => (model, name.clone()),
        true => bail!("rename the folder of the adapter: {made:?} is the name of the new one"),
    };
    let (mut model, conversion) = convert_to_lora(model, &name, rank, made)?;
    delete(&mut model, &name)?;
    save_adapter(&model, made, output)?;
    for layer in &conversion.layers {
        eprintln!("{}: error {:.4}", layer.layer, layer.error);
    }
    eprintln!(
        "LoRA of rank {rank} saved to {}: error {:.4}",
        output.display(),
        conversion.error
    );
    Ok(
        json!({"output": output, "rank": rank, "error": conversion.error, "layers": conversion.layers}),
    )
}
