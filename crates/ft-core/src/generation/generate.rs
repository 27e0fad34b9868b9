//! Prompts in, texts out: a [`Decoder`] that runs until all its rows have ended.

use std::ops::ControlFlow;

use burn::tensor::Device;

use crate::{CausalLm, Decoder, Error, GenerationConfig, Result, Tokenizer, mix_seed};

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model gave an end token.
    EndToken,
    /// A stop string appeared.
    StopString,
    /// `max_new_tokens` were generated, or the model's longest sequence was reached.
    Length,
    /// The listener of the stream asked to stop, or the row left its [`Decoder`].
    Stopped,
}

/// A generated sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The new tokens, an end token included.
    pub token_ids: Vec<u32>,
    /// Their text without special tokens and without the stop string; empty without a tokenizer.
    pub text: String,
    /// Why the sequence ended.
    pub finish_reason: FinishReason,
}

/// A token as it is generated.
#[derive(Clone, Debug)]
pub struct Streamed<'a> {
    /// Which prompt of the batch it continues.
    pub row: usize,
    /// The token.
    pub token_id: u32,
    /// Text that is new and final: whole characters, held back while it might begin a stop string.
    pub text: &'a str,
}

/// Continues every prompt.
///
/// Prompts of different lengths are padded on the left; no token sees the padding. The result of a
/// row does not depend on the other rows, beyond rounding; row `i` has the seed [`mix_seed`]`(config.seed, i)`. A tokenizer
/// is needed for texts, for stop strings and for streaming text; without it the ids are generated all the same.
///
/// `listen` gets every token as it comes and may end the whole batch with [`ControlFlow::Break`].
///
/// # Errors
///
/// If a setting makes no sense, there is no prompt or an empty one, a prompt leaves no room in the
/// model's longest sequence, a token is not in the vocabulary, or stop strings are given without a
/// tokenizer.
pub fn generate<M: CausalLm>(
    model: &M,
    tokenizer: Option<&Tokenizer>,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
    device: &Device,
    listen: &mut dyn FnMut(Streamed<'_>) -> ControlFlow<()>,
) -> Result<Vec<Generated>> {
    if prompts.is_empty() {
        return Err(Error::Settings("there is no prompt".into()));
    }
    let mut decoder = Decoder::new(model, tokenizer, device);
    let mut rows = Vec::with_capacity(prompts.len());
    let mut all = Vec::with_capacity(prompts.len());
    for (row, prompt) in prompts.iter().enumerate() {
        let seed = mix_seed(config.seed, row as u64);
        let config = config.clone();
        rows.push(decoder.join(prompt, &GenerationConfig { seed, ..config })?);
        all.push(Generated {
            token_ids: Vec::new(),
            text: String::new(),
            finish_reason: FinishReason::Stopped,
        });
    }
    let mut stop = false;
    while !stop && !decoder.is_empty() {
        for next in decoder.step()? {
            let row = next.row.0;
            let generated = &mut all[row];
            generated.token_ids.push(next.token_id);
            generated.text.push_str(&next.text);
            if let Some(reason) = next.finish_reason {
                generated.finish_reason = reason;
            }
            let streamed = Streamed {
                row,
                token_id: next.token_id,
                text: &next.text,
            };
            stop |= listen(streamed).is_break();
        }
    }
    for (row, generated) in rows.into_iter().zip(&mut all) {
        let held_back = decoder.leave(row)?;
        generated.text.push_str(&held_back.unwrap_or_default());
    }
    Ok(all)
}
