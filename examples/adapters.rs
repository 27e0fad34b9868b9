//! What adapters are: lists them, compares two, makes LoRA of one.
//!
//! ```sh
//! cargo run --release --example adapters -- list --model DIR_OR_ID --adapter DIR --adapter DIR
//! cargo run --release --example adapters -- compare --model DIR_OR_ID --adapter DIR --adapter DIR
//! cargo run --release --example adapters -- convert --model DIR_OR_ID --adapter DIR --rank 16 --output DIR
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use ft::core::{AutoCausalLm, HubOptions, Weights, resolve};
use ft::peft::{
    compare, convert_to_lora, delete, describe, into_plain_lora, load_adapter, save_adapter,
    set_active,
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
    /// An adapter that changes the weights of linear layers, as LoRA, with the error.
    Convert {
        #[command(flatten)]
        adapters: Adapters,
        /// The rank. Without it, LoRA that began as a part of the base weight (PiSSA, OLoRA) becomes plain LoRA, exactly.
        #[arg(long)]
        rank: Option<usize>,
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
        let mut names: Vec<String> = Vec::new();
        for adapter in &self.adapter {
            let parts = adapter.trim_end_matches('/').rsplit('/');
            let folder = parts.into_iter().next().unwrap_or(adapter);
            let mut name = folder.replace(['.', '\\'], "_");
            if name.is_empty() || names.contains(&name) {
                name = format!("{name}{}", names.len() + 1);
            }
            names.push(name);
        }
        Ok((self.load_as(&names)?, names))
    }

    fn load_as(&self, names: &[String]) -> Result<AutoCausalLm> {
        let (device, hub) = (ft::device("cpu")?, HubOptions::from_env());
        let folder = resolve(&self.model, &hub)?;
        let mut model = AutoCausalLm::from_pretrained_with(&folder, &device, Weights::Stored)?;
        for (adapter, name) in self.adapter.iter().zip(names) {
            model = load_adapter(model, &resolve(adapter, &hub)?, name, false)?;
            set_active(&mut model, &[])?;
        }
        Ok(model)
    }
}

fn convert(adapters: &Adapters, rank: Option<usize>, output: &Path) -> Result<serde_json::Value> {
    if adapters.adapter.len() != 1 {
        bail!(
            "one adapter is converted at a time, not {}",
            adapters.adapter.len()
        );
    }
    // An adapter of this name is saved in the folder itself.
    let made = "default";
    let Some(rank) = rank else {
        let model = into_plain_lora(adapters.load_as(&[made.to_string()])?, made)?;
        save_adapter(&model, made, output)?;
        eprintln!("plain LoRA saved to {}", output.display());
        return Ok(json!({"output": output, "error": 0.0}));
    };
    let model = adapters.load_as(&["given".to_string()])?;
    let (mut model, conversion) = convert_to_lora(model, "given", rank, made)?;
    delete(&mut model, "given")?;
    save_adapter(&model, made, output)?;
    for layer in &conversion.layers {
        eprintln!("{}: error {:.4}", layer.layer, layer.error);
    }
    eprintln!(
        "LoRA of rank {rank} saved to {}: error {:.4}",
        output.display(),
        conversion.error
    );
    Ok(json!({
        "output": output,
        "rank": rank,
        "error": conversion.error,
        "layers": conversion.layers,
    }))
}
