//! A teacher behind a server that gives the log-probabilities of a prompt.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ft_core::IGNORE_INDEX;
use ft_data::Tokenized;
use ft_eval::server::{KeyHeader, ServerClient, ServerOptions, in_parallel};
use serde_json::{Value, json};

use crate::top_logits::{Source, TopOfRows, write_shards};
use crate::{Error, Result, TopLogits};

/// Where completions are, behind the address of the server.
const PATH: &str = "completions";

/// A model behind a server with OpenAI's completions and vLLM's `prompt_logprobs`: the likeliest tokens of every position of a
/// prompt, by their numbers. Prompts are sent as numbers of tokens, so that the student needs the teacher's tokenizer and nothing is
/// tokenized twice.
///
/// vLLM gives at most 20 tokens a position unless it is started with `--max-logprobs`. Servers without `prompt_logprobs` are
/// refused with an error: train on their text instead.
///
/// ```no_run
/// # fn demo(rows: &[ft_data::Tokenized]) -> ft_distill::Result<()> {
/// use std::path::Path;
///
/// use ft_distill::ServerTeacher;
/// use ft_eval::server::ServerOptions;
///
/// let url = "http://localhost:8000/v1";
/// let teacher = ServerTeacher::new(url, "my-teacher", ServerOptions::default())?;
/// let top = teacher.write_top_logits(rows, 49152, 20, Path::new("top-logits"), &mut |_, _| ())?;
/// println!("{:.1}% of the probability is in other tokens", 100.0 * top.mean_rest());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ServerTeacher {
    client: ServerClient,
    model: String,
    concurrency: usize,
}

impl ServerTeacher {
    /// The model `model` of the server at `base_url` (such as `http://localhost:8000/v1`), which is asked for eight rows at a time.
    ///
    /// # Errors
    ///
    /// If the URL does not begin with `http://` or `https://`, or the variable of the key is not set.
    pub fn new(base_url: &str, model: &str, options: ServerOptions) -> Result<Self> {
        let client = ServerClient::new(base_url, KeyHeader::Bearer, options);
        Ok(Self {
            client: client.map_err(|error| Error::Teacher(error.to_string()))?,
            model: model.to_string(),
            concurrency: 8,
        })
    }

    /// The number of concurrent requests.
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.max(1);
        self
    }

    /// [`write_top_logits`](crate::write_top_logits) with the answers of the server, at a temperature of 1. `vocab_size` is that of the
    /// student's [`dims`](ft_core::CausalLm::dims).
    ///
    /// # Errors
    ///
    /// If `k` makes no sense, the folder holds the tokens of another teacher, other rows or settings, a file cannot be written, or
    /// the server does not answer, gives no `prompt_logprobs`, fewer than `k` tokens or such that are not in the vocabulary.
    pub fn write_top_logits(
        &self,
        rows: &[Tokenized],
        vocab_size: usize,
        k: usize,
        folder: &Path,
        listen: &mut dyn FnMut(usize, usize),
    ) -> Result<TopLogits> {
        let source = Source {
            k,
            temperature: 1.0,
            vocab_size,
            teacher: format!("{} {}", self.client.base_url(), self.model),
        };
        let of_rows = |rows: &[Tokenized]| {
            // After a failure no further row is asked for.
            let failed = AtomicBool::new(false);
            let of_row = |row: usize| {
                let go_on = !failed.load(Ordering::Relaxed);
                let found = go_on.then(|| self.of_row(&rows[row], k, vocab_size))?;
                failed.fetch_or(found.is_err(), Ordering::Relaxed);
                Some(found)
            };
            let found = in_parallel(rows.len(), self.concurrency, of_row, &mut |_, _| ());
            let found: Vec<TopOfRows> = found.into_iter().flatten().collect::<Result<_>>()?;
            let (mut tokens, mut logps) = (Vec::new(), Vec::new());
            for (of_tokens, of_logps) in found {
                tokens.extend(of_tokens);
                logps.extend(of_logps);
            }
            Ok((tokens, logps))
        };
        write_shards(source, rows, folder, of_rows, listen)
    }

    fn of_row(&self, row: &Tokenized, k: usize, vocab_size: usize) -> Result<TopOfRows> {
        let body = json!({
            "model": self.model,
            "prompt": row.input_ids,
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": k,
        });
        let read = |reply: &str| {
            let reply: Value = serde_json::from_str(reply)
                .map_err(|error| format!("the reply is not JSON: {error}"))?;
            Ok(read_row(&reply, row, k, vocab_size))
        };
        let found = self.client.post(PATH, &body, read);
        let wrong = |reason: String| {
            Error::Teacher(format!("{}/{PATH} gave {reason}", self.client.base_url()))
        };
        found
            .map_err(|failure| wrong(failure.to_string()))?
            .map_err(wrong)
    }
}

/// The likeliest tokens of the positions whose next token has a label.
fn read_row(
    reply: &Value,
    row: &Tokenized,
    k: usize,
    vocab_size: usize,
) -> Result<TopOfRows, String> {
    let Some(positions) = reply["choices"][0]["prompt_logprobs"].as_array() else {
        return Err(
            "no prompt_logprobs, as vLLM has them: with a server that lacks them, let it write answers (the example \
             reasoning_traces) and train on these"
                .into(),
        );
    };
    if positions.len() != row.input_ids.len() {
        return Err(format!(
            "prompt_logprobs of {} positions for a row of {} tokens",
            positions.len(),
            row.input_ids.len()
        ));
    }
    let (mut tokens, mut logps) = (Vec::new(), Vec::new());
    // The entry of a position is the distribution of its token, given those before it.
    for (place, entry) in positions.iter().enumerate().skip(1) {
        if row.labels[place] == IGNORE_INDEX {
            continue;
        }
        let mut found = read_position(entry).ok_or_else(|| {
            format!("prompt_logprobs that cannot be read at position {place}: {entry}")
        })?;
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        // The prompt's own token is given too, also if it is not among the likeliest.
        if found.len() < k {
            return Err(format!(
                "{} tokens at position {place} where {k} were asked for: start vLLM with --max-logprobs {k}, or ask for fewer",
                found.len()
            ));
        }
        if let Some((token, _)) = found
            .iter()
            .find(|(token, _)| *token as usize >= vocab_size)
        {
            return Err(format!(
                "token {token}, where the student has {vocab_size}: teacher and student need the same tokenizer"
            ));
        }
        tokens.extend(found[..k].iter().map(|(token, _)| *token as i32));
        logps.extend(found[..k].iter().map(|(_, logp)| *logp));
    }
    Ok((tokens, logps))
}

/// `{"TOKEN": {"logprob": NUMBER, ...}, ...}`.
fn read_position(entry: &Value) -> Option<Vec<(u32, f32)>> {
    let of_token = |(token, found): (&String, &Value)| {
        let logp = found["logprob"].as_f64()? as f32;
        // Rounding leaves a probability slightly above 1.
        (logp.is_finite() && logp < 1e-3).then_some((token.parse().ok()?, logp))
    };
    entry.as_object()?.iter().map(of_token).collect()
}
