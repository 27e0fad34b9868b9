//! Answers that are parts of a text, with the probabilities of transformers 4.
//!
//! Each window of the text has a softmax of its own, over its tokens and the one that stands for no answer; the score of an answer
//! is the product of the probabilities of its first and its last token.

use std::path::Path;

use burn::tensor::Device;
use ft_core::{Encoded, EncoderQuestionAnswering};
use ft_data::{TextInput, TextTokens};
use serde::Serialize;

use super::{Characters, input_of};
use crate::answers::window_scores;
use crate::forward::softmax;
use crate::{Error, Result};

/// How answers are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuestionAnsweringOptions {
    /// So many answers are returned.
    pub top_k: usize,
    /// The longest answer in tokens.
    pub max_answer_len: usize,
    /// The longest window in tokens, the question included; at most what the model reads.
    pub max_seq_len: usize,
    /// So many tokens of the text are in two windows; half a window at most, and fewer where a long question leaves less room.
    pub doc_stride: usize,
    /// Whether no answer is an answer too.
    pub handle_impossible_answer: bool,
    /// Whether answers begin and end where words do.
    pub align_to_words: bool,
}

impl Default for QuestionAnsweringOptions {
    fn default() -> Self {
        Self {
            top_k: 1,
            max_answer_len: 15,
            max_seq_len: 384,
            doc_stride: 128,
            handle_impossible_answer: false,
            align_to_words: true,
        }
    }
}

/// A part of the text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExtractedAnswer {
    /// The product of two probabilities; of equal answers the sum.
    pub score: f32,
    /// The first character.
    pub start: usize,
    /// The character after the last one.
    pub end: usize,
    /// The part; empty for no answer.
    pub answer: String,
}

/// Answers to questions about texts.
#[derive(Clone, Debug)]
pub struct QuestionAnswering {
    model: EncoderQuestionAnswering,
    input: TextInput,
}

impl QuestionAnswering {
    /// Loads a folder of transformers' `*ForQuestionAnswering`.
    ///
    /// # Errors
    ///
    /// If a file is missing or malformed, or the weights do not fit.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        let model = EncoderQuestionAnswering::from_pretrained(folder, device)?;
        let dims = model.dims();
        let input = input_of(folder, dims.vocab_size, dims.max_position_embeddings)?;
        Ok(Self::new(model, input))
    }

    /// This model with this input.
    pub fn new(model: EncoderQuestionAnswering, input: TextInput) -> Self {
        Self { model, input }
    }

    /// The answers to questions, each with its text; the best first. Fewer than `top_k` if there are not so many.
    ///
    /// # Errors
    ///
    /// If a question or a text is empty, a question leaves no room for the text, an option is 0, or a score is not finite.
    pub fn answer(
        &self,
        questions: &[(&str, &str)],
        options: &QuestionAnsweringOptions,
    ) -> Result<Vec<Vec<ExtractedAnswer>>> {
        if options.top_k == 0 || options.max_answer_len == 0 {
            return Err(Error::Input(
                "top_k and max_answer_len must be 1 or more".into(),
            ));
        }
        let length = options.max_seq_len.min(self.input.max_length());
        let overlap = options.doc_stride.min(length / 2);
        let mut windows: Vec<(usize, Encoded)> = Vec::new();
        for (number, (question, context)) in questions.iter().enumerate() {
            if question.trim().is_empty() || context.trim().is_empty() {
                return Err(Error::Input(format!(
                    "question {} or its text is empty",
                    number + 1
                )));
            }
            let tokenizer = self.input.tokenizer();
            let cut = |overlap| tokenizer.encode_windows(question, Some(context), length, overlap);
            // A long question leaves windows that are too short for the overlap.
            let asked = tokenizer.encode(question, false)?.len();
            let less = (length.saturating_sub(asked) / 4).min(overlap);
            let own = cut(overlap).or_else(|_| cut(less))?;
            windows.extend(own.into_iter().map(|window| (number, window)));
        }
        let tokens = windows.iter();
        let tokens: Vec<TextTokens> = tokens.map(|(_, own)| self.input.tokens(own)).collect();
        let scores = window_scores(&self.model, &tokens, self.input.padding())?;
        let mut all: Vec<Vec<ExtractedAnswer>> = vec![Vec::new(); questions.len()];
        let mut none = vec![f32::INFINITY; questions.len()];
        for ((number, encoded), scores) in windows.iter().zip(scores) {
            let context = questions[*number].1;
            let null = add_answers(context, encoded, scores, options, &mut all[*number]);
            none[*number] = none[*number].min(null);
        }
        for (answers, &score) in all.iter_mut().zip(&none) {
            if options.handle_impossible_answer {
                answers.push(ExtractedAnswer {
                    score,
                    start: 0,
                    end: 0,
                    answer: String::new(),
                });
            }
            answers.sort_by(|a, b| b.score.total_cmp(&a.score));
            answers.truncate(options.top_k);
        }
        Ok(all)
    }
}

/// Adds the answers of a window; returns the probability that it holds none.
fn add_answers(
    context: &str,
    encoded: &Encoded,
    mut scores: [Vec<f32>; 2],
    options: &QuestionAnsweringOptions,
    answers: &mut Vec<ExtractedAnswer>,
) -> f32 {
    let own = |token: usize| encoded.sequence[token] == Some(1);
    for scores in &mut scores {
        for (token, score) in scores.iter_mut().enumerate() {
            if token > 0 && !own(token) {
                *score = -1e4;
            }
        }
        softmax(scores);
    }
    let [first, last] = scores;
    let null = first[0] * last[0];
    let mut spans: Vec<(usize, usize, f32)> = Vec::new();
    for start in (1..first.len()).filter(|&token| own(token)) {
        for end in (start..last.len().min(start + options.max_answer_len)).filter(|&end| own(end)) {
            spans.push((start, end, first[start] * last[end]));
        }
    }
    spans.sort_by(|a, b| b.2.total_cmp(&a.2));
    // Answers may become equal where they are widened to words.
    spans.truncate(match options.align_to_words {
        true => 2 * options.top_k + 10,
        false => options.top_k,
    });
    let characters = Characters::new(context);
    for (start, end, score) in spans {
        let (from, to) = match options.align_to_words {
            true => (word(encoded, start).0, word(encoded, end).1),
            false => (encoded.offsets[start].0, encoded.offsets[end].1),
        };
        let text = context.get(from..to).unwrap_or("");
        let lower = text.to_lowercase();
        let known = answers.iter_mut();
        let mut known = known.filter(|other| other.answer.to_lowercase() == lower);
        match known.next() {
            Some(other) => other.score += score,
            None => answers.push(ExtractedAnswer {
                score,
                start: characters.of(from),
                end: characters.of(to),
                answer: text.to_string(),
            }),
        }
    }
    null
}

/// The bytes of the word that a token of the text is part of.
fn word(encoded: &Encoded, token: usize) -> (usize, usize) {
    let Some(word) = encoded.words[token] else {
        return encoded.offsets[token];
    };
    let tokens = (0..encoded.len()).filter(|&other| {
        encoded.sequence[other] == encoded.sequence[token] && encoded.words[other] == Some(word)
    });
    tokens.fold(encoded.offsets[token], |(start, end), other| {
        let own = encoded.offsets[other];
        (start.min(own.0), end.max(own.1))
    })
}
