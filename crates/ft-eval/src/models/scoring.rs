//! Log-probabilities of continuations.
//!
//! A batch of contexts is read into a key-value cache, padded on the left. The hidden state of their last
//! token scores the first token of every continuation. The other tokens are read after a copy of
//! the context's cache, padded on the right, and score what follows them.

use burn::tensor::{Int, Tensor, TensorData};
use ft_core::{CausalLm, Error as CoreError, KvCache, TokenBatch, TokenScore, score_tokens};

use super::plan::{Asked, Context, Group, plan};
use super::{LocalModel, of_core};
use crate::harness::LogLikelihood;
use crate::{Error, Result};

/// A request: the tokens of a context, at least one, and of its continuation, at least one.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) context: Vec<u32>,
    pub(super) continuation: Vec<u32>,
}

impl<M: CausalLm> LocalModel<M> {
    /// Scores every pair. The answers arrive batch by batch, by the index of the pair. Contexts that are too long for the model
    /// are cut on the left.
    pub(super) fn score(
        &self,
        pairs: Vec<Pair>,
        done: &mut dyn FnMut(usize, LogLikelihood) -> Result<()>,
    ) -> Result<()> {
        let most = self.max_length();
        let mut requests = Vec::with_capacity(pairs.len());
        for (i, pair) in pairs.into_iter().enumerate() {
            let (mut context, continuation) = (pair.context, pair.continuation);
            if continuation.len() > most {
                return Err(Error::Model(format!(
                    "a continuation of {} tokens is longer than the model's {most}: leave the document out",
                    continuation.len()
                )));
            }
            // The last token is scored, not read.
            let room = (most + 1 - continuation.len()).min(context.len());
            context.drain(..context.len() - room);
            requests.push((i, context, continuation));
        }
        for group in plan(requests, self.batch_tokens) {
            self.score_group(group, done)?;
        }
        Ok(())
    }

    fn score_group(
        &self,
        group: Group,
        done: &mut dyn FnMut(usize, LogLikelihood) -> Result<()>,
    ) -> Result<()> {
        let mut prefix = self.model.new_cache();
        if !group.prefix.is_empty() {
            let tokens = TokenBatch::from_ids(&group.prefix, &self.device);
            self.model.hidden_states(&tokens, Some(&mut prefix));
        }
        for batch in group.batches {
            for (request, score) in self.score_batch(prefix.clone(), batch)? {
                if score.logp.is_nan() {
                    return Err(of_core(CoreError::Settings(
                        "the model's log-probabilities are not numbers (NaN): its weights or its config.json are \
                         damaged"
                            .into(),
                    )));
                }
                done(request, score)?;
            }
        }
        Ok(())
    }

    /// The answers to all continuations of the contexts, which follow the content of the cache.
    fn score_batch(
        &self,
        mut cache: KvCache,
        contexts: Vec<Context>,
    ) -> Result<Vec<(usize, LogLikelihood)>> {
        let past = cache.len();
        cache.select_rows(&vec![0; contexts.len()]);
        let hidden =
            (self.model).hidden_states(&self.left_padded(&contexts, past), Some(&mut cache));
        let [rows, longest, width] = hidden.dims();
        let last = hidden.narrow(1, longest - 1, 1).reshape([rows, width]);

        // Their first tokens.
        let lens: Vec<usize> = (contexts.iter().map(|c| past + c.tokens.len())).collect();
        let mut asked: Vec<(usize, Asked)> = (contexts.into_iter().enumerate())
            .flat_map(|(row, context)| context.asked.into_iter().map(move |asked| (row, asked)))
            .collect();
        let first = |(row, asked): &(usize, Asked)| (*row, asked.tokens[0]);
        let scores = self.score_at(last, asked.iter().map(first).collect())?;
        let mut answers: Vec<(usize, LogLikelihood)> = (asked.iter().zip(scores))
            .map(|((_, asked), score)| (asked.request, add(NOTHING, score)))
            .collect();

        // The others, continuations of similar length at once.
        let mut longer: Vec<(usize, usize, Vec<u32>)> = Vec::new();
        for (i, (row, asked)) in asked.drain(..).enumerate() {
            if asked.tokens.len() > 1 {
                longer.push((i, row, asked.tokens));
            }
        }
        longer.sort_by_key(|(_, _, tokens)| std::cmp::Reverse(tokens.len()));
        let mut rest = &longer[..];
        while let Some((_, _, tokens)) = rest.first() {
            let longest = tokens.len() - 1;
            let rows = (self.batch_tokens / longest).clamp(1, rest.len());
            let (now, later) = rest.split_at(rows);
            rest = later;
            let mut cache = cache.clone();
            cache.select_rows(&now.iter().map(|(_, row, _)| *row).collect::<Vec<_>>());
            let tokens = self.right_padded(now, &lens);
            let hidden = self.model.hidden_states(&tokens, Some(&mut cache));
            let hidden = hidden.reshape([rows * longest, width]);
            let targets = now.iter().enumerate().flat_map(|(row, (_, _, tokens))| {
                let targets = tokens[1..].iter().enumerate();
                targets.map(move |(at, target)| (row * longest + at, *target))
            });
            let mut scores = self.score_at(hidden, targets.collect())?.into_iter();
            for (i, _, tokens) in now {
                let answer = &mut answers[*i].1;
                *answer = scores.by_ref().take(tokens.len() - 1).fold(*answer, add);
            }
        }
        Ok(answers)
    }

    /// The scores of tokens after rows of `[rows, width]`.
    fn score_at(&self, hidden: Tensor<2>, targets: Vec<(usize, u32)>) -> Result<Vec<TokenScore>> {
        let (rows, ids): (Vec<i64>, Vec<i64>) = (targets.into_iter())
            .map(|(row, id)| (row as i64, i64::from(id)))
            .unzip();
        let vocab = self.model.dims().vocab_size as i64;
        if let Some(id) = ids.iter().find(|id| **id >= vocab) {
            return Err(Error::Model(format!(
                "token {id} is not in the model's vocabulary of {vocab}"
            )));
        }
        let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &self.device);
        Ok(score_tokens(
            hidden.select(0, rows),
            self.model.head(),
            &ids,
        ))
    }

    fn left_padded(&self, contexts: &[Context], past: usize) -> TokenBatch {
        let longest = contexts.iter().map(|c| c.tokens.len()).max().unwrap_or(0);
        let padded = contexts.iter().any(|c| c.tokens.len() < longest);
        let (mut ids, mut positions, mut segments) = (Vec::new(), Vec::new(), Vec::new());
        for Context { tokens, .. } in contexts {
            let padding = longest - tokens.len();
            ids.extend(std::iter::repeat_n(0, padding));
            ids.extend(tokens.iter().map(|id| i64::from(*id)));
            positions.extend(std::iter::repeat_n(0, padding));
            positions.extend(past as i64..(past + tokens.len()) as i64);
            segments.extend(std::iter::repeat_n(0, padding));
            segments.extend(std::iter::repeat_n(1, tokens.len()));
        }
        let tensor = |values| self.matrix(values, longest);
        TokenBatch {
            input_ids: tensor(ids),
            position_ids: padded.then(|| tensor(positions)),
            segment_ids: padded.then(|| tensor(segments)),
            token_type_ids: None,
        }
    }

    /// All tokens but the last of continuations `(_, row, tokens)`, of which the first is the longest, after
    /// contexts of `lens` tokens. Padding comes after all tokens that count, so they do not attend to it.
    fn right_padded(
        &self,
        continuations: &[(usize, usize, Vec<u32>)],
        lens: &[usize],
    ) -> TokenBatch {
        let longest = continuations[0].2.len() - 1;
        let last_position = self.max_length() - 1;
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        for (_, row, tokens) in continuations {
            let read = &tokens[..tokens.len() - 1];
            ids.extend(read.iter().map(|id| i64::from(*id)));
            ids.extend(std::iter::repeat_n(0, longest - read.len()));
            let start = lens[*row];
            positions.extend((start..start + longest).map(|at| at.min(last_position) as i64));
        }
        TokenBatch {
            input_ids: self.matrix(ids, longest),
            position_ids: Some(self.matrix(positions, longest)),
            segment_ids: None,
            token_type_ids: None,
        }
    }

    /// Rows of `width` numbers.
    fn matrix(&self, values: Vec<i64>, width: usize) -> Tensor<2, Int> {
        let rows = values.len() / width;
        Tensor::from_data(TensorData::new(values, [rows, width]), &self.device)
    }
}

/// The score of no tokens: probability 1.
const NOTHING: LogLikelihood = LogLikelihood {
    logp: 0.0,
    is_greedy: true,
};

fn add(answer: LogLikelihood, score: TokenScore) -> LogLikelihood {
    LogLikelihood {
        logp: answer.logp + f64::from(score.logp),
        is_greedy: answer.is_greedy && score.is_greedy,
    }
}
