//! Samples as token ids with labels. Responses and their stop tokens are learnt.
//!
//! The whole sample is tokenized once, as it is at inference. A token has a label if at least one of
//! its bytes belongs to a response. A response begins where the template's generation prompt ends,
//! and ends with the stop token that closes the turn. The stop token is included: without it the model
//! would not learn to end its answers. Text that a template puts after the stop token, such as a
//! newline, is not learnt, since generation ends before it.

use std::ops::Range;

use ft_core::{IGNORE_INDEX, Tokenizer};

use crate::response_spans::{End, response_spans};
use crate::{Conversation, Error, Result, Sample};

/// Token ids and their labels: `labels[i]` is `input_ids[i]` if the token is learnt, else
/// [`IGNORE_INDEX`]. The labels are not shifted; the loss does that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokenized {
    /// The tokens.
    pub input_ids: Vec<u32>,
    /// A label for each token.
    pub labels: Vec<i64>,
}

impl Tokenized {
    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }

    /// How many tokens are learnt. The first never is, since no token before it predicts it.
    pub fn label_count(&self) -> usize {
        let labels = self.labels.iter().skip(1);
        labels.filter(|&&label| label != IGNORE_INDEX).count()
    }

    /// Keeps the first `max_len` tokens. Returns whether tokens were removed.
    pub fn truncate(&mut self, max_len: usize) -> bool {
        let cut = self.len() > max_len;
        self.input_ids.truncate(max_len);
        self.labels.truncate(max_len);
        cut
    }
}

/// A tokenized sample, the positions of its stop tokens, and what the template left out.
pub(crate) struct Whole {
    pub(crate) example: Tokenized,
    pub(crate) stops: Vec<usize>,
    /// For each response that is not prompted as at inference, the end of the generation prompt that is missing.
    pub(crate) missing_prompts: Vec<String>,
    /// How many responses have reasoning that is not rendered.
    pub(crate) reasoning_left_out: usize,
}

/// Tokenizes a sample, labels its responses, and keeps the first `max_len` tokens.
///
/// A conversation is rendered with the tokenizer's chat template. A prompt with a completion is plain
/// text and has no template: the two strings are joined, the tokenizer adds its special tokens (such
/// as `<s>`), and the end-of-text token is appended.
///
/// # Errors
///
/// If a conversation has no chat template or a role that is not known, if a completion has no
/// end-of-text token, or if the responses cannot be found in the rendered text.
pub fn tokenize(sample: &Sample, tokenizer: &Tokenizer, max_len: usize) -> Result<Tokenized> {
    let mut example = tokenize_whole(sample, tokenizer)?.example;
    example.truncate(max_len);
    Ok(example)
}

/// Tokenizes a sample at its full length.
pub(crate) fn tokenize_whole(sample: &Sample, tokenizer: &Tokenizer) -> Result<Whole> {
    match sample {
        Sample::Conversation(conversation) => tokenize_conversation(conversation, tokenizer),
        Sample::PromptCompletion { prompt, completion } => {
            tokenize_completion(prompt, completion, tokenizer)
        }
    }
}

fn tokenize_completion(prompt: &str, completion: &str, tokenizer: &Tokenizer) -> Result<Whole> {
    let eos = tokenizer.eos_token_id().ok_or_else(|| {
        Error::Sample(
            "the tokenizer has no eos_token, so a completion would never learn to stop: name one in \
             tokenizer_config.json"
                .to_string(),
        )
    })?;
    let text = format!("{prompt}{completion}");
    let (mut input_ids, offsets) = tokenizer.encode_with_offsets(&text, true)?;
    let mut labels = vec![IGNORE_INDEX; input_ids.len()];
    for (index, range) in byte_ranges(&offsets).into_iter().enumerate() {
        if overlap(&range, &(prompt.len()..text.len())) {
            labels[index] = i64::from(input_ids[index]);
        }
    }
    if input_ids.last() != Some(&eos) {
        input_ids.push(eos);
        labels.push(IGNORE_INDEX);
    }
    let stop = input_ids.len() - 1;
    labels[stop] = i64::from(eos);
    Ok(Whole {
        example: Tokenized { input_ids, labels },
        stops: vec![stop],
        missing_prompts: Vec::new(),
        reasoning_left_out: 0,
    })
}

fn tokenize_conversation(conversation: &Conversation, tokenizer: &Tokenizer) -> Result<Whole> {
    let (text, spans) = response_spans(conversation, tokenizer)?;
    let (input_ids, offsets) = tokenizer.encode_with_offsets(&text, false)?;
    let ranges = byte_ranges(&offsets);
    let mut labels = vec![IGNORE_INDEX; input_ids.len()];
    let mut stops = Vec::new();
    let reasoning_left_out = spans.iter().filter(|span| span.reasoning_left_out).count();
    let missing = spans.iter().filter_map(|span| span.missing_prompt.clone());
    let missing_prompts = missing.collect();
    let mut next_starts = spans
        .iter()
        .skip(1)
        .map(|span| span.start)
        .collect::<Vec<_>>();
    next_starts.push(text.len());
    for (span, next_start) in spans.into_iter().zip(next_starts) {
        let (region, stop) = match span.end {
            End::Masked => continue,
            End::At(end) => {
                let region = span.start..end;
                let stop = closing_token(&text, &input_ids, &ranges, &region, tokenizer);
                (region, stop)
            }
            End::AtFirst(id) => {
                let stop = (0..input_ids.len())
                    .find(|&i| input_ids[i] == id && ranges[i].start >= span.start)
                    .filter(|&i| ranges[i].start < next_start);
                if stop.is_none() {
                    return Err(Error::Sample(
                        "the chat template does not close an answer before the next one begins, so it \
                         is not known which tokens are the answer's: use a template that ends every \
                         turn with a token of its own"
                            .to_string(),
                    ));
                }
                (span.start..text.len(), stop)
            }
        };
        let last = stop.map_or(input_ids.len(), |stop| stop + 1);
        for index in (0..last).filter(|&index| overlap(&ranges[index], &region)) {
            labels[index] = i64::from(input_ids[index]);
        }
        stops.extend(stop);
    }
    Ok(Whole {
        example: Tokenized { input_ids, labels },
        stops,
        missing_prompts,
        reasoning_left_out,
    })
}

/// The token that closes a turn: its last special token, if that is the end-of-text token or only
/// white space follows it.
pub(crate) fn closing_token(
    text: &str,
    ids: &[u32],
    ranges: &[Range<usize>],
    region: &Range<usize>,
    tokenizer: &Tokenizer,
) -> Option<usize> {
    let last = (0..ids.len())
        .rev()
        .find(|&i| tokenizer.is_special(ids[i]) && overlap(&ranges[i], region))?;
    let after = text.get(ranges[last].end..region.end).unwrap_or_default();
    (Some(ids[last]) == tokenizer.eos_token_id() || after.trim().is_empty()).then_some(last)
}

/// The byte range of each token.
///
/// Byte-level tokenizers may leave leading white space out of a token's offsets; it belongs to the
/// token nevertheless, so a token begins where those before it ended.
pub(crate) fn byte_ranges(offsets: &[(usize, usize)]) -> Vec<Range<usize>> {
    let mut covered = 0;
    offsets
        .iter()
        .map(|&(start, end)| {
            let range = start.min(covered)..end;
            covered = covered.max(end);
            range
        })
        .collect()
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_left_out_of_offsets_belongs_to_the_token_after_it() {
        // "Hi", " you" without its space, "\n" trimmed to nothing, two tokens for one character,
        // and a token added behind the text.
        let offsets = [(0, 2), (3, 6), (7, 7), (7, 10), (7, 10), (0, 0)];
        assert_eq!(
            byte_ranges(&offsets),
            [0..2, 2..6, 6..7, 7..10, 7..10, 0..0]
        );
    }

    #[test]
    fn the_first_token_receives_no_loss() {
        let example = Tokenized {
            input_ids: vec![1, 2, 3],
            labels: vec![1, IGNORE_INDEX, 3],
        };
        assert_eq!(example.label_count(), 1);
    }
}
