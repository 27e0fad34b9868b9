//! Trains a tokenizer on a corpus, or adds tokens to a model; measures fertility, the number of tokens a word takes.
//!
//! ```sh
//! cargo run --release --example train_tokenizer -- --data corpus.jsonl --kind bpe --vocab-size 8000 --output my-tokenizer
//! cargo run --release --example train_tokenizer -- --model DIR --add-token "<think>" --add-token "</think>" --output DIR2
//! ```
//!
//! A tenth of the texts is held out, and fertility is that on these; with `--model` also that of the model's tokenizer. The second form
//! writes the model with rows for the new tokens, each the mean of the others, and its tokenizer.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Parser, ValueEnum};
use ft::core::safetensors_folder::write_json;
use ft::core::{AutoCausalLm, CausalLm, SaveOptions, Tokenizer, Weights, copy_generation_config};
use ft::data::{Table, row_text};
use serde_json::{Value, json};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainerBuilder};
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::Metaspace;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper,
};

/// Trains a tokenizer, or adds tokens to a model.
#[derive(Parser)]
struct Args {
    /// Texts: a file, folder or glob; the text of a row is all its texts. Without it, simple English that comes with ft.
    #[arg(long)]
    data: Option<PathBuf>,
    /// What is trained.
    #[arg(long, default_value = "bpe")]
    kind: Kind,
    /// Tokens of the vocabulary.
    #[arg(long, default_value_t = 1000)]
    vocab_size: usize,
    /// A model folder, whose tokenizer is compared, or gains tokens.
    #[arg(long)]
    model: Option<PathBuf>,
    /// A token that the model's tokenizer gains. May be given several times.
    #[arg(long, requires = "model")]
    add_token: Vec<String>,
    /// Folder for the tokenizer, or for the model with more tokens.
    #[arg(long)]
    output: PathBuf,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Kind {
    /// Byte pairs: no text is unknown, and decoding gives the text back.
    Bpe,
    /// BERT's pieces of words in lower case.
    Wordpiece,
    /// SentencePiece's unigram model.
    Unigram,
}

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/general.txt");
const END_OF_TEXT: &str = "<|endoftext|>";
const SEED: u64 = 42;

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    std::fs::create_dir_all(&args.output)?;
    let line = match args.add_token.is_empty() {
        true => train(&args)?,
        false => add_tokens(&args)?,
    };
    if args.json {
        println!("{line}");
    }
    Ok(())
}

fn train(args: &Args) -> Result<Value> {
    let data = args.data.clone().unwrap_or_else(|| DATA.into());
    let texts: Vec<Value> = Table::load(&data)?
        .rows()
        .iter()
        .map(|row| row_text(row).into())
        .collect();
    let (learnt, held_out) = Table::from_rows(texts).train_test_split(0.1, SEED)?;
    let text = |table: &Table| -> Vec<String> {
        table
            .rows()
            .iter()
            .filter_map(|text| text.as_str().map(str::to_string))
            .collect()
    };
    let (learnt, held_out) = (text(&learnt), text(&held_out));

    let (mut tokenizer, mut trainer, special) = untrained(args)?;
    tokenizer
        .train(&mut trainer, learnt.iter().map(String::as_str))
        .map_err(|error| anyhow!("the vocabulary cannot be learnt: {error}"))?;
    let trained = tokenizer.to_string(false).map_err(|error| anyhow!(error))?;
    let trained: Value = serde_json::from_str(&trained)?;
    write_json(&args.output.join("tokenizer.json"), &trained)?;
    write_json(&args.output.join("tokenizer_config.json"), &special)?;

    let tokenizer = Tokenizer::from_pretrained(&args.output)?;
    let own = fertility(&tokenizer, &held_out)?;
    println!(
        "{} tokens; {own:.3} tokens a word on held-out text",
        tokenizer.vocab_size()
    );
    let of_model = match &args.model {
        None => None,
        Some(folder) => {
            let of_model = fertility(&Tokenizer::from_pretrained(folder)?, &held_out)?;
            println!("the tokenizer of {} takes {of_model:.3}", folder.display());
            Some(of_model)
        }
    };
    Ok(json!({
        "vocab_size": tokenizer.vocab_size(),
        "fertility": own,
        "fertility_of_model": of_model,
    }))
}

/// A tokenizer without a vocabulary, what learns one, and `tokenizer_config.json`.
fn untrained(args: &Args) -> Result<(tokenizers::Tokenizer, TrainerWrapper, Value)> {
    let special = |tokens: &[&str]| -> Vec<AddedToken> {
        tokens
            .iter()
            .map(|token| AddedToken::from(*token, true))
            .collect()
    };
    Ok(match args.kind {
        Kind::Bpe => {
            let trainer = BpeTrainerBuilder::new()
                .vocab_size(args.vocab_size)
                .min_frequency(2)
                .special_tokens(special(&[END_OF_TEXT]))
                .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
                .show_progress(false)
                .build();
            let byte_level = ByteLevel::default().add_prefix_space(false);
            let mut tokenizer = tokenizers::Tokenizer::new(ModelWrapper::from(BPE::default()));
            tokenizer
                .with_pre_tokenizer(Some(PreTokenizerWrapper::from(byte_level)))
                .with_decoder(Some(DecoderWrapper::from(byte_level)));
            (
                tokenizer,
                trainer.into(),
                json!({"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}),
            )
        }
        Kind::Wordpiece => {
            let trainer = WordPieceTrainerBuilder::new()
                .vocab_size(args.vocab_size)
                .min_frequency(2)
                .special_tokens(special(&["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
                .show_progress(false)
                .build();
            let mut tokenizer =
                tokenizers::Tokenizer::new(ModelWrapper::from(WordPiece::default()));
            let normalizer = NormalizerWrapper::from(BertNormalizer::default());
            let normalized = tokenizer.with_normalizer(Some(normalizer));
            normalized
                .map_err(|error| anyhow!(error))?
                .with_pre_tokenizer(Some(PreTokenizerWrapper::from(BertPreTokenizer)))
                .with_decoder(Some(DecoderWrapper::from(WordPieceDecoder::default())));
            let config = json!({
                "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
            });
            (tokenizer, trainer.into(), config)
        }
        Kind::Unigram => {
            let trainer = UnigramTrainer::builder()
                .vocab_size(u32::try_from(args.vocab_size)?)
                .special_tokens(special(&["<unk>", "</s>"]))
                .unk_token(Some("<unk>".to_string()))
                .show_progress(false)
                .build()
                .map_err(|error| anyhow!("{error}"))?;
            let metaspace = Metaspace::default();
            let mut tokenizer = tokenizers::Tokenizer::new(ModelWrapper::from(Unigram::default()));
            tokenizer
                .with_pre_tokenizer(Some(PreTokenizerWrapper::from(metaspace.clone())))
                .with_decoder(Some(DecoderWrapper::from(metaspace)));
            (
                tokenizer,
                trainer.into(),
                json!({"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "</s>"}),
            )
        }
    })
}

/// Tokens over words, on all texts.
fn fertility(tokenizer: &Tokenizer, texts: &[String]) -> Result<f64> {
    let (mut tokens, mut words) = (0, 0);
    for text in texts {
        tokens += tokenizer.encode(text, false)?.len();
        words += text.split_whitespace().count();
    }
    ensure!(words > 0, "the held-out texts have no words");
    Ok(tokens as f64 / words as f64)
}

/// The model with more tokens.
fn add_tokens(args: &Args) -> Result<Value> {
    let folder = args.model.as_deref().context("--add-token needs --model")?;
    let before = Tokenizer::from_pretrained(folder)?;
    for token in &args.add_token {
        ensure!(
            before.token_to_id(token).is_none(),
            "the tokenizer has the token {token:?} already"
        );
    }
    before.save_pretrained(&args.output)?;
    let path = args.output.join("tokenizer.json");
    let mut tokenizer = tokenizers::Tokenizer::from_file(&path).map_err(|error| anyhow!(error))?;
    let new: Vec<AddedToken> = args
        .add_token
        .iter()
        .map(|token| AddedToken::from(token.as_str(), false))
        .collect();
    tokenizer.add_tokens(new).map_err(|error| anyhow!(error))?;
    let text = tokenizer.to_string(false).map_err(|error| anyhow!(error))?;
    write_json(&path, &serde_json::from_str::<Value>(&text)?)?;

    let after = Tokenizer::from_pretrained(&args.output)?;
    let mut model = AutoCausalLm::from_pretrained_with(folder, &ft::device("cpu")?, Weights::F32)?;
    let rows = model.dims().vocab_size;
    if after.vocab_size() > rows {
        model.resize_token_embeddings(after.vocab_size())?;
    }
    model.save_pretrained(&args.output, &SaveOptions::default())?;
    copy_generation_config(folder, &args.output)?;
    let ids: Vec<Option<u32>> = args
        .add_token
        .iter()
        .map(|token| after.token_to_id(token))
        .collect();
    println!(
        "{} -> {} rows; the new tokens have the ids {ids:?}",
        rows,
        model.dims().vocab_size
    );
    Ok(json!({
        "rows_before": rows,
        "rows_after": model.dims().vocab_size,
        "ids": ids,
    }))
}
