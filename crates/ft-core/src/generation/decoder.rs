//! Generation in steps: rows join and leave between them, each with its own prompt, settings and seed.
//!
//! A step is one forward pass for all rows that run, with the newest token of each, and one for the prompts of all rows that
//! have joined since the last step, whose keys and values then become rows of the cache. Rows are aligned on the right: the
//! shorter ones have padding on the left, which no token sees, and which is cut off where all rows have it.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::generation::generate::FinishReason;
use crate::generation::row::Row;
use crate::generation::selection::{Choice, ChosenLogps, choose_tokens};
use crate::layers::with_rows;
use crate::{CausalLm, Error, GenerationConfig, KvCache, Result, TokenBatch, Tokenizer, mix_seed};

/// A row of a [`Decoder`]. No two rows of one decoder have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub(crate) usize);

/// What a step gives a row.
#[derive(Clone, Debug, PartialEq)]
pub struct NextToken {
    /// The row.
    pub row: RowId,
    /// Its next token.
    pub token_id: u32,
    /// How probable the token was; none unless [`Decoder::with_logps`] asks for it.
    pub logps: Option<ChosenLogps>,
    /// Text that is new and final: whole characters, held back while they might begin a stop string. All texts of a row
    /// together are its text, without special tokens and without the stop string. Empty without a tokenizer.
    pub text: String,
    /// Why the row ended with this token; none if it goes on.
    pub finish_reason: Option<FinishReason>,
}

/// Sequences that a model continues a token at a time.
///
/// Rows [`join`](Self::join) and [`leave`](Self::leave) between the [`step`](Self::step)s, and leave by themselves when they
/// end. What a row gets does not depend on the other rows, beyond rounding.
///
/// ```no_run
/// # fn main() -> ft_core::Result<()> {
/// # let folder = std::path::Path::new("model");
/// use burn::tensor::Device;
/// use ft_core::{AutoCausalLm, Decoder, GenerationConfig, Tokenizer};
///
/// let device = Device::default();
/// let model = AutoCausalLm::from_pretrained(folder, &device)?;
/// let tokenizer = Tokenizer::from_pretrained(folder)?;
/// let config = GenerationConfig::from_pretrained(folder, Some(&tokenizer))?;
///
/// let mut decoder = Decoder::new(&model, Some(&tokenizer), &device);
/// let first = decoder.join(&tokenizer.encode("Once upon a time", true)?, &config)?;
/// decoder.step()?;
/// // The second row joins while the first runs.
/// decoder.join(&tokenizer.encode("The end of", true)?, &config)?;
/// while !decoder.is_empty() {
///     for next in decoder.step()? {
///         println!("{}: {}", next.row == first, next.text);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Decoder<'a, M> {
    model: &'a M,
    tokenizer: Option<&'a Tokenizer>,
    device: Device,
    with_logps: bool,
    /// Rows that have a new token, in the order of the cache's rows. Those that ended stay until the next step.
    running: Vec<Row>,
    cache: KvCache,
    /// The adapters of the rows of the last pass, and the model for them.
    by_row: Option<(Vec<Option<String>>, M)>,
    /// Rows whose prompt has not been read; those of one prompt together.
    joining: Vec<Vec<Row>>,
    next_id: usize,
}

impl<'a, M: CausalLm> Decoder<'a, M> {
    /// A decoder without rows. A tokenizer is needed for texts and stop strings.
    pub fn new(model: &'a M, tokenizer: Option<&'a Tokenizer>, device: &Device) -> Self {
        Self {
            model,
            tokenizer,
            device: device.clone(),
            with_logps: false,
            running: Vec::new(),
            cache: model.new_cache(),
            by_row: None,
            joining: Vec::new(),
            next_id: 0,
        }
    }

    /// The same, with the log-probabilities of the chosen tokens.
    #[must_use]
    pub fn with_logps(self) -> Self {
        Self {
            with_logps: true,
            ..self
        }
    }

    /// A row that continues a prompt; its first token comes with the next step.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, the prompt is empty or leaves no room in the model's longest sequence, a token is not in
    /// the vocabulary, or stop strings are given without a tokenizer.
    pub fn join(&mut self, prompt: &[u32], config: &GenerationConfig) -> Result<RowId> {
        let row = self.new_row(prompt, config.clone(), self.of_model())?;
        let id = row.id;
        self.joining.push(vec![row]);
        Ok(id)
    }

    /// The same for a row that has the adapter called `adapter` and no other, or none at all. Rows with different adapters
    /// share a pass; rows that [`join`](Self::join) have the active adapter of the model.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join), and if the model has no adapter of this name, or several are active. Virtual tokens are those
    /// of all rows of a pass: a row whose adapter has some cannot join rows that have another adapter.
    pub fn join_as(
        &mut self,
        prompt: &[u32],
        config: &GenerationConfig,
        adapter: Option<&str>,
    ) -> Result<RowId> {
        let own = with_rows(self.model, &[adapter])?;
        if let [first, second, ..] = &self.active_adapters()[..] {
            return Err(Error::Settings(format!(
                "a row has one adapter, and the model has active ones called {first:?} and {second:?}: switch one off"
            )));
        }
        let of_row = OfRow {
            adapter: adapter.map(str::to_string),
            virtual_tokens: own.num_virtual_tokens(),
            longest: own.dims().max_position_embeddings,
        };
        let row = self.new_row(prompt, config.clone(), of_row)?;
        let id = row.id;
        self.joining.push(vec![row]);
        Ok(id)
    }

    /// `count` rows that continue the same prompt, which is read once. Row `i` has the seed
    /// [`mix_seed`]`(config.seed, i)`. Calls with one seed draw the same numbers, so give each prompt a seed of its own,
    /// such as `mix_seed(seed, prompt)`.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn join_many(
        &mut self,
        prompt: &[u32],
        count: usize,
        config: &GenerationConfig,
    ) -> Result<Vec<RowId>> {
        let of_model = self.of_model();
        self.check(prompt, config, of_model.longest)?;
        let rows = (0..count as u64).map(|i| {
            let seed = mix_seed(config.seed, i);
            let config = config.clone();
            self.new_row(
                prompt,
                GenerationConfig { seed, ..config },
                of_model.clone(),
            )
        });
        let rows = rows.collect::<Result<Vec<Row>>>()?;
        let ids = rows.iter().map(|row| row.id).collect();
        self.joining.push(rows);
        Ok(ids)
    }

    /// Ends a row; returns the text that was held back. None if there is no such row, or it has ended.
    ///
    /// # Errors
    ///
    /// If the tokenizer cannot decode the row.
    pub fn leave(&mut self, id: RowId) -> Result<Option<String>> {
        let joining = self.joining.iter_mut().flatten();
        let mut rows = self.running.iter_mut().chain(joining);
        let row = rows.find(|row| row.id == id && row.runs());
        let rest = row.map(|row| row.stop(self.tokenizer)).transpose();
        for rows in &mut self.joining {
            rows.retain(Row::runs);
        }
        self.free_if_idle();
        rest
    }

    /// How many rows get a token in the next step.
    pub fn len(&self) -> usize {
        let running = self.running.iter().filter(|row| row.runs()).count();
        running + self.joining.iter().map(Vec::len).sum::<usize>()
    }

    /// Whether there is no row that runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One token for every row, in the order in which the rows joined. Nothing happens without rows.
    ///
    /// Rows that joined since the last step are read as one batch, padded to the longest of their prompts. With virtual
    /// tokens only neighbours of one length are read together.
    ///
    /// # Errors
    ///
    /// If the model's logits are not numbers, or the tokenizer cannot decode a row. All rows have left then.
    pub fn step(&mut self) -> Result<Vec<NextToken>> {
        let tokens = self.decode().and_then(|mut tokens| {
            tokens.extend(self.prefill()?);
            Ok(tokens)
        });
        if tokens.is_err() {
            self.running.clear();
            self.joining.clear();
        }
        self.free_if_idle();
        tokens
    }

    /// The next token of the rows that run.
    fn decode(&mut self) -> Result<Vec<NextToken>> {
        self.drop_ended();
        if self.running.is_empty() {
            return Ok(Vec::new());
        }
        let batch = newest_tokens(&self.running, self.cache.len(), &self.device);
        let adapters = self.running.iter().map(|row| row.adapter.clone()).collect();
        let mut cache = std::mem::replace(&mut self.cache, KvCache::new(0));
        let logits = last_logits(self.model_for(adapters)?, &batch, &mut cache);
        self.cache = cache;
        push_tokens(logits, &mut self.running, self.tokenizer, self.with_logps)
    }

    /// The first token of the rows that join.
    fn prefill(&mut self) -> Result<Vec<NextToken>> {
        self.joining.retain(|rows| !rows.is_empty());
        let mut prompts = std::mem::take(&mut self.joining);
        let mut tokens = Vec::new();
        while !prompts.is_empty() {
            let rest = prompts.split_off(self.batch_size(&prompts));
            tokens.extend(self.read(prompts)?);
            prompts = rest;
        }
        Ok(tokens)
    }

    /// How many of the first prompts are read as one batch: all; with virtual tokens, which stand between the padding of
    /// a row and its prompt, those that need no padding.
    fn batch_size(&self, prompts: &[Vec<Row>]) -> usize {
        // All rows have the same virtual tokens, or none has any.
        if prompts.iter().flatten().all(|row| row.virtual_tokens == 0) {
            return prompts.len();
        }
        let len = |rows: &[Row]| rows[0].seen.len();
        let same = prompts
            .iter()
            .take_while(|rows| len(rows) == len(&prompts[0]));
        same.count()
    }

    /// Reads prompts as one batch, whose rows run then; returns their first tokens.
    fn read(&mut self, prompts: Vec<Vec<Row>>) -> Result<Vec<NextToken>> {
        let firsts: Vec<&Row> = prompts.iter().map(|rows| &rows[0]).collect();
        let vocab = self.model.dims().vocab_size;
        let batch = prompt_batch(&firsts, vocab, &self.device);
        let mut cache = self.model.new_cache();
        let adapters = firsts.iter().map(|row| row.adapter.clone()).collect();
        let mut logits = last_logits(self.model_for(adapters)?, &batch, &mut cache);
        if prompts.iter().any(|rows| rows.len() > 1) {
            let of_prompt = prompts.iter().enumerate();
            let of_prompt: Vec<usize> = of_prompt
                .flat_map(|(i, rows)| std::iter::repeat_n(i, rows.len()))
                .collect();
            cache.select_rows(&of_prompt);
            let of_prompt: Vec<i64> = of_prompt.into_iter().map(|i| i as i64).collect();
            logits = logits.select(0, Tensor::from_data(of_prompt.as_slice(), &self.device));
        }
        let mut rows: Vec<Row> = prompts.into_iter().flatten().collect();
        let tokens = push_tokens(logits, &mut rows, self.tokenizer, self.with_logps)?;
        self.cache.append_rows(cache);
        self.running.extend(rows);
        Ok(tokens)
    }

    /// The model for a batch whose rows have these adapters.
    fn model_for(&mut self, adapters: Vec<Option<String>>) -> Result<&M> {
        let active = self.active_adapters();
        if adapters
            .iter()
            .all(|adapter| adapter.as_ref() == active.first())
        {
            return Ok(self.model);
        }
        if self.by_row.as_ref().is_none_or(|(of, _)| *of != adapters) {
            let names: Vec<Option<&str>> = adapters.iter().map(Option::as_deref).collect();
            let model = with_rows(self.model, &names)?;
            self.by_row = Some((adapters, model));
        }
        Ok(self.by_row.as_ref().map_or(self.model, |(_, model)| model))
    }

    /// The names of the model's active adapters.
    fn active_adapters(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.model.for_each_part(&mut |_, part| {
            for adapter in part.adapters().active() {
                if !names.contains(&adapter.name) {
                    names.push(adapter.name.clone());
                }
            }
        });
        names
    }

    /// Frees all room if no row runs.
    fn free_if_idle(&mut self) {
        if !self.running.iter().any(Row::runs) {
            self.running.clear();
            self.cache = self.model.new_cache();
        }
    }

    /// Frees the room of rows that ended; some run.
    fn drop_ended(&mut self) {
        let running = self.running.iter().enumerate();
        let kept: Vec<usize> = running
            .filter_map(|(i, row)| row.runs().then_some(i))
            .collect();
        if kept.len() == self.running.len() {
            return;
        }
        self.running.retain(Row::runs);
        let lengths: Vec<usize> = self.running.iter().map(Row::cached).collect();
        self.cache.select_rows(&kept);
        self.cache.trim_padding(&lengths);
    }

    /// A row of the model as it is.
    fn of_model(&self) -> OfRow {
        OfRow {
            adapter: self.active_adapters().into_iter().next(),
            virtual_tokens: self.model.num_virtual_tokens(),
            longest: self.model.dims().max_position_embeddings,
        }
    }

    fn new_row(&mut self, prompt: &[u32], config: GenerationConfig, of: OfRow) -> Result<Row> {
        self.check(prompt, &config, of.longest)?;
        self.check_together(&of)?;
        let id = RowId(self.next_id);
        self.next_id += 1;
        let mut row = Row::new(id, prompt, of.longest, config, self.tokenizer)?;
        row.adapter = of.adapter;
        row.virtual_tokens = of.virtual_tokens;
        Ok(row)
    }

    /// Checks that the row can share passes with those that run or join.
    fn check_together(&self, new: &OfRow) -> Result<()> {
        let running = self.running.iter().filter(|row| row.runs());
        let mut rows = running.chain(self.joining.iter().flatten());
        let other = rows.find(|row| {
            row.adapter != new.adapter && (row.virtual_tokens > 0 || new.virtual_tokens > 0)
        });
        let Some(other) = other else {
            return Ok(());
        };
        let name = |adapter: &Option<String>| match adapter {
            Some(name) => format!("adapter {name:?}"),
            None => "no adapter".to_string(),
        };
        Err(Error::Settings(format!(
            "a row with {} cannot join one with {}: virtual tokens are those of all rows of a pass. Let the others end \
             first, or give it a decoder of its own",
            name(&new.adapter),
            name(&other.adapter)
        )))
    }

    fn check(&self, prompt: &[u32], config: &GenerationConfig, most: usize) -> Result<()> {
        config.validate()?;
        let vocab = self.model.dims().vocab_size;
        let mistake = if prompt.is_empty() {
            "a prompt must hold at least one token".to_string()
        } else if prompt.len() >= most {
            format!(
                "a prompt of {} tokens leaves no room: the model's max_position_embeddings is {most}",
                prompt.len()
            )
        } else if let Some(id) = prompt.iter().find(|id| **id as usize >= vocab) {
            format!(
                "token {id} is not in the model's vocabulary of {vocab}: is the tokenizer that of \
                 another model?"
            )
        } else if self.tokenizer.is_none() && !config.stop_strings.is_empty() {
            "stop strings need a tokenizer".to_string()
        } else {
            return Ok(());
        };
        Err(Error::Settings(mistake))
    }
}

/// What a row has of its adapter.
#[derive(Clone, Debug)]
struct OfRow {
    adapter: Option<String>,
    virtual_tokens: usize,
    /// How long it may become.
    longest: usize,
}

/// The logits of the last token of every row, `[rows, vocab]`.
fn last_logits<M: CausalLm>(model: &M, tokens: &TokenBatch, cache: &mut KvCache) -> Tensor<2> {
    let hidden = model.hidden_states(tokens, Some(cache));
    let seq = hidden.dims()[1];
    let last = hidden.narrow(1, seq - 1, 1);
    model.head().forward(last).squeeze_dim(1)
}

/// Chooses a token for every row and gives it to the row.
fn push_tokens(
    logits: Tensor<2>,
    rows: &mut [Row],
    tokenizer: Option<&Tokenizer>,
    with_logps: bool,
) -> Result<Vec<NextToken>> {
    let mut choices: Vec<Choice<'_>> = rows.iter_mut().map(Row::choice).collect();
    let chosen = choose_tokens(logits, &mut choices, with_logps)?;
    let next = rows.iter_mut().zip(chosen).map(|(row, (token_id, logps))| {
        let text = row.push(token_id, tokenizer)?;
        Ok(NextToken {
            row: row.id,
            token_id,
            logps,
            text,
            finish_reason: row.finish_reason,
        })
    });
    next.collect()
}

/// Prompts, padded on the left.
fn prompt_batch(rows: &[&Row], vocab: usize, device: &Device) -> TokenBatch {
    let longest = rows.iter().map(|row| row.seen.len()).max().unwrap_or(0);
    let padded = rows.iter().any(|row| row.seen.len() < longest);
    let (mut ids, mut positions, mut segments) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let len = row.seen.len();
        let padding = longest - len;
        ids.extend(std::iter::repeat_n(i64::from(row.pad(vocab)), padding));
        ids.extend(row.seen.iter().map(|&id| i64::from(id)));
        positions.extend(std::iter::repeat_n(0, padding));
        positions.extend(0..len as i64);
        segments.extend(std::iter::repeat_n(0, padding));
        segments.extend(std::iter::repeat_n(1, len));
    }
    let tensor = |values: Vec<i64>| {
        Tensor::<2, Int>::from_data(TensorData::new(values, [rows.len(), longest]), device)
    };
    TokenBatch {
        input_ids: tensor(ids),
        position_ids: padded.then(|| tensor(positions)),
        segment_ids: padded.then(|| tensor(segments)),
        token_type_ids: None,
    }
}

/// The newest token of every row, after a cache of `len` tokens.
fn newest_tokens(rows: &[Row], len: usize, device: &Device) -> TokenBatch {
    let column = |value: fn(&Row) -> i64| {
        let values: Vec<i64> = rows.iter().map(value).collect();
        Tensor::<2, Int>::from_data(TensorData::new(values, [rows.len(), 1]), device)
    };
    let padded = rows.iter().any(|row| row.cached() != len);
    TokenBatch {
        input_ids: column(|row| i64::from(row.newest())),
        position_ids: padded.then(|| column(|row| row.cached() as i64)),
        segment_ids: None,
        token_type_ids: None,
    }
}
