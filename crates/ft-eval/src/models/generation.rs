//! Continuations of prompts up to a stop string.

use std::ops::ControlFlow;

use ft_core::{CausalLm, GenerationConfig, Tokenizer, generate};

use super::{LocalModel, of_core};
use crate::harness::GenerateUntil;
use crate::random::mix_seed;
use crate::{Error, Result};

impl<M: CausalLm> LocalModel<M> {
    /// Continues every prompt. Prompts of similar length with equal settings share a batch.
    pub(super) fn generate(
        &self,
        requests: &[GenerateUntil],
        done: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<()> {
        let mut prompts = Vec::with_capacity(requests.len());
        for (i, request) in requests.iter().enumerate() {
            prompts.push((i, self.prompt(request)?));
        }
        prompts.sort_by_key(|(_, prompt)| std::cmp::Reverse(prompt.len()));
        while let Some((first, longest)) = prompts.first() {
            let (first, longest) = (*first, longest.len());
            let settings = &requests[first];
            let width = longest + settings.max_gen_toks;
            let most = (self.batch_tokens / width).max(1);
            let mut batch = Vec::new();
            prompts.retain(|(i, prompt)| {
                let joins = batch.len() < most && alike(settings, &requests[*i]);
                if joins {
                    batch.push((*i, prompt.clone()));
                }
                !joins
            });
            let (indices, batch): (Vec<usize>, Vec<Vec<u32>>) = batch.into_iter().unzip();
            let mut config = self.config(settings);
            // Rows of different batches draw different numbers, as rows of one batch do.
            config.seed = mix_seed(settings.seed, first as u64);
            let mut go_on = |_: ft_core::Streamed<'_>| ControlFlow::Continue(());
            let tokenizer = Some(&self.tokenizer);
            let replies = generate(
                &self.model,
                tokenizer,
                &batch,
                &config,
                &self.device,
                &mut go_on,
            );
            for (i, reply) in indices.into_iter().zip(replies.map_err(of_core)?) {
                // Decoded as a whole and cut here: the text does not depend on how it was streamed.
                let text = self.tokenizer.decode(&reply.token_ids, true);
                done(i, cut(text.map_err(of_core)?, &settings.until))?;
            }
        }
        Ok(())
    }

    /// The prompt's tokens, cut on the left to leave room for the answer.
    fn prompt(&self, request: &GenerateUntil) -> Result<Vec<u32>> {
        let most = self.max_length();
        if request.max_gen_toks == 0 || request.max_gen_toks >= most {
            return Err(Error::Model(format!(
                "max_gen_toks is {}: it has to be at least 1 and less than the model's length, {most}; set it in \
                 generation_kwargs (--gen-kwargs max_gen_toks=256 of the example harness)",
                request.max_gen_toks
            )));
        }
        let bos = self.tokenizer.bos_token();
        let has_bos = bos.is_some_and(|bos| request.context.starts_with(bos));
        let prompt = self.tokenizer.encode(&request.context, !has_bos);
        let mut prompt = prompt.map_err(of_core)?;
        let room = (most - request.max_gen_toks).min(prompt.len());
        prompt.drain(..prompt.len() - room);
        if prompt.is_empty() {
            prompt.push(super::encoding::prefix_token(&self.tokenizer)?);
        }
        Ok(prompt)
    }

    fn config(&self, request: &GenerateUntil) -> GenerationConfig {
        let (special, stop_strings) = split_stops(&request.until, &self.tokenizer);
        let mut eos_token_ids = self.generation.eos_token_ids.clone();
        eos_token_ids.extend(special);
        GenerationConfig {
            max_new_tokens: request.max_gen_toks,
            temperature: request.temperature as f32,
            top_p: request.top_p as f32,
            top_k: request.top_k,
            seed: request.seed,
            eos_token_ids,
            stop_strings,
            pad_token_id: self.generation.pad_token_id,
            ..GenerationConfig::default()
        }
    }
}

/// Whether two requests differ only in the prompt.
fn alike(a: &GenerateUntil, b: &GenerateUntil) -> bool {
    let settings = |request: &GenerateUntil| {
        (
            request.max_gen_toks,
            [request.temperature, request.top_p].map(f64::to_bits),
            (request.top_k, request.seed),
        )
    };
    a.until == b.until && settings(a) == settings(b)
}

/// Stop strings that are special tokens, which do not appear in a text, and the others.
fn split_stops(until: &[String], tokenizer: &Tokenizer) -> (Vec<u32>, Vec<String>) {
    let (mut special, mut strings) = (Vec::new(), Vec::new());
    for stop in until.iter().filter(|stop| !stop.is_empty()) {
        match tokenizer.token_to_id(stop) {
            Some(id) if tokenizer.is_special(id) => special.push(id),
            _ => strings.push(stop.clone()),
        }
    }
    (special, strings)
}

/// The text before the first stop string.
fn cut(mut text: String, until: &[String]) -> String {
    let stops = until.iter().filter(|stop| !stop.is_empty());
    if let Some(at) = stops.filter_map(|stop| text.find(stop)).min() {
        text.truncate(at);
    }
    text
}
