//! What a run depends on, and the same run once more.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;
use ft::core::StageManifest;
use ft::data::data_files;
use ft::train::{BoxError, Manifest, Tracker};

use crate::Args;

/// The arguments, and with `--from-manifest` the manifest of the run that they repeat.
pub(crate) fn arguments() -> Result<(Args, Option<Manifest>)> {
    /// Repeats a run.
    #[derive(Parser)]
    struct Repeat {
        /// The manifest of the run.
        #[arg(long)]
        from_manifest: PathBuf,
        /// Folder for the repeated run.
        #[arg(long)]
        output: PathBuf,
        /// Print one JSON object as the last line of stdout.
        #[arg(long)]
        json: bool,
    }
    if !std::env::args().any(|one| one.starts_with("--from-manifest")) {
        return Ok((Args::parse(), None));
    }
    let repeat = Repeat::parse();
    let manifest = Manifest::read(&repeat.from_manifest)?;
    let mut again = vec![manifest.program.clone()];
    again.extend(manifest.arguments.iter().cloned());
    again.extend(["--output".to_string(), repeat.output.display().to_string()]);
    again.extend(repeat.json.then(|| "--json".to_string()));
    Ok((Args::try_parse_from(again)?, Some(manifest)))
}

/// Writes the manifest once a run is accepted. That of an earlier run in the folder stays until then.
pub(crate) struct WriteManifest(pub(crate) Manifest, pub(crate) PathBuf);

impl Tracker for WriteManifest {
    fn begin(&mut self, _: usize) -> Result<(), BoxError> {
        Ok(self.0.write(&self.1)?)
    }

    fn log(&mut self, _: usize, _: &[(String, f64)]) -> Result<(), BoxError> {
        Ok(())
    }
}

/// What the run depends on. `batch_size` is that which was found.
pub(crate) fn manifest(
    args: &Args,
    batch_size: usize,
    model: &Path,
    stage: &StageManifest,
) -> Result<Manifest> {
    // Where the results go, and whether an earlier run is continued, is no part of the run.
    let mut arguments = Vec::new();
    let mut given = std::env::args().skip(1);
    while let Some(one) = given.next() {
        let (name, value) = match one.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (one.as_str(), None),
        };
        match name {
            "--output"
            | "--csv"
            | "--tensorboard"
            | "--wandb"
            | "--mlflow"
            | "--mlflow-experiment" => {
                if value.is_none() {
                    given.next();
                }
            }
            // Another machine has another memory.
            "--batch-size" => {
                if value.is_none() {
                    given.next();
                }
                arguments.push(format!("--batch-size={batch_size}"));
            }
            "--resume" | "--overwrite" | "--json" => {}
            _ => arguments.push(one),
        }
    }
    let mut manifest = Manifest::new("sft", arguments, &args.computation.device)
        .with_fact("seed", args.seed)
        .with_fact("base_weights", stage.base_weights.as_str())
        .with_fact("chat_template", stage.template.clone());
    let data = [
        ("data", Some(&args.data)),
        ("mix", args.mix.as_ref()),
        ("eval_data", args.eval_data.as_ref()),
        ("general_data", args.general_data.as_ref()),
    ];
    for (what, path) in data {
        let Some(path) = path else { continue };
        for (name, file) in data_files(path)? {
            let name = match path.is_file() {
                true => what.to_string(),
                false => format!("{what}/{name}"),
            };
            manifest = manifest.with_file(&name, &file)?;
        }
    }
    for name in ["config.json", "tokenizer.json"] {
        let file = model.join(name);
        if file.is_file() {
            manifest = manifest.with_file(&format!("model/{name}"), &file)?;
        }
    }
    Ok(manifest)
}
