//! Pretrains a small Llama: vocabulary, weights, tokenizer and model card data from one text file.
//!
//! Documents are separated by empty lines. The model reads them one after another, in blocks of `--seq-len` tokens. Each
//! document is between the two tokens that later mark the turns of a chat: the model does not learn chats, but it learns
//! where a text begins and ends, so that fine-tuning on chats begins with trained embeddings of these tokens. The result
//! is a folder for `from_pretrained` of this workspace and of transformers.
//!
//! ```sh
//! cargo run --release --example corpus -- --output corpus.txt
//! cargo run --release --example pretrain -- --text corpus.txt --output my-model
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use ft::burn::module::Param;
use ft::burn::tensor::FloatDType;
use ft::core::safetensors_folder::write_json;
use ft::core::{AutoCausalLm, ModelConfig, Parts, SaveOptions, Tokenizer};
use ft::train::{Schedule, TrainConfig, Trainer, latest_checkpoint, next_token_loss};
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use serde_json::json;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

#[path = "shared/computation.rs"]
mod computation;
use computation::Computation;

#[path = "shared/blocks.rs"]
mod blocks;
use blocks::Blocks;

const END_OF_TEXT: &str = "<|endoftext|>";
const TURN_START: &str = "<|im_start|>";
const TURN_END: &str = "<|im_end|>";

/// Pretrain a small Llama on one text file.
#[derive(Parser)]
struct Args {
    /// UTF-8 text; documents are separated by empty lines.
    #[arg(long)]
    text: PathBuf,
    /// Folder for the model; checkpoints are in its subfolder `run`.
    #[arg(long)]
    output: PathBuf,
    /// Size of the vocabulary, including special tokens.
    #[arg(long, default_value_t = 3072)]
    vocab: usize,
    #[arg(long, default_value_t = 256)]
    hidden: usize,
    #[arg(long, default_value_t = 512)]
    intermediate: usize,
    #[arg(long, default_value_t = 5)]
    layers: usize,
    #[arg(long, default_value_t = 4)]
    heads: usize,
    #[arg(long, default_value_t = 2)]
    kv_heads: usize,
    /// Tokens per block.
    #[arg(long, default_value_t = 256)]
    seq_len: usize,
    /// The maximum sequence length in the model's configuration.
    #[arg(long, default_value_t = 512)]
    max_positions: usize,
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    /// Optimizer steps; without it, one epoch.
    #[arg(long)]
    max_steps: Option<usize>,
    #[arg(long, default_value_t = 2e-3)]
    lr: f64,
    #[arg(long, default_value_t = 300)]
    warmup_steps: usize,
    /// Blocks held out, as a fraction.
    #[arg(long, default_value_t = 0.005)]
    eval_fraction: f64,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The number of steps between checkpoints.
    #[arg(long, default_value_t = 400)]
    save_every: usize,
    /// Continue from the newest checkpoint.
    #[arg(long)]
    resume: bool,
    /// Start again although --output contains a run.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    #[command(flatten)]
    computation: Computation,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let device = args.computation.device()?.autodiff();
    device.seed(args.seed);

    let run = args.output.join("run");
    ensure!(
        args.resume || args.overwrite || latest_checkpoint(&run)?.is_none(),
        "{} holds checkpoints of an earlier run: go on from them with --resume, or give them up with \
         --overwrite",
        run.display()
    );

    // The vocabulary, trained on the text; a resumed run keeps its vocabulary.
    let text = std::fs::read_to_string(&args.text)
        .with_context(|| format!("cannot read {}", args.text.display()))?;
    if !(args.resume && args.output.join("tokenizer.json").is_file()) {
        eprintln!("learning a vocabulary of {} tokens", args.vocab);
        write_tokenizer(&text, &args)?;
    }
    let tokenizer = Tokenizer::from_pretrained(&args.output)?;

    // The text as blocks of token ids, some of them held out.
    let mut ids = Vec::new();
    let end = tokenizer
        .eos_token_id()
        .context("the tokenizer lacks its end token")?;
    for document in documents(&text) {
        ids.extend(tokenizer.encode(document, true)?);
        ids.push(end);
    }
    let mut blocks: Vec<Vec<u32>> = ids
        .chunks_exact(args.seq_len)
        .map(<[u32]>::to_vec)
        .collect();
    let fingerprint = ft::data::fingerprint(blocks.iter().flatten().map(|&id| i64::from(id)));
    blocks.shuffle(&mut StdRng::seed_from_u64(args.seed));
    let held_out = ((blocks.len() as f64 * args.eval_fraction) as usize).max(1);
    ensure!(
        blocks.len() > held_out,
        "{} has {} tokens, too few for blocks of {}",
        args.text.display(),
        ids.len(),
        args.seq_len
    );
    let held_out = blocks.split_off(blocks.len() - held_out);
    let bytes_per_token = text.len() as f64 / ids.len() as f64;
    eprintln!(
        "{} tokens ({bytes_per_token:.2} bytes each), {} blocks to train on, {} held out",
        ids.len(),
        blocks.len(),
        held_out.len()
    );

    // The model with random weights.
    let config = ModelConfig::from_json(json!({
        "model_type": "llama",
        "vocab_size": tokenizer.vocab_size(),
        "hidden_size": args.hidden,
        "intermediate_size": args.intermediate,
        "num_hidden_layers": args.layers,
        "num_attention_heads": args.heads,
        "num_key_value_heads": args.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": args.max_positions,
        "initializer_range": (args.hidden as f64).powf(-0.5),
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "bos_token_id": tokenizer.bos_token_id(),
        "eos_token_id": end,
        "pad_token_id": tokenizer.pad_token_id(),
    }))
    .map_err(|reason| anyhow!("the settings make no model: {reason}"))?;
    let mut model = AutoCausalLm::from_config(&config, &device)?;
    begin_by_copying(&mut model, args.heads, args.kv_heads);
    let (parameters, _) = ft::peft::trainable_parameters(&model);
    eprintln!("{parameters} parameters");

    // The training.
    let train = TrainConfig {
        learning_rate: args.lr,
        schedule: Schedule::Cosine,
        warmup_steps: args.warmup_steps,
        max_steps: args.max_steps,
        weight_decay: 0.1,
        betas: (0.9, 0.95),
        seed: args.seed,
        eval_every: Some(args.save_every),
        save_every: Some(args.save_every),
        save_total_limit: Some(2),
        output_dir: Some(run),
        resume: args.resume,
        overwrite: args.overwrite,
        ..TrainConfig::default()
    };
    let batches = |blocks: Vec<Vec<u32>>, seed| Blocks {
        blocks,
        batch_size: args.batch_size,
        seed,
    };
    let trainer = Trainer::new(train, batches(blocks, Some(args.seed)), next_token_loss)
        .with_evaluation(batches(held_out, None))
        .with_identity("text", fingerprint)
        .with_identity("batch_size", args.batch_size);
    let (model, report) = trainer.fit(model)?;

    // The result, in 16 bits.
    let options = SaveOptions {
        dtype: FloatDType::F16,
        ..SaveOptions::default()
    };
    model.save_pretrained(&args.output, &options)?;
    let generation = json!({
        "bos_token_id": tokenizer.bos_token_id(),
        "eos_token_id": [end, tokenizer.pad_token_id()],
        "pad_token_id": tokenizer.pad_token_id(),
    });
    write_json(&args.output.join("generation_config.json"), &generation)?;

    let last = report.evaluations.last().map(|e| e.metrics.loss);
    let line = json!({
        "parameters": parameters,
        "steps": report.steps,
        "tokens": report.tokens,
        "tokens_per_s": report.tokens_per_s,
        "train_loss": report.train_losses.last(),
        "eval_loss": last,
        "peak_rss_mb": ft::peak_rss_mb(),
    });
    eprintln!("saved to {}: {line}", args.output.display());
    if args.json {
        println!("{line}");
    }
    Ok(())
}

/// Initial weights that favour words of the context: a head writes back the values that it reads (`W_O = ½·W_Vᵀ`, so
/// that with a tied embedding every token of the context becomes a little more likely), and the output of the
/// feed-forward layers is initially 0.
///
/// Trockman and Kolter, 2023, arXiv:2305.09828, also tie the two weights, for images with the opposite sign.
fn begin_by_copying(model: &mut AutoCausalLm, heads: usize, kv_heads: usize) {
    let mut value = None;
    model.for_each_linear_mut(&mut |path, linear| {
        let weight = linear.weight.val();
        if path.ends_with("v_proj") {
            value = Some(weight);
        } else if path.ends_with("o_proj") {
            let value = value.take().expect("the values come before the output");
            let [rows, hidden] = value.dims();
            let group = heads / kv_heads;
            let width = rows / kv_heads;
            let shared = value
                .reshape([kv_heads, 1, width, hidden])
                .expand([kv_heads, group, width, hidden])
                .reshape([heads * width, hidden]);
            linear.weight = Param::from_tensor((shared.transpose() * 0.5).detach()).into();
        } else if path.ends_with("down_proj") {
            linear.weight = Param::from_tensor(weight.zeros_like()).into();
        }
    });
}

fn documents(text: &str) -> impl Iterator<Item = &str> + Send {
    text.split("\n\n").map(str::trim).filter(|d| !d.is_empty())
}

/// Byte-level BPE with the special tokens of chats, in Hugging Face's files. Encoding with special tokens adds the
/// begin-of-text token.
fn write_tokenizer(text: &str, args: &Args) -> Result<()> {
    let special = [END_OF_TEXT, TURN_START, TURN_END].map(|token| AddedToken::from(token, true));
    let mut trainer: TrainerWrapper = BpeTrainerBuilder::new()
        .vocab_size(args.vocab)
        .min_frequency(2)
        .special_tokens(special.to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build()
        .into();
    let byte_level = ByteLevel::default().add_prefix_space(false);
    let mut tokenizer = tokenizers::Tokenizer::new(ModelWrapper::from(BPE::default()));
    tokenizer
        .with_pre_tokenizer(Some(PreTokenizerWrapper::from(byte_level)))
        .with_decoder(Some(DecoderWrapper::from(byte_level)));
    tokenizer
        .train(&mut trainer, documents(text))
        .map_err(|e| anyhow!("the vocabulary cannot be learnt: {e}"))?;
    let begin = tokenizer
        .token_to_id(TURN_START)
        .context("no token begins a text")?;
    let begins = TemplateProcessing::builder()
        .try_single(format!("{TURN_START} $A"))
        .and_then(|builder| builder.try_pair(format!("{TURN_START} $A $B")))
        .map_err(|e| anyhow!(e))?
        .special_tokens(vec![(TURN_START, begin)])
        .build()?;
    tokenizer.with_post_processor(Some(PostProcessorWrapper::from(begins)));
    let json = tokenizer.to_string(false).map_err(|e| anyhow!(e))?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    write_json(&args.output.join("tokenizer.json"), &json)?;
    write_tokenizer_config(&args.output, args.max_positions)
}

fn write_tokenizer_config(folder: &Path, max_positions: usize) -> Result<()> {
    let template = format!(
        "{{% for message in messages %}}{TURN_START}{{{{ message['role'] }}}}\n\
         {{{{ message['content'] }}}}{TURN_END}\n{{% endfor %}}\
         {{% if add_generation_prompt %}}{TURN_START}assistant\n{{% endif %}}"
    );
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": TURN_START,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "additional_special_tokens": [TURN_START, TURN_END],
        "model_max_length": max_positions,
        "add_prefix_space": false,
        "clean_up_tokenization_spaces": false,
        "chat_template": template,
    });
    Ok(write_json(&folder.join("tokenizer_config.json"), &config)?)
}
