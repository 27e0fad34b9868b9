//! The metrics of one document, computed from the filtered answers to its requests.
//!
//! `acc` selects the choice with the highest log-likelihood, `acc_norm` and `acc_bytes` the one with the highest
//! log-likelihood per character and per byte of the choice (without the delimiter), `acc_mutual_info` the one whose
//! log-likelihood increases most by the prompt. If several are equal, the first is selected. If the correct answer is not
//! a choice, the document counts as wrong.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::functions::{Doc, MetricValue, Metrics, Response};
use super::metric::Metric;
use super::python_value::PyValue;
use super::task::Task;
use super::{LogLikelihood, OutputType};

pub(super) fn score(task: &Task, doc: &Doc, responses: &[Response]) -> Result<Metrics, String> {
    if let Some(process) = task.config.process_results {
        return process(doc, responses).map_err(|reason| format!("process_results: {reason}"));
    }
    match task.config.output_type {
        OutputType::MultipleChoice => multiple_choice(task, doc, responses),
        OutputType::GenerateUntil => generated(task, doc, responses),
        OutputType::LogLikelihood => {
            let answer = log_likelihoods(responses)?;
            let answer = answer.first().ok_or("there is no answer")?;
            Ok(pick(
                task,
                vec![
                    ("perplexity", MetricValue::Number(answer.logp)),
                    ("acc", MetricValue::Int(i64::from(answer.is_greedy))),
                ],
            ))
        }
        OutputType::LogLikelihoodRolling => {
            let Some(Response::Rolling(logp)) = responses.first() else {
                return Err(
                    "the filters have to leave one log-likelihood: use take_first".to_string(),
                );
            };
            let target = task.doc_to_target(doc, None)?;
            let text = target.as_str().ok_or("doc_to_target has to give a text")?;
            let per = |count: usize| {
                MetricValue::List(vec![
                    MetricValue::Number(*logp),
                    MetricValue::Int(count as i64),
                ])
            };
            Ok(pick(
                task,
                vec![
                    ("word_perplexity", per(count_words(text))),
                    ("byte_perplexity", per(text.len())),
                    ("bits_per_byte", per(text.len())),
                ],
            ))
        }
    }
}

/// The number of parts of `re.split(r"\s+", text)`: one more than there are runs of white space.
fn count_words(text: &str) -> usize {
    static SPACE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"[\s\x1c-\x1f]+").expect("the pattern is right"));
    SPACE.find_iter(text).count() + 1
}

/// The metrics in the task's list.
fn pick(task: &Task, computed: Vec<(&str, MetricValue)>) -> Metrics {
    let wanted = |name: &str| task.config.metrics.iter().any(|metric| metric.name == name);
    computed
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| (name.to_string(), value))
        .collect()
}

fn log_likelihoods(responses: &[Response]) -> Result<Vec<LogLikelihood>, String> {
    responses
        .iter()
        .map(|response| match response {
            Response::LogLikelihood(answer) => Ok(*answer),
            _ => Err("the filters have to leave one log-likelihood: use take_first".to_string()),
        })
        .collect()
}

/// The index of the first largest value, as numpy's `argmax`: NaN is larger than all numbers.
fn argmax(values: &[f64]) -> i64 {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if values[best].is_nan() {
            break;
        }
        if value.is_nan() || *value > values[best] {
            best = i;
        }
    }
    best as i64
}

/// `exp(x) / sum(exp(x))`, relative to the largest.
fn softmax(values: &[f64]) -> Vec<f64> {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = values.iter().map(|value| (value - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// The index of a correct answer that is not a choice.
const NO_CHOICE: i64 = -100;

/// The index of the correct choice.
fn gold(value: &Value, choices: &[String]) -> Result<i64, String> {
    let index = match value {
        Value::Bool(value) => i64::from(*value),
        Value::Number(number) => number.as_i64().ok_or_else(|| {
            format!("the correct choice is {number}, which is not a whole number")
        })?,
        Value::String(text) => choices
            .iter()
            .position(|choice| choice == text)
            .map_or(NO_CHOICE, |index| index as i64),
        other => {
            return Err(format!(
                "the correct choice is {other}: it must be a number or a text"
            ));
        }
    };
    Ok(if index < choices.len() as i64 {
        index
    } else {
        NO_CHOICE
    })
}

fn multiple_choice(task: &Task, doc: &Doc, responses: &[Response]) -> Result<Metrics, String> {
    let answers = log_likelihoods(responses)?;
    let choices = task.doc_to_choice(doc, None)?;
    let all: Vec<f64> = answers.iter().map(|answer| answer.logp).collect();
    let has_mutual_info = task
        .config
        .metrics
        .iter()
        .any(|metric| metric.name == "acc_mutual_info");
    let (logps, unconditional) = if has_mutual_info && all.len() == 2 * choices.len() {
        all.split_at(choices.len())
    } else {
        all.split_at(all.len())
    };
    if logps.len() != choices.len() {
        return Err(format!(
            "there are {} choices and {} answers",
            choices.len(),
            logps.len()
        ));
    }
    let per = |length: &dyn Fn(&String) -> usize| -> Vec<f64> {
        logps
            .iter()
            .zip(&choices)
            .map(|(logp, choice)| logp / length(choice) as f64)
            .collect()
    };
    let target = if task.multiple_input {
        task.doc_to_text(doc, None)?
    } else {
        task.doc_to_target(doc, None)?
    };
    let golds = match (&target, task.multiple_target) {
        (Value::Array(targets), true) => targets
            .iter()
            .map(|target| match target {
                Value::String(_) => {
                    Err("several correct answers must be indices of choices".to_string())
                }
                target => gold(target, &choices),
            })
            .collect::<Result<_, _>>()?,
        (_, true) => return Err(format!("the right answers have to be a list, not {target}")),
        _ => vec![gold(&target, &choices)?],
    };
    let right =
        |values: &[f64]| MetricValue::Number(f64::from(u8::from(golds.contains(&argmax(values)))));
    // Python counts negative indices from the end, of all answers.
    let greedy = |index: i64| {
        let index = if index < 0 {
            index + answers.len() as i64
        } else {
            index
        };
        usize::try_from(index)
            .ok()
            .and_then(|index| answers.get(index))
            .map(|answer| answer.is_greedy)
    };
    let mut exact_match = false;
    for &gold in golds.iter().filter(|gold| **gold != NO_CHOICE) {
        exact_match |= greedy(gold).ok_or_else(|| format!("there is no choice {gold}"))?;
    }
    let first = golds.first().copied().unwrap_or(NO_CHOICE);
    let gold_value = || {
        if task.multiple_target {
            MetricValue::List(golds.iter().map(|&gold| MetricValue::Int(gold)).collect())
        } else {
            MetricValue::Int(first)
        }
    };
    let numbers = |values: &[f64]| MetricValue::List(values.iter().map(|&v| v.into()).collect());
    let with_gold = |value| MetricValue::List(vec![gold_value(), value]);
    let mut computed = vec![
        ("acc", right(logps)),
        ("f1", with_gold(MetricValue::Int(argmax(logps)))),
        ("mcc", with_gold(MetricValue::Int(argmax(logps)))),
        ("acc_norm", right(&per(&|choice| choice.chars().count()))),
        ("acc_bytes", right(&per(&String::len))),
        ("exact_match", MetricValue::Int(i64::from(exact_match))),
        ("brier_score", with_gold(numbers(&softmax(logps)))),
        ("likelihood", with_gold(numbers(logps))),
    ];
    if has_mutual_info {
        let gains: Vec<f64> = logps
            .iter()
            .zip(unconditional)
            .map(|(with, without)| with - without)
            .collect();
        if task.multiple_target {
            return Err(
                "acc_mutual_info supports one correct answer, but there are several".to_string(),
            );
        }
        let right = argmax(&gains) == first;
        computed.push((
            "acc_mutual_info",
            MetricValue::Number(f64::from(u8::from(right))),
        ));
    }
    Ok(pick(task, computed))
}

fn to_python(response: &Response) -> Result<PyValue, String> {
    Ok(match response {
        Response::Text(text) => PyValue::Str(text.clone()),
        Response::Mapped(value) => PyValue::from(value),
        Response::Repeats(repeats) => {
            PyValue::List(repeats.iter().map(to_python).collect::<Result<_, _>>()?)
        }
        other => return Err(format!("{other:?} is not a text")),
    })
}

fn generated(task: &Task, doc: &Doc, responses: &[Response]) -> Result<Metrics, String> {
    let answer = to_python(responses.first().ok_or("there is no answer")?)?;
    let target = task.doc_to_target(doc, None)?;
    let bypassed = task
        .config
        .metrics
        .iter()
        .any(|metric| metric.name == "bypass");
    let golds: Vec<PyValue> = if task.config.doc_to_choice.is_some() {
        let choices = task.doc_to_choice(doc, None)?;
        let index = target
            .as_i64()
            .ok_or("with doc_to_choice, doc_to_target must be the index of a choice")?;
        let index = if index < 0 {
            index + choices.len() as i64
        } else {
            index
        };
        let right = usize::try_from(index)
            .ok()
            .and_then(|index| choices.get(index));
        vec![PyValue::Str(
            right
                .ok_or_else(|| format!("there is no choice {index}"))?
                .clone(),
        )]
    } else if task.multiple_target {
        match &target {
            Value::Array(targets) => as_one_array(targets),
            // The reference makes a list of its characters.
            Value::String(text) => text.chars().map(|c| PyValue::Str(c.to_string())).collect(),
            other => return Err(format!("the correct answers must be a list, not {other}")),
        }
    } else if matches!(answer, PyValue::List(_)) || bypassed {
        vec![PyValue::from(&target)]
    } else {
        vec![cast(PyValue::from(&target), &answer)?]
    };
    let mut metrics = Vec::new();
    for metric in &task.config.metrics {
        let value = match metric.name.as_str() {
            "bypass" => MetricValue::None,
            // The corpus is measured as a whole.
            "bleu" | "chrf" | "chrf++" | "ter" => pair_of_texts(&metric.name, &answer, &golds)?,
            _ => exact_match(metric, &answer, &golds, task.multiple_target)?,
        };
        metrics.push((metric.name.clone(), value));
    }
    Ok(metrics)
}

fn pair_of_texts(metric: &str, answer: &PyValue, golds: &[PyValue]) -> Result<MetricValue, String> {
    match (answer, golds) {
        (PyValue::Str(answer), [PyValue::Str(gold)]) => Ok(MetricValue::List(vec![
            MetricValue::Text(gold.clone()),
            MetricValue::Text(answer.clone()),
        ])),
        _ => Err(format!(
            "{metric} needs one answer and one right text for every document: use take_first, and a \
             doc_to_target that gives a text"
        )),
    }
}

/// Several values as one numpy array: all are texts if one of them is.
fn as_one_array(targets: &[Value]) -> Vec<PyValue> {
    let any_text = targets.iter().any(Value::is_string);
    let as_text = |value: PyValue| {
        if any_text {
            PyValue::Str(value.str())
        } else {
            value
        }
    };
    targets.iter().map(PyValue::from).map(as_text).collect()
}

/// The target, converted to the kind of the answer.
fn cast(target: PyValue, answer: &PyValue) -> Result<PyValue, String> {
    let impossible = || {
        format!(
            "the answer is {}, and the target {} cannot be converted to its kind",
            answer.repr(),
            target.repr()
        )
    };
    Ok(match (answer, &target) {
        (PyValue::Str(_), target) => PyValue::Str(target.str()),
        (PyValue::Int(_), PyValue::Int(_)) | (PyValue::Float(_), PyValue::Float(_)) => target,
        (PyValue::Bool(_), PyValue::Bool(_)) => target,
        (PyValue::Int(_), PyValue::Bool(value)) => PyValue::Int(i64::from(*value)),
        (PyValue::Int(_), PyValue::Float(value)) => PyValue::Int(value.trunc() as i64),
        (PyValue::Int(_), PyValue::Str(text)) => {
            PyValue::Int(text.trim().parse().map_err(|_| impossible())?)
        }
        (PyValue::Float(_), PyValue::Int(value)) => PyValue::Float(*value as f64),
        (PyValue::Float(_), PyValue::Str(text)) => {
            PyValue::Float(text.trim().parse().map_err(|_| impossible())?)
        }
        _ => return Err(impossible()),
    })
}

/// The share of equal pairs. With several targets, whether one of them is equal.
fn exact_match(
    metric: &Metric,
    answer: &PyValue,
    golds: &[PyValue],
    multiple_target: bool,
) -> Result<MetricValue, String> {
    let answers = match answer {
        PyValue::List(answers) if multiple_target => {
            return Err(format!(
                "{} answers are left, and several are right: use take_first",
                answers.len()
            ));
        }
        PyValue::List(answers) => answers.as_slice(),
        answer => std::slice::from_ref(answer),
    };
    let same = metric.exact_match.count_same(answers, golds)? as f64;
    Ok(MetricValue::Number(if multiple_target {
        f64::from(u8::from(same > 0.0))
    } else {
        same / (answers.len() * golds.len()) as f64
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_values_is_selected_and_nan_is_the_largest() {
        assert_eq!(argmax(&[-2.0, -1.0, -1.0]), 1);
        assert_eq!(argmax(&[-2.0, f64::NAN, 5.0]), 1);
        assert_eq!(argmax(&[f64::NEG_INFINITY, f64::NEG_INFINITY]), 0);
    }

    #[test]
    fn words_are_counted_as_python_splits_them() {
        for (text, words) in [
            ("", 1),
            ("a", 1),
            (" a b ", 4),
            ("a\u{1c}\u{a0}b", 2),
            ("\n\n", 2),
        ] {
            assert_eq!(count_words(text), words, "{text:?}");
        }
    }
}
