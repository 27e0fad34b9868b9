//! The requests of a document.

use serde_json::{Map, Value};

use super::functions::Doc;
use super::python_value::{PyValue, dict, is_space};
use super::task::Task;
use super::{Continuation, GenerateUntil, OutputType};

/// The arguments of one request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Arguments {
    LogLikelihood(Continuation),
    Rolling(String),
    Generate {
        context: String,
        kwargs: Map<String, Value>,
    },
}

impl Arguments {
    /// The first argument: the prompt, or the text.
    pub(super) fn prompt(&self) -> &str {
        match self {
            Arguments::LogLikelihood(request) => &request.context,
            Arguments::Rolling(text) => text,
            Arguments::Generate { context, .. } => context,
        }
    }

    /// The arguments in the format of the samples file.
    pub(super) fn to_python(&self) -> PyValue {
        let arguments = match self {
            Arguments::LogLikelihood(request) => {
                vec![
                    PyValue::from(&*request.context),
                    PyValue::from(&*request.continuation),
                ]
            }
            Arguments::Rolling(text) => vec![PyValue::from(&**text)],
            Arguments::Generate { context, kwargs } => {
                vec![
                    PyValue::from(&**context),
                    PyValue::from(&Value::Object(kwargs.clone())),
                ]
            }
        };
        dict(
            arguments
                .into_iter()
                .enumerate()
                .map(|(i, argument)| (format!("arg_{i}"), argument)),
        )
    }
}

/// The requests of a document with these prompts.
pub(super) fn build(
    task: &Task,
    doc: &Doc,
    contexts: Vec<String>,
    apply_chat_template: bool,
    generation_kwargs: &Map<String, Value>,
) -> Result<Vec<Arguments>, String> {
    let config = &task.config;
    let one_prompt = |mut contexts: Vec<String>| match contexts.len() {
        1 if !task.multiple_input => Ok(contexts.remove(0)),
        _ => Err(format!(
            "doc_to_text gives numbers, which is not supported for {}",
            config.output_type.name()
        )),
    };
    let target_text = || match task.doc_to_target(doc, None)? {
        Value::String(text) => Ok(text),
        other => Err(format!("doc_to_target has to give a text, not {other}")),
    };
    match config.output_type {
        OutputType::LogLikelihood => Ok(vec![Arguments::LogLikelihood(Continuation {
            context: one_prompt(contexts)?,
            continuation: target_text()?,
        })]),
        OutputType::LogLikelihoodRolling => Ok(vec![Arguments::Rolling(target_text()?)]),
        OutputType::GenerateUntil => Ok(vec![Arguments::Generate {
            context: one_prompt(contexts)?,
            kwargs: generation_kwargs.clone(),
        }]),
        OutputType::MultipleChoice => {
            let choices = task.doc_to_choice(doc, None)?;
            // A chat template ends the prompt, so there is no delimiter before a choice, unless the beginning of the answer
            // has no space at its end.
            let begun = config.gen_prefix.as_deref().is_some_and(|prefix| {
                prefix
                    .chars()
                    .next_back()
                    .is_some_and(|last| !is_space(last))
            });
            let delimiter = if apply_chat_template && !begun {
                ""
            } else {
                &config.target_delimiter
            };
            let pair = |context: String, continuation: &str| {
                Arguments::LogLikelihood(Continuation {
                    context,
                    continuation: format!("{delimiter}{continuation}"),
                })
            };
            let mut requests: Vec<Arguments> = if task.multiple_input {
                let target = PyValue::from(&task.doc_to_target(doc, None)?).str();
                contexts
                    .into_iter()
                    .map(|context| pair(context, &target))
                    .collect()
            } else {
                let context = one_prompt(contexts)?;
                choices
                    .iter()
                    .map(|choice| pair(context.clone(), choice))
                    .collect()
            };
            if config
                .metrics
                .iter()
                .any(|metric| metric.name == "acc_mutual_info")
            {
                requests.extend(choices.iter().map(|choice| pair(String::new(), choice)));
            }
            Ok(requests)
        }
    }
}

/// Generation settings, as `normalize_gen_kwargs` of the reference reads them. Decoding is greedy unless the settings
/// enable sampling.
pub(super) fn generate_until(
    context: &str,
    kwargs: &Map<String, Value>,
    seed: u64,
) -> Result<GenerateUntil, String> {
    let number = |key: &str| match kwargs.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_f64()
            .map(Some)
            .ok_or_else(|| format!("generation_kwargs.{key} has to be a number")),
    };
    const LENGTHS: [&str; 4] = [
        "max_gen_toks",
        "max_new_tokens",
        "max_tokens",
        "max_completion_tokens",
    ];
    const OTHERS: [&str; 5] = ["until", "do_sample", "temperature", "top_p", "top_k"];
    if let Some(key) = kwargs
        .keys()
        .find(|key| !LENGTHS.contains(&&***key) && !OTHERS.contains(&&***key))
    {
        return Err(format!(
            "generation_kwargs.{key} is not supported; supported are {}, {}",
            OTHERS.join(", "),
            LENGTHS.join(", ")
        ));
    }
    let text = |value: &Value| {
        value
            .as_str()
            .map(str::to_string)
            .ok_or("generation_kwargs.until has to be a text or a list of texts")
    };
    let until = match kwargs.get("until") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items.iter().map(text).collect::<Result<_, _>>()?,
        Some(value) => vec![text(value)?],
    };
    let mut max_gen_toks = 256;
    for key in LENGTHS {
        if let Some(length) = number(key)? {
            max_gen_toks = length as usize;
            break;
        }
    }
    let temperature = number("temperature")?;
    let sampled = match kwargs.get("do_sample") {
        None | Some(Value::Null) => temperature.is_some_and(|temperature| temperature > 0.0),
        Some(value) => super::task_config::as_bool(value)
            .ok_or("generation_kwargs.do_sample has to be true or false")?,
    };
    Ok(GenerateUntil {
        context: context.to_string(),
        until,
        max_gen_toks,
        temperature: if sampled {
            temperature.unwrap_or(1.0)
        } else {
            0.0
        },
        top_p: if sampled {
            number("top_p")?.unwrap_or(1.0)
        } else {
            1.0
        },
        top_k: if sampled {
            number("top_k")?.unwrap_or(0.0) as usize
        } else {
            0
        },
        seed: if sampled { seed } else { 0 },
    })
}
