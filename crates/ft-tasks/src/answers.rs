//! Answers that are parts of a text: the training step, the n-best candidates, SQuAD's scores.
//!
//! A text that is longer than the model's inputs is read in windows. Candidates of all windows of a question compete by the sum
//! of the scores of their first and last token (Devlin et al., 2018, arXiv:1810.04805, sections 4.2 and 4.3).

use burn::tensor::{Bool, Int, Tensor, TensorData};
use ft_core::{EncoderQuestionAnswering, LossSum};
use ft_data::{AnswerExample, Loader, Questions, TextBatch, TextLayout, TextTokens};
use ft_embed::loss::cross_entropy;
use ft_eval::text::{SquadV2Scores, squad_v2};
use ft_train::{StepContext, StepOutput, StepResult};
use serde::Serialize;

use crate::forward::{finite, in_batches, inference, softmax};
use crate::{Error, Result, text_layout};

/// Questions with windows of their texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerBatch {
    /// The windows.
    pub texts: TextBatch,
    /// The first and the last token of the answer in each window, counted within the window.
    pub answers: Vec<(usize, usize)>,
}

/// Batches of examples, shuffled in every epoch if a seed is given.
///
/// # Errors
///
/// If there are no examples, or the batch size is 0.
pub fn answer_batches(
    examples: Vec<AnswerExample>,
    batch_size: usize,
    shuffle_seed: Option<u64>,
    layout: TextLayout,
) -> Result<Loader<AnswerExample, AnswerBatch>> {
    let collate = move |rows: &[&AnswerExample]| {
        let texts: Vec<&TextTokens> = rows.iter().map(|row| &row.tokens).collect();
        AnswerBatch {
            texts: layout.batch(&texts),
            answers: rows.iter().map(|row| row.answer).collect(),
        }
    };
    Ok(Loader::new(examples, batch_size, shuffle_seed, collate)?)
}

/// The step of ft-train: the mean over windows of `−(ln softmax(s)[first] + ln softmax(e)[last]) / 2`, where the softmax is over
/// the tokens of the window, padding excluded. A window without the answer has its token 0 for both.
///
/// # Errors
///
/// None; the type is that of all steps.
pub fn answer_step(
    model: &EncoderQuestionAnswering,
    batch: &AnswerBatch,
    context: &StepContext,
) -> StepResult {
    let scores = model.scores(&batch.texts.tokens(&context.device));
    let firsts = batch.answers.iter().map(|answer| answer.0 as i64).collect();
    let lasts = batch.answers.iter().map(|answer| answer.1 as i64).collect();
    let labels: [Vec<i64>; 2] = [firsts, lasts];
    let [first, last] = std::array::from_fn(|which| {
        let rows = a_row_a_text(scores[which].clone(), &batch.texts);
        cross_entropy(rows, &labels[which]).sum()
    });
    let loss = LossSum {
        sum: (first + last) / 2.0,
        count: batch.answers.len(),
    };
    Ok(StepOutput::from(loss).with_tokens(batch.texts.token_count()))
}

/// Scores of tokens, `[rows, seq]`, as `[texts, longest]`, −10⁹ where a text has ended.
fn a_row_a_text(scores: Tensor<2>, texts: &TextBatch) -> Tensor<2> {
    let device = scores.device();
    let [rows, seq] = scores.dims();
    let places = texts.places();
    let longest = places.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
    let mut tokens = Vec::with_capacity(places.len() * longest);
    let mut ended = Vec::with_capacity(places.len() * longest);
    for place in places {
        for token in 0..longest {
            let there = token < place.len();
            tokens.push((place.start + if there { token } else { 0 }) as i64);
            ended.push(!there);
        }
    }
    let shape = [places.len(), longest];
    let count = tokens.len();
    let tokens = Tensor::<1, Int>::from_data(TensorData::new(tokens, [count]), &device);
    let ended = Tensor::<2, Bool>::from_data(TensorData::new(ended, shape), &device);
    let all = scores.reshape([rows * seq]).select(0, tokens);
    all.reshape(shape).mask_fill(ended, -1e9)
}

/// The scores of the tokens of texts as the first and as the last one of an answer.
///
/// # Errors
///
/// If a score is not finite.
pub(crate) fn window_scores(
    model: &EncoderQuestionAnswering,
    texts: &[TextTokens],
    padding: u32,
) -> Result<Vec<[Vec<f32>; 2]>> {
    let (model, device) = inference(model);
    let layout = text_layout(model.attends_by_tile(), &device, padding);
    in_batches(texts, layout, |batch| {
        let [first, last] = model.scores(&batch.tokens(&device)).map(finite);
        let (first, last) = (first?, last?);
        let places = batch.places().iter();
        Ok(places
            .map(|place| [first[place.clone()].to_vec(), last[place.clone()].to_vec()])
            .collect())
    })
}

/// How answers are chosen. The default is that of transformers' example for SQuAD.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerSettings {
    /// So many first and last tokens of a window are combined, and so many candidates of a question are kept.
    pub n_best: usize,
    /// The longest answer in tokens.
    pub max_answer_tokens: usize,
    /// Whether a text may hold no answer.
    pub may_be_unanswerable: bool,
    /// There is no answer if the score of that is higher than the best other one by more than this.
    pub null_threshold: f32,
}

impl Default for AnswerSettings {
    fn default() -> Self {
        Self {
            n_best: 20,
            max_answer_tokens: 30,
            may_be_unanswerable: false,
            null_threshold: 0.0,
        }
    }
}

/// A part of a text that may be the answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// The part; empty for no answer.
    pub text: String,
    /// Its first byte.
    pub start: usize,
    /// The byte after it.
    pub end: usize,
    /// The sum of the scores of its first and last token.
    pub score: f32,
    /// The softmax of the scores of all candidates.
    pub probability: f32,
}

/// The answer to a question.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PredictedAnswer {
    /// The text; empty if there is no answer.
    pub text: String,
    /// The candidates, the best first.
    pub candidates: Vec<Candidate>,
}

impl PredictedAnswer {
    /// The probability that the text holds no answer; 0 if that is not a candidate.
    pub fn no_answer_probability(&self) -> f32 {
        let mut candidates = self.candidates.iter();
        let none = candidates.find(|candidate| candidate.text.is_empty());
        none.map_or(0.0, |candidate| candidate.probability)
    }
}

/// Answers questions. `examples` are the windows of [`Questions::tokenize`].
///
/// A question without any candidate has an empty text, where transformers' example has the text `empty`.
///
/// # Errors
///
/// If a setting is 0, or a score is not finite.
pub fn answer_questions(
    model: &EncoderQuestionAnswering,
    questions: &Questions,
    examples: &[AnswerExample],
    settings: &AnswerSettings,
    padding: u32,
) -> Result<Vec<PredictedAnswer>> {
    if settings.n_best == 0 || settings.max_answer_tokens == 0 {
        return Err(Error::Input(
            "n_best and max_answer_tokens must be 1 or more".into(),
        ));
    }
    let texts: Vec<TextTokens> = examples.iter().map(|row| row.tokens.clone()).collect();
    let scores = window_scores(model, &texts, padding)?;
    let mut windows = vec![Vec::new(); questions.rows.len()];
    for (example, scores) in examples.iter().zip(&scores) {
        windows[example.question].push((example, scores));
    }
    let answers = questions.rows.iter().zip(&windows);
    Ok(answers
        .map(|(question, windows)| best(&question.context, windows, settings))
        .collect())
}

/// The best candidates of the windows of a question.
fn best(
    context: &str,
    windows: &[(&AnswerExample, &[Vec<f32>; 2])],
    settings: &AnswerSettings,
) -> PredictedAnswer {
    let mut found: Vec<Candidate> = Vec::new();
    let mut null = f32::INFINITY;
    let candidate = |start: usize, end: usize, score: f32| Candidate {
        text: context.get(start..end).unwrap_or("").to_string(),
        start,
        end,
        score,
        probability: 0.0,
    };
    for (example, [first, last]) in windows {
        null = null.min(first[0] + last[0]);
        let highest = |scores: &[f32]| {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            order.truncate(settings.n_best);
            order
        };
        let ends = highest(last);
        for start in highest(first) {
            for &end in &ends {
                let (Some(from), Some(to)) = (example.offsets[start], example.offsets[end]) else {
                    continue;
                };
                if end >= start && end - start < settings.max_answer_tokens {
                    found.push(candidate(from.0, to.1, first[start] + last[end]));
                }
            }
        }
    }
    if settings.may_be_unanswerable && null.is_finite() {
        found.push(candidate(0, 0, null));
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let none = found.iter().position(|candidate| candidate.end == 0);
    let none = none.filter(|&place| place >= settings.n_best);
    let none = none.map(|place| found[place].clone());
    found.truncate(settings.n_best);
    found.extend(none);
    let mut probabilities: Vec<f32> = found.iter().map(|candidate| candidate.score).collect();
    softmax(&mut probabilities);
    for (candidate, probability) in found.iter_mut().zip(probabilities) {
        candidate.probability = probability;
    }
    let text = found.iter().find(|candidate| !candidate.text.is_empty());
    let text = text.filter(|best| {
        !settings.may_be_unanswerable || null - best.score <= settings.null_threshold
    });
    PredictedAnswer {
        text: text.map_or(String::new(), |best| best.text.clone()),
        candidates: found,
    }
}

/// Exact match and F1 of answers, those of SQuAD 2.0; see [`squad_v2`].
///
/// # Errors
///
/// If there are no questions, or not as many answers.
pub fn evaluate_answers(
    answers: &[PredictedAnswer],
    questions: &Questions,
) -> Result<SquadV2Scores> {
    let texts: Vec<&str> = answers.iter().map(|answer| answer.text.as_str()).collect();
    let none = answers
        .iter()
        .map(|answer| f64::from(answer.no_answer_probability()));
    let none: Vec<f64> = none.collect();
    let gold: Vec<Vec<&str>> = (questions.rows.iter())
        .map(|row| {
            row.answers
                .iter()
                .map(|answer| answer.text.as_str())
                .collect()
        })
        .collect();
    Ok(squad_v2(&texts, &gold, Some(&none), 1.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(offsets: &[Option<(usize, usize)>]) -> AnswerExample {
        AnswerExample {
            offsets: offsets.to_vec(),
            ..AnswerExample::default()
        }
    }

    /// The context is `abcdef`; the windows hold `abc` and `cdef`, behind one token of the question.
    #[test]
    fn candidates_of_all_windows_compete() {
        let one = |i| Some((i, i + 1));
        let first = window(&[None, None, one(0), one(1), one(2)]);
        let second = window(&[None, None, one(2), one(3), one(4), one(5)]);
        let scores = [
            [vec![1.0, 9.0, 2.0, 0.0, 0.0], vec![0.5, 9.0, 0.0, 1.0, 0.0]],
            [
                vec![0.0, 9.0, 0.0, 3.0, 0.0, 0.0],
                vec![1.0, 9.0, 4.0, 0.0, 0.0, 2.0],
            ],
        ];
        let windows = [(&first, &scores[0]), (&second, &scores[1])];
        let settings = AnswerSettings {
            n_best: 5,
            may_be_unanswerable: true,
            ..AnswerSettings::default()
        };
        // `def` has 3 + 2; `c` has 0 + 4 and ends where it starts; `ab` has 2 + 1; no answer has min(1.5, 1).
        let found = best("abcdef", &windows, &settings);
        assert_eq!(found.text, "def");
        let texts: Vec<(&str, f32)> = found
            .candidates
            .iter()
            .map(|candidate| (candidate.text.as_str(), candidate.score))
            .collect();
        assert_eq!(
            texts[..4],
            [("def", 5.0), ("c", 4.0), ("ab", 3.0), ("d", 3.0)]
        );
        assert_eq!(texts.last(), Some(&("", 1.0)));
        let total: f32 = found.candidates.iter().map(|c| c.probability).sum();
        assert!((total - 1.0).abs() < 1e-6);
        let strict = AnswerSettings {
            null_threshold: -4.5,
            ..settings
        };
        assert_eq!(best("abcdef", &windows, &strict).text, "");
        let short = AnswerSettings {
            max_answer_tokens: 2,
            ..settings
        };
        assert_eq!(best("abcdef", &windows, &short).text, "c");
    }

    #[test]
    fn scores_become_a_row_a_text() {
        let device = burn::tensor::Device::default();
        let texts = [vec![1, 2, 3], vec![4]].map(|ids| TextTokens {
            ids,
            ..TextTokens::default()
        });
        for layout in [TextLayout::Packed, TextLayout::Padded(0)] {
            let batch = layout.batch(&[&texts[0], &texts[1]]);
            let scores: Vec<f32> = match layout {
                TextLayout::Packed => vec![1.0, 2.0, 3.0, 4.0],
                TextLayout::Padded(_) => vec![1.0, 2.0, 3.0, 4.0, 7.0, 7.0],
            };
            let rows = scores.len() / 3;
            let shape = match layout {
                TextLayout::Packed => [1, 4],
                TextLayout::Padded(_) => [rows, 3],
            };
            let scores = Tensor::<2>::from_data(TensorData::new(scores, shape), &device);
            let found = a_row_a_text(scores, &batch).into_data();
            assert_eq!(
                found,
                TensorData::from([[1.0f32, 2.0, 3.0], [4.0, -1e9, -1e9]])
            );
        }
    }
}
