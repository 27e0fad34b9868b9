//! Decoding with a key-value cache, one sequence or a left-padded batch.

use std::ops::ControlFlow;

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::SeedableRng;
use rand::rngs::StdRng;

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
        .map(|prompt| Row::new(prompt, config.max_new_tokens.min(most - prompt.len())))
        .collect();
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
    /// Text of the new tokens so far, as far as it is final.
    text: String,
    /// How much of the text the listener has got.
    streamed: usize,
    /// New tokens whose text is final, and how many it was before the last of them: both are ends of
    /// whole characters.
    decoded: usize,
    decoded_before: usize,
    finish: Option<FinishReason>,
}

impl Row {
    fn new(prompt: &[u32], most_new: usize) -> Self {
        Self {
            seen: prompt.to_vec(),
            prompt_len: prompt.len(),
            most_new,
            text: String::new(),
            streamed: 0,
            decoded: 0,
            decoded_before: 0,
            finish: None,
        }
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
        let Some(tokenizer) = tokenizer else {
            return Ok(String::new());
        };
        // A window from where the last piece of text began, so that decoders which look at a
        // neighbour (a leading space) see it, and that never begins within a character of several
        // tokens.
        let new = &self.seen[self.prompt_len..];
        let before = tokenizer.decode(&new[self.decoded_before..self.decoded], true)?;
        let after = tokenizer.decode(&new[self.decoded_before..], true)?;
        let whole = !after.ends_with('\u{fffd}') || self.finish.is_some();
        if whole && let Some(fresh) = after.strip_prefix(&before) {
            self.text.push_str(fresh);
            self.decoded_before = self.decoded;
            self.decoded = new.len();
        }
        if let Some(at) = config
            .stop_strings
            .iter()
            .filter_map(|stop| self.text.find(stop))
            .min()
        {
            self.text.truncate(at);
            self.finish = Some(FinishReason::StopString);
        }
        let held = if self.finish.is_some() {
            0
        } else {
            held_back(&self.text, &config.stop_strings)
        };
        let end = (self.text.len() - held).max(self.streamed);
        let fresh = self.text.get(self.streamed..end).unwrap_or("").to_string();
        self.streamed += fresh.len();
        Ok(fresh)
    }

    fn finish(self, tokenizer: Option<&Tokenizer>) -> Result<Generated> {
        let finish_reason = self.finish.unwrap_or(FinishReason::Length);
        let token_ids = self.seen[self.prompt_len..].to_vec();
        let text = match (tokenizer, finish_reason) {
            (Some(_), FinishReason::StopString) | (None, _) => self.text,
            (Some(tokenizer), _) => tokenizer.decode(&token_ids, true)?,
        };
        Ok(Generated {
            token_ids,
            text,
            finish_reason,
        })
    }
}

/// Length of the longest end of `text` that begins one of `stops`.
fn held_back(text: &str, stops: &[String]) -> usize {
    let begins = |len: &usize| {
        text.is_char_boundary(text.len() - len)
            && stops
                .iter()
                .any(|stop| stop.starts_with(&text[text.len() - len..]))
    };
    let most = stops.iter().map(String::len).max().unwrap_or(0);
    (1..=most.min(text.len())).rev().find(begins).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::{Row, held_back};
    use crate::{GenerationConfig, Tokenizer};

    /// As in Llama 2: characters outside the vocabulary are bytes, a token each.
    #[test]
    fn characters_of_several_byte_tokens_come_whole() {
        let mut vocab: Map<String, Value> = (0..256)
            .map(|byte| (format!("<0x{byte:02X}>"), json!(byte)))
            .collect();
        vocab.insert("a".into(), json!(256));
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null,
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true,
                "unk_token": null, "dropout": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "ignore_merges": false},
        });
        let folder = tempfile::TempDir::new().expect("temporary folder");
        std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).expect("writes");
        let tokenizer = Tokenizer::from_pretrained(folder.path()).expect("loads");

        let text = "🦀🦀🦀🦀🦀a";
        let tokens: Vec<u32> = "🦀🦀🦀🦀🦀".bytes().map(u32::from).chain([256]).collect();
        let mut row = Row::new(&[256], tokens.len());
        let config = GenerationConfig::default();
        let pieces: Vec<String> = tokens
            .iter()
            .map(|&token| row.push(token, Some(&tokenizer), &config).expect("decodes"))
            .filter(|piece| !piece.is_empty())
            .collect();
        assert_eq!(pieces, ["🦀", "🦀", "🦀", "🦀", "🦀", "a"]);
        assert_eq!(row.finish(Some(&tokenizer)).expect("decodes").text, text);
    }

    #[test]
    fn text_that_may_begin_a_stop_string_is_held_back() {
        let stops = ["</end>".to_string(), "\n\n".to_string()];
        assert_eq!(held_back("so far", &stops), 0);
        assert_eq!(held_back("so far</e", &stops), 3);
        assert_eq!(held_back("line\n", &stops), 1);
        assert_eq!(held_back("ü", &stops), 0);
    }
}
