//! Scores of SQuAD 1.1 and 2.0, from 0 to 100, as in the official scripts and in `squad` and `squad_v2` of `evaluate`.
//!
//! Rajpurkar et al., EMNLP 2016 (1.1); Rajpurkar, Jia and Liang, "Know what you don't know: unanswerable
//! questions for SQuAD", ACL 2018 (2.0). Predictions and gold answers are two lists in the same order, where the scripts
//! match them by question id. Therefore no prediction can be missing (1.1 counts a missing one as 0, 2.0 ignores it or
//! fails). `evaluate` rounds probabilities of no answer to 32 bits before it compares and returns them; here they are not
//! rounded.

use serde::Serialize;

use super::token_f1::{normalize_answer, normalized_f1};
use crate::{Error, Result};

/// Scores of SQuAD 1.1, from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SquadScores {
    /// Predictions that equal a gold answer after [`normalize_answer`].
    pub exact_match: f64,
    /// Mean of the highest [`token_f1`](super::token_f1) over the gold answers.
    pub f1: f64,
}

/// SQuAD 1.1: exact match and F1, each the best over a question's gold answers.
///
/// # Errors
/// No predictions; another number of predictions than of lists of answers; a question without answers,
/// which is one for [`squad_v2`].
///
/// ```
/// use ft_eval::text::squad;
///
/// let scores = squad(&["the cat", "a big dog"], &[["Cat!"], ["dog"]])?;
/// assert_eq!(scores.exact_match, 50.0);
/// // 1 and 2/3
/// assert!((scores.f1 - 250.0 / 3.0).abs() < 1e-9);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn squad<P, R, S>(predictions: &[P], answers: &[R]) -> Result<SquadScores>
where
    P: AsRef<str>,
    R: AsRef<[S]>,
    S: AsRef<str>,
{
    let exact = |prediction: &str, answers: &[S]| {
        let prediction = normalize_answer(prediction);
        if answers.is_empty() {
            return Err(Error::Input(
                "a question has no gold answers: use squad_v2".into(),
            ));
        }
        let mut answers = answers.iter();
        let equal = answers.any(|answer| normalize_answer(answer.as_ref()) == prediction);
        Ok(f64::from(u8::from(equal)))
    };
    Ok(SquadScores {
        exact_match: 100.0 * super::mean_of_pairs(predictions, answers, exact)?,
        f1: 100.0 * super::token_f1::corpus_token_f1(predictions, answers)?,
    })
}

/// Scores of SQuAD 2.0, from 0 to 100, with the keys of the official script.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SquadV2Scores {
    /// Exact match over all questions.
    pub exact: f64,
    /// F1 over all questions.
    pub f1: f64,
    /// Questions.
    pub total: usize,
    /// Exact match over questions with gold answers; `None` without any such question.
    #[serde(rename = "HasAns_exact", skip_serializing_if = "Option::is_none")]
    pub has_ans_exact: Option<f64>,
    /// F1 over questions with gold answers.
    #[serde(rename = "HasAns_f1", skip_serializing_if = "Option::is_none")]
    pub has_ans_f1: Option<f64>,
    /// Questions with gold answers.
    #[serde(rename = "HasAns_total", skip_serializing_if = "Option::is_none")]
    pub has_ans_total: Option<usize>,
    /// Exact match over questions without gold answers; `None` without any such question.
    #[serde(rename = "NoAns_exact", skip_serializing_if = "Option::is_none")]
    pub no_ans_exact: Option<f64>,
    /// F1 over questions without gold answers.
    #[serde(rename = "NoAns_f1", skip_serializing_if = "Option::is_none")]
    pub no_ans_f1: Option<f64>,
    /// Questions without gold answers.
    #[serde(rename = "NoAns_total", skip_serializing_if = "Option::is_none")]
    pub no_ans_total: Option<usize>,
    /// The highest exact match that any threshold of the probability of no answer gives.
    pub best_exact: f64,
    /// That threshold; 0 if giving no answers is best.
    pub best_exact_thresh: f64,
    /// The highest F1 that any threshold gives.
    pub best_f1: f64,
    /// That threshold.
    pub best_f1_thresh: f64,
}

/// The scores of one question.
struct Question {
    has_answers: bool,
    /// Whether the prediction is not empty.
    answered: bool,
    no_answer_probability: f64,
    exact: f64,
    f1: f64,
}

/// SQuAD 2.0. An unanswerable question has an empty list of gold answers, and its correct prediction is empty after
/// [`normalize_answer`]. A question whose probability of no answer is *above* `threshold` counts as not answered,
/// whatever its prediction; 1 (the script's default) has no effect. Without probabilities all are 0. The best thresholds
/// are computed as in the script: over questions in ascending order of the probability, where every answer to an
/// unanswerable question costs one.
///
/// # Errors
/// No predictions; lists of different lengths; a probability that is not a number.
///
/// ```
/// use ft_eval::text::squad_v2;
///
/// let answers: [&[&str]; 2] = [&["1976"], &[]];
/// let scores = squad_v2(&["1976", "Paris"], &answers, Some(&[0.1, 0.9]), 1.0)?;
/// assert_eq!((scores.exact, scores.has_ans_exact, scores.no_ans_exact), (50.0, Some(100.0), Some(0.0)));
/// assert_eq!((scores.best_exact, scores.best_exact_thresh), (100.0, 0.1));
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn squad_v2<P, R, S>(
    predictions: &[P],
    answers: &[R],
    no_answer_probabilities: Option<&[f64]>,
    threshold: f64,
) -> Result<SquadV2Scores>
where
    P: AsRef<str>,
    R: AsRef<[S]>,
    S: AsRef<str>,
{
    super::not_empty(predictions.len())?;
    super::same_length(predictions.len(), answers.len())?;
    if let Some(given) = no_answer_probabilities {
        if given.len() != predictions.len() {
            return Err(Error::Input(format!(
                "{} predictions, but {} probabilities of no answer: give one for each",
                predictions.len(),
                given.len()
            )));
        }
        if let Some(i) = given.iter().position(|p| p.is_nan()) {
            return Err(Error::Input(format!(
                "prediction {i}: the probability of no answer is not a number"
            )));
        }
    }
    let questions: Vec<Question> = (0..predictions.len())
        .map(|i| {
            let probability = no_answer_probabilities.map_or(0.0, |given| given[i]);
            compare(predictions[i].as_ref(), answers[i].as_ref(), probability)
        })
        .collect();

    let all = group(&questions, threshold, |_| true).unwrap_or((0.0, 0.0, 0));
    let has_ans = group(&questions, threshold, |question| question.has_answers);
    let no_ans = group(&questions, threshold, |question| !question.has_answers);
    let (best_exact, best_exact_thresh) = best_threshold(&questions, |question| question.exact);
    let (best_f1, best_f1_thresh) = best_threshold(&questions, |question| question.f1);
    Ok(SquadV2Scores {
        exact: all.0,
        f1: all.1,
        total: all.2,
        has_ans_exact: has_ans.map(|group| group.0),
        has_ans_f1: has_ans.map(|group| group.1),
        has_ans_total: has_ans.map(|group| group.2),
        no_ans_exact: no_ans.map(|group| group.0),
        no_ans_f1: no_ans.map(|group| group.1),
        no_ans_total: no_ans.map(|group| group.2),
        best_exact,
        best_exact_thresh,
        best_f1,
        best_f1_thresh,
    })
}

fn compare<S: AsRef<str>>(prediction: &str, answers: &[S], probability: f64) -> Question {
    let normalized = normalize_answer(prediction);
    let gold = answers.iter();
    let mut gold: Vec<String> = gold.map(|gold| normalize_answer(gold.as_ref())).collect();
    gold.retain(|gold| !gold.is_empty());
    if gold.is_empty() {
        gold.push(String::new());
    }
    let equal = gold.contains(&normalized);
    let f1 = gold.iter().map(|gold| match gold.is_empty() {
        // The empty answer is correct for unanswerable questions, for which the F1 of words is undefined.
        true => f64::from(u8::from(normalized.is_empty())),
        false => normalized_f1(&normalized, gold),
    });
    Question {
        has_answers: !answers.is_empty(),
        answered: !prediction.is_empty(),
        no_answer_probability: probability,
        exact: f64::from(u8::from(equal)),
        f1: f1.fold(0.0, f64::max),
    }
}

/// Mean exact match and F1 of some of the questions, and their number.
fn group(
    questions: &[Question],
    threshold: f64,
    belongs: impl Fn(&Question) -> bool,
) -> Option<(f64, f64, usize)> {
    let (mut exact, mut f1, mut total) = (0.0, 0.0, 0);
    for question in questions.iter().filter(|question| belongs(question)) {
        total += 1;
        if question.no_answer_probability > threshold {
            let right = f64::from(u8::from(!question.has_answers));
            exact += right;
            f1 += right;
        } else {
            exact += question.exact;
            f1 += question.f1;
        }
    }
    let share = |sum: f64| 100.0 * sum / total as f64;
    (total > 0).then(|| (share(exact), share(f1), total))
}

/// The best mean over all thresholds and the threshold.
fn best_threshold(questions: &[Question], score: impl Fn(&Question) -> f64) -> (f64, f64) {
    let mut order: Vec<&Question> = questions.iter().collect();
    let probability = |question: &Question| question.no_answer_probability;
    // `partial_cmp` and not `total_cmp`: -0 and 0 are equal, and equal values keep their order.
    order.sort_by(|a, b| {
        let ordering = probability(a).partial_cmp(&probability(b));
        ordering.unwrap_or(std::cmp::Ordering::Equal)
    });
    let unanswerable = questions.iter().filter(|question| !question.has_answers);
    let mut current = unanswerable.count() as f64;
    let (mut best, mut threshold) = (current, 0.0);
    for question in order {
        current += match (question.has_answers, question.answered) {
            (true, _) => score(question),
            (false, true) => -1.0,
            (false, false) => 0.0,
        };
        if current > best {
            (best, threshold) = (current, probability(question));
        }
    }
    (100.0 * best / questions.len() as f64, threshold)
}
