//! Text from a model, streamed as it is generated.
//!
//! ```sh
//! cargo run --release --example generate -- --model DIR_OR_ID --chat --prompt "What is a kite?"
//! ```

use std::io::Write;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use ft::core::{
    AutoCausalLm, CausalLm, GenerationConfig, HubOptions, Message, Tokenizer, Weights, generate,
    resolve,
};
use serde_json::json;

#[path = "shared/computation.rs"]
mod computation;
use computation::Computation;

/// Text from a model, streamed as it is generated.
#[derive(Parser)]
struct Args {
    /// Model folder, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// Adapter folder in PEFT's format, or hub id.
    #[arg(long)]
    adapter: Option<String>,
    /// The text to continue; with --chat the user's message.
    #[arg(long)]
    prompt: String,
    /// Render the prompt with the model's chat template.
    #[arg(long)]
    chat: bool,
    /// A system message, with --chat.
    #[arg(long, requires = "chat")]
    system: Option<String>,
    #[arg(long, default_value_t = 128)]
    max_new_tokens: usize,
    /// 0 always selects the most probable token.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Keep the k most probable tokens; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Keep the most probable tokens that together have this probability.
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Keep tokens at least this probable relative to the most probable one.
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// Values above 1 make tokens that occurred before less probable.
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Text that ends the answer; may be given several times.
    #[arg(long)]
    stop: Vec<String>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    computation: Computation,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let device = args.computation.device()?;
    let hub = HubOptions::from_env();
    let folder = resolve(&args.model, &hub)?;
    let adapter = args.adapter.as_ref();
    let adapter = adapter.map(|one| resolve(one, &hub)).transpose()?;
    let tokenizer = match &adapter {
        Some(adapter) => Tokenizer::for_adapter(adapter, &folder)?,
        None => Tokenizer::from_pretrained(&folder)?,
    };
    let mut model = AutoCausalLm::from_pretrained_with(&folder, &device, Weights::Stored)?;
    tokenizer.check_vocab(model.dims().vocab_size)?;
    if let Some(adapter) = &adapter {
        model = ft::peft::load_adapter(model, adapter, "default", false)?;
    }

    let prompt = if args.chat {
        let system = args
            .system
            .iter()
            .map(|text| Message::new("system", text.as_str()));
        let user = Message::new("user", args.prompt.as_str());
        let messages: Vec<Message> = system.chain([user]).collect();
        let text = tokenizer.apply_chat_template(&messages, None, true)?;
        tokenizer.encode(&text, false)?
    } else {
        tokenizer.encode(&args.prompt, true)?
    };
    let config = GenerationConfig {
        max_new_tokens: args.max_new_tokens,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        seed: args.seed,
        stop_strings: args.stop,
        ..GenerationConfig::from_pretrained(&folder, Some(&tokenizer))?
    };

    // The time to the first token is that of the prompt; the rest is decoding.
    let start = Instant::now();
    let mut first = Duration::ZERO;
    let mut screen: Box<dyn Write> = if args.json {
        Box::new(std::io::stderr())
    } else {
        Box::new(std::io::stdout())
    };
    let mut listen = |token: ft::core::Streamed<'_>| {
        if first.is_zero() {
            first = start.elapsed();
        }
        // A closed pipe, as with `head`, ends the generation.
        match write!(screen, "{}", token.text).and_then(|()| screen.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    let prompts = [prompt];
    let mut out = generate(
        &model,
        Some(&tokenizer),
        &prompts,
        &config,
        &device,
        &mut listen,
    )?;
    let decoding = start.elapsed().saturating_sub(first);
    let out = out.remove(0);
    let decoded = out.token_ids.len().saturating_sub(1) as f64;
    let prompt_tokens_per_s = prompts[0].len() as f64 / first.as_secs_f64();
    let decode_tokens_per_s = decoded / decoding.as_secs_f64().max(1e-9);
    eprintln!(
        "\n[prompt: {} tokens, {prompt_tokens_per_s:.0}/s; answer: {} tokens, \
         {decode_tokens_per_s:.1}/s]",
        prompts[0].len(),
        out.token_ids.len()
    );
    if args.json {
        let line = json!({
            "text": out.text,
            "token_ids": out.token_ids,
            "prompt_tokens": prompts[0].len(),
            "prompt_tokens_per_s": prompt_tokens_per_s,
            "decode_tokens_per_s": decode_tokens_per_s,
        });
        println!("{line}");
    }
    Ok(())
}
