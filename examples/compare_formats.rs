//! A model in several formats of few bits, compared: size, perplexity, time to quantize, speed. Prints a table in Markdown.
//!
//! ```sh
//! cargo run --release --example compare_formats -- --model DIR_OR_ID --text test.txt --calibration train.jsonl \
//!     --formats f16,q4_k_m,nf4,rtn-w4g64,gptq-w4g64,awq-w4g64,hqq-w4g64 --svg formats.svg
//! ```
//!
//! Formats are mixes of GGUF (`q4_k_m`), block formats for all linear layers (`nf4`) and groups of integers
//! (`METHOD-wBITSgSIZE`). A mix with `-imatrix` behind its name (`q4_k_m-imatrix`) is rounded by what matters on the calibration
//! text. Mixes also round the embedding and the output layer; the others leave them in 16 bits.
//!
//! `MB` and `bits/weight` are of a file; `bits held` is what a number of the rounded layers takes in memory, where integers have 4 or
//! 8 bits, and scales and zero points 48. The seconds of a mix contain reading and writing, those of the others do not.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use ft::burn::tensor::Device;
use ft::core::{
    AutoCausalLm, GenerationConfig, HubOptions, ModelConfig, Tokenizer, Weights, dequantize,
    generate, module_path, open_weights, resolve,
};
use ft::quant::{
    GgufOptions, Importance, Target, calibration_windows, pack_model, quantize_model, write_gguf,
};
use serde_json::{Value, json};

#[path = "shared/windows.rs"]
mod windows;

/// A model in several formats of few bits, compared.
#[derive(Parser)]
struct Args {
    /// Model folder, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// UTF-8 text file whose perplexity is measured.
    #[arg(long)]
    text: PathBuf,
    /// Formats, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    formats: Vec<String>,
    /// Text file for GPTQ, AWQ and -imatrix: JSONL with a field `text`, or plain text.
    #[arg(long)]
    calibration: Option<PathBuf>,
    /// Windows of the calibration text.
    #[arg(long, default_value_t = 128)]
    samples: usize,
    /// Tokens per window, of both texts.
    #[arg(long, default_value_t = 512)]
    context: usize,
    /// Measure only so many windows, from the beginning of the text.
    #[arg(long)]
    windows: Option<usize>,
    /// Tokens that are generated to measure the speed; 0 for none.
    #[arg(long, default_value_t = 64)]
    decode: usize,
    /// A picture of size and perplexity.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// A line of the table.
struct Row {
    name: String,
    megabytes: f64,
    bits_per_weight: f64,
    held_bits: f64,
    seconds: f64,
    perplexity: f64,
    tokens_per_s: Option<f64>,
    mean_error: f64,
}

/// What all formats share.
struct Setup {
    folder: PathBuf,
    tokenizer: Tokenizer,
    device: Device,
    calibration: Option<Vec<Vec<u32>>>,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    ensure!(args.context >= 2, "--context must be at least 2");
    let names: Vec<(String, Target, bool)> = (args.formats.iter())
        .map(|name| {
            let (plain, weighted) = match name.strip_suffix("-imatrix") {
                Some(plain) => (plain, true),
                None => (&name[..], false),
            };
            let target: Target = plain.parse().map_err(anyhow::Error::msg)?;
            ensure!(
                !weighted || matches!(target, Target::Mix(_)),
                "{name}: -imatrix is for mixes of GGUF"
            );
            let needs_data = match target {
                Target::Groups(config) => config.algorithm.needs_data(),
                _ => weighted,
            };
            ensure!(
                !needs_data || args.calibration.is_some(),
                "{name} needs a calibration text: give --calibration FILE"
            );
            Ok((name.clone(), target, weighted))
        })
        .collect::<Result<_>>()?;
    let folder = resolve(&args.model, &HubOptions::from_env())?;
    let tokenizer = Tokenizer::from_pretrained(&folder)?;
    let calibration = (args.calibration.as_ref())
        .map(|path| calibration_windows(path, &tokenizer, args.context, args.samples))
        .transpose()?;
    let mut windows = windows::windows(&args.text, &tokenizer, args.context)?;
    windows.truncate(args.windows.unwrap_or(windows.len()).max(1));
    let setup = Setup {
        folder,
        tokenizer,
        device: ft::device("cpu")?,
        calibration,
    };
    let mut rows = Vec::new();
    for (name, target, weighted) in names {
        let row = setup.measure(&name, &target, weighted, &windows, &args);
        let row = row.with_context(|| format!("format {name}"))?;
        eprintln!(
            "{name}: {:.2} MB, perplexity {:.4}, {:.2} s to quantize",
            row.megabytes, row.perplexity, row.seconds
        );
        rows.push(row);
    }
    println!("{}", table(&rows));
    if let Some(path) = &args.svg {
        std::fs::write(path, picture(&rows))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.json {
        let rows: Vec<Value> = rows.iter().map(Row::json).collect();
        println!(
            "{}",
            json!({"windows": windows.len(), "context": args.context, "formats": rows})
        );
    }
    Ok(())
}

impl Setup {
    fn load(&self, path: &std::path::Path) -> Result<AutoCausalLm> {
        Ok(AutoCausalLm::from_pretrained_with(
            path,
            &self.device,
            Weights::Stored,
        )?)
    }

    fn calibration(&self) -> Result<&[Vec<u32>]> {
        self.calibration
            .as_deref()
            .context("give --calibration FILE")
    }

    fn measure(
        &self,
        name: &str,
        target: &Target,
        weighted: bool,
        windows: &[Vec<u32>],
        args: &Args,
    ) -> Result<Row> {
        let scratch = tempfile::tempdir()?;
        let mut row = Row {
            name: name.to_string(),
            megabytes: 0.0,
            bits_per_weight: 0.0,
            held_bits: 0.0,
            seconds: 0.0,
            perplexity: 0.0,
            tokens_per_s: None,
            mean_error: 0.0,
        };
        let mut progress = |_: usize, _: usize| {};
        let model = match target {
            Target::Mix(mix) => {
                let path = scratch.path().join("model.gguf");
                let start = Instant::now();
                let importance = match weighted {
                    true => {
                        let mut model = self.load(&self.folder)?;
                        Some(Importance::measure(
                            &mut model,
                            self.calibration()?,
                            &mut progress,
                        )?)
                    }
                    false => None,
                };
                let options = GgufOptions {
                    importance: importance.as_ref(),
                    ..GgufOptions::new(*mix)
                };
                let config = ModelConfig::from_pretrained(&self.folder)?.to_json();
                let weights = open_weights(&self.folder)?;
                let written = write_gguf(&*weights, &config, &self.tokenizer, &path, &options)?;
                row.seconds = start.elapsed().as_secs_f64();
                row.megabytes = written.bytes as f64 / 1e6;
                row.bits_per_weight = written.bits_per_weight();
                row.held_bits = row.bits_per_weight;
                row.mean_error = written.mean_error();
                self.load(&path)?
            }
            Target::Blocks(format) => {
                let mut model = self.load(&self.folder)?;
                // A model that is in blocks already is rounded a second time.
                dequantize(&mut model);
                let start = Instant::now();
                let layers = pack_model(&mut model, *format)?;
                row.seconds = start.elapsed().as_secs_f64();
                let bits = layers
                    .iter()
                    .map(|layer| layer.format.bits() * layer.numbers as f64);
                let count = layers.iter().map(|layer| layer.numbers).sum();
                row.size(&model, bits.sum(), count);
                row.held_bits = row.bits_per_weight;
                let errors: f64 = layers.iter().map(|layer| layer.error).sum();
                row.mean_error = errors / layers.len().max(1) as f64;
                model
            }
            Target::Groups(config) => {
                let mut model = self.load(&self.folder)?;
                let data = match config.algorithm.needs_data() {
                    true => Some(self.calibration()?),
                    false => None,
                };
                let quantized = quantize_model(&mut model, config, data, &mut progress)?;
                row.seconds = quantized.seconds;
                let count: usize = quantized.layers.iter().map(|layer| layer.numbers).sum();
                row.size(&model, quantized.bits_per_weight() * count as f64, count);
                row.held_bits = quantized.held_bits();
                row.mean_error = quantized.mean_error();
                model
            }
        };
        let (nll, tokens) = windows::nll(&model, windows, 4, &self.device, |_, _, _| {});
        row.perplexity = (nll / tokens as f64).exp();
        if !row.perplexity.is_finite() {
            bail!("the perplexity is {}", row.perplexity);
        }
        row.tokens_per_s = (args.decode > 0)
            .then(|| self.speed(&model, &windows[0], args.decode))
            .transpose()?;
        Ok(row)
    }

    /// Greedy tokens a second after a prompt of 32 tokens.
    fn speed(&self, model: &AutoCausalLm, window: &[u32], count: usize) -> Result<f64> {
        let prompt = window[..window.len().min(32)].to_vec();
        let config = |count| GenerationConfig {
            max_new_tokens: count,
            temperature: 0.0,
            ..GenerationConfig::default()
        };
        let seconds = |count| -> Result<f64> {
            let start = Instant::now();
            let mut listen = |_: ft::core::Streamed<'_>| ControlFlow::Continue(());
            let prompts = std::slice::from_ref(&prompt);
            generate(
                model,
                None,
                prompts,
                &config(count),
                &self.device,
                &mut listen,
            )?;
            Ok(start.elapsed().as_secs_f64())
        };
        let first = seconds(1)?;
        Ok(count as f64 / (seconds(count + 1)? - first).max(1e-9))
    }
}

impl Row {
    /// The size of a file with layers of few bits and the rest of the model in 16.
    fn size(&mut self, model: &AutoCausalLm, bits: f64, count: usize) {
        let shapes = module_path::shapes(model);
        let all: usize = shapes
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        self.megabytes = (bits / 8.0 + (all - count) as f64 * 2.0) / 1e6;
        self.bits_per_weight = bits / count.max(1) as f64;
    }

    fn json(&self) -> Value {
        json!({
            "format": self.name,
            "megabytes": self.megabytes,
            "bits_per_weight": self.bits_per_weight,
            "held_bits": self.held_bits,
            "seconds": self.seconds,
            "perplexity": self.perplexity,
            "tokens_per_s": self.tokens_per_s,
            "mean_error": self.mean_error,
        })
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| format | MB | bits/weight | bits held | perplexity | s to quantize | tokens/s |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let speed = row.tokens_per_s.map(|speed| format!("{speed:.1}"));
        let _ = writeln!(
            text,
            "| {} | {:.1} | {:.2} | {:.2} | {:.3} | {:.1} | {} |",
            row.name,
            row.megabytes,
            row.bits_per_weight,
            row.held_bits,
            row.perplexity,
            row.seconds,
            speed.unwrap_or_default()
        );
    }
    text
}

/// Size to the right, perplexity upwards.
fn picture(rows: &[Row]) -> String {
    let (width, height, left, bottom) = (720.0, 420.0, 60.0, 40.0);
    let range = |of: fn(&Row) -> f64| {
        let values = rows.iter().map(of);
        let (min, max) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), x| {
            (min.min(x), max.max(x))
        });
        let margin = (max - min).max(max.abs() * 0.01) * 0.08;
        (min - margin, max + margin)
    };
    let (sizes, perplexities) = (range(|row| row.megabytes), range(|row| row.perplexity));
    let at = |x: f64, (min, max): (f64, f64), length: f64| (x - min) / (max - min) * length;
    let x = |row: &Row| left + at(row.megabytes, sizes, width - left - 110.0);
    let y = |row: &Row| height - bottom - at(row.perplexity, perplexities, height - bottom - 20.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <path d=\"M{left} 20V{y0}H{width}\" fill=\"none\" stroke=\"black\"/>\n\
         <text x=\"{left}\" y=\"14\">perplexity, {:.2} to {:.2}</text>\n\
         <text x=\"{left}\" y=\"{}\">MB, {:.1} to {:.1}</text>\n",
        perplexities.0,
        perplexities.1,
        height - 12.0,
        sizes.0,
        sizes.1,
        y0 = height - bottom,
    );
    for row in rows {
        let (x, y) = (x(row), y(row));
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"steelblue\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{} ({:.2})</text>",
            x + 7.0,
            y + 4.0,
            row.name,
            row.perplexity
        );
    }
    svg + "</svg>\n"
}
