//! Decoding with a key-value cache, one sequence or a left-padded batch.

use std::ops::ControlFlow;

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::generation::row_text::RowText;
use crate::generation::sampling::next_token;
use crate::{CausalLm, Error, GenerationConfig, Result, TokenBatch, Tokenizer};

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model gave an end token.
    EndToken,
    /// A stop string appeared.
    StopString,
    /// `max_new_tokens` were generated, or the model's longest sequence was reached.
    Length,
    /// The listener of the stream asked to stop.
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
/// row does not depend on the other rows, beyond rounding. A tokenizer is needed for texts, for
/// stop strings and for streaming text; without it the ids are generated all the same.
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
    config.validate()?;
    check_prompts(model, tokenizer, prompts, config)?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let most = model.dims().max_position_embeddings;
    // Padding is never seen, so any token of the vocabulary will do.
    let vocab = model.dims().vocab_size;
    let pad = Some(config.pad_token_id).filter(|&pad| (pad as usize) < vocab);
    let mut cache = model.new_cache();
    let mut rows: Vec<Row> = prompts
        .iter()
        .map(|prompt| {
            let most_new = config.max_new_tokens.min(most - prompt.len());
            Row::new(prompt, most_new, tokenizer, config)
        })
        .collect::<Result<_>>()?;
    // Rows of the batch that still run, by their index in `rows`.
    let mut running: Vec<usize> = (0..rows.len()).collect();
    let mut rngs: Vec<StdRng> = (0..rows.len())
        .map(|row| StdRng::seed_from_u64(config.seed.wrapping_add(row as u64)))
        .collect();
    let padded = prompts.iter().any(|prompt| prompt.len() < longest);
    let mut tokens = prompt_batch(prompts, longest, padded, pad.unwrap_or(0), device);
    loop {
        let hidden = model.hidden_states(&tokens, Some(&mut cache));
        let [count, seq, _] = hidden.dims();
        let last = hidden.narrow(1, seq - 1, 1);
        let logits = model.head().forward(last).into_data().convert::<f32>();
        let vocab = logits.num_elements() / count;
        let mut logits = logits
            .try_into_vec::<f32>()
            .map_err(|e| Error::Settings(format!("logits cannot be read: {e:?}")))?;
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(Error::Settings(
                "the model's logits are not numbers (NaN): its weights or its config.json are damaged"
                    .into(),
            ));
        }
        let mut stop = false;
        for (logits, &row) in logits.chunks_exact_mut(vocab).zip(&running) {
            let state = &mut rows[row];
            let token = next_token(logits, &state.seen, config, &mut rngs[row]);
            let fresh = state.push(token, tokenizer, config)?;
            let streamed = Streamed {
                row,
                token_id: token,
                text: &fresh,
            };
            stop |= listen(streamed).is_break();
        }
        let finished = |row: &usize| rows[*row].finish.is_some();
        if stop || running.iter().all(finished) {
            for row in rows.iter_mut().filter(|row| row.finish.is_none()) {
                row.finish = Some(FinishReason::Stopped);
            }
            break;
        }
        if running.iter().any(finished) {
            let kept: Vec<usize> = (0..running.len())
                .filter(|&i| !finished(&running[i]))
                .collect();
            cache.select_rows(&kept);
            running = kept.into_iter().map(|i| running[i]).collect();
        }
        tokens = next_batch(&rows, &running, padded, device);
    }
    rows.into_iter().map(|row| row.finish(tokenizer)).collect()
}

fn check_prompts<M: CausalLm>(
    model: &M,
    tokenizer: Option<&Tokenizer>,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
) -> Result<()> {
    let most = model.dims().max_position_embeddings;
    let vocab = model.dims().vocab_size;
    if prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
        return Err(Error::Settings(
            "a prompt must hold at least one token".into(),
        ));
    }
    if let Some(long) = prompts.iter().map(Vec::len).find(|len| *len >= most) {
        return Err(Error::Settings(format!(
            "a prompt of {long} tokens leaves no room: the model's max_position_embeddings is {most}"
        )));
    }
    if let Some(id) = prompts.iter().flatten().find(|id| **id as usize >= vocab) {
        return Err(Error::Settings(format!(
            "token {id} is not in the model's vocabulary of {vocab}: is the tokenizer that of \
             another model?"
        )));
    }
    if tokenizer.is_none() && !config.stop_strings.is_empty() {
        return Err(Error::Settings("stop strings need a tokenizer".into()));
    }
    Ok(())
}

fn prompt_batch(
    prompts: &[Vec<u32>],
    longest: usize,
    padded: bool,
    pad: u32,
    device: &Device,
) -> TokenBatch {
    let (mut ids, mut positions, mut segments) = (Vec::new(), Vec::new(), Vec::new());
    for prompt in prompts {
        let padding = longest - prompt.len();
        ids.extend(std::iter::repeat_n(i64::from(pad), padding));
        ids.extend(prompt.iter().map(|&id| i64::from(id)));
        positions.extend(std::iter::repeat_n(0, padding));
        positions.extend(0..prompt.len() as i64);
        segments.extend(std::iter::repeat_n(0, padding));
        segments.extend(std::iter::repeat_n(1, prompt.len()));
    }
    let tensor = |values: Vec<i64>| {
        Tensor::<2, Int>::from_data(TensorData::new(values, [prompts.len(), longest]), device)
    };
    TokenBatch {
        input_ids: tensor(ids),
        position_ids: padded.then(|| tensor(positions)),
        segment_ids: padded.then(|| tensor(segments)),
        token_type_ids: None,
    }
}

/// The newest token of every running row.
fn next_batch(rows: &[Row], running: &[usize], padded: bool, device: &Device) -> TokenBatch {
    let column = |value: &dyn Fn(&Row) -> i64| {
        let values: Vec<i64> = running.iter().map(|&row| value(&rows[row])).collect();
        Tensor::<2, Int>::from_data(TensorData::new(values, [running.len(), 1]), device)
    };
    TokenBatch {
        input_ids: column(&|row| row.seen.last().map_or(0, |&id| i64::from(id))),
        position_ids: padded.then(|| column(&|row| row.seen.len() as i64 - 1)),
        segment_ids: None,
        token_type_ids: None,
    }
}

/// One sequence while it is generated.
struct Row {
    /// Prompt and new tokens.
    seen: Vec<u32>,
    prompt_len: usize,
    /// How many new tokens it may have.
    most_new: usize,
    text: Option<RowText>,
    shown: String,
    finish: Option<FinishReason>,
}

impl Row {
    fn new(
        prompt: &[u32],
        most_new: usize,
        tokenizer: Option<&Tokenizer>,
        config: &GenerationConfig,
    ) -> Result<Self> {
        let text = tokenizer.map(|tokenizer| RowText::new(&config.stop_strings, tokenizer));
        Ok(Self {
            seen: prompt.to_vec(),
            prompt_len: prompt.len(),
            most_new,
            text: text.transpose()?,
            shown: String::new(),
            finish: None,
        })
    }

    /// Takes the next token and returns the text that is now new and final.
    fn push(
        &mut self,
        token: u32,
        tokenizer: Option<&Tokenizer>,
        config: &GenerationConfig,
    ) -> Result<String> {
        self.seen.push(token);
        if config.eos_token_ids.contains(&token) {
            self.finish = Some(FinishReason::EndToken);
        } else if self.seen.len() - self.prompt_len >= self.most_new {
            self.finish = Some(FinishReason::Length);
        }
        let (Some(tokenizer), Some(text)) = (tokenizer, &mut self.text) else {
            return Ok(String::new());
        };
        let (fresh, stopped) = text.push(token, self.finish.is_some(), tokenizer)?;
        if stopped {
            self.finish = Some(FinishReason::StopString);
        }
        self.shown.push_str(&fresh);
        Ok(fresh)
    }

    fn finish(mut self, tokenizer: Option<&Tokenizer>) -> Result<Generated> {
        let finish_reason = self.finish.unwrap_or(FinishReason::Length);
        if finish_reason == FinishReason::Stopped
            && let (Some(tokenizer), Some(text)) = (tokenizer, &mut self.text)
        {
            self.shown.push_str(&text.rest(tokenizer)?);
        }
        Ok(Generated {
            token_ids: self.seen[self.prompt_len..].to_vec(),
            text: self.shown,
            finish_reason,
        })
    }
}
