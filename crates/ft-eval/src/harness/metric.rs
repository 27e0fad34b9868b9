//! The metrics of a task, and their aggregations.

use serde_json::{Map, Value};

use super::OutputType;
use super::aggregation::{Aggregation, Translation};
use super::exact_match::ExactMatch;
use super::functions::Function;
use super::task_config::{Reader, as_bool};
use super::task_file::FunctionTag;
use crate::Result;

/// One entry of `metric_list`.
#[derive(Clone, Debug)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) aggregation: Aggregation,
    pub(super) higher_is_better: Option<bool>,
    /// The settings of `exact_match`.
    pub(super) exact_match: ExactMatch,
}

/// A metric of the reference: its aggregation, whether higher is better, and the output types for which it is computed.
struct Known {
    name: &'static str,
    aggregation: Aggregation,
    higher_is_better: bool,
    outputs: &'static [OutputType],
}

use OutputType::{GenerateUntil, LogLikelihood, LogLikelihoodRolling, MultipleChoice};

const BLEU: Aggregation = Aggregation::Translation(Translation::Bleu);
const CHRF: Aggregation = Aggregation::Translation(Translation::Chrf);
const CHRF_PLUS_PLUS: Aggregation = Aggregation::Translation(Translation::ChrfPlusPlus);
const TER: Aggregation = Aggregation::Translation(Translation::Ter);

const KNOWN: [Known; 19] = [
    known(
        "acc",
        Aggregation::Mean,
        true,
        &[LogLikelihood, MultipleChoice],
    ),
    known("acc_norm", Aggregation::Mean, true, &[MultipleChoice]),
    known("acc_bytes", Aggregation::Mean, true, &[MultipleChoice]),
    known(
        "acc_mutual_info",
        Aggregation::Mean,
        true,
        &[MultipleChoice],
    ),
    known(
        "exact_match",
        Aggregation::Mean,
        true,
        &[GenerateUntil, MultipleChoice],
    ),
    known("bleu", BLEU, true, &[GenerateUntil]),
    known("chrf", CHRF, true, &[GenerateUntil]),
    known("chrf++", CHRF_PLUS_PLUS, true, &[GenerateUntil]),
    known("ter", TER, false, &[GenerateUntil]),
    known("likelihood", Aggregation::Mean, true, &[MultipleChoice]),
    known(
        "brier_score",
        Aggregation::BrierScore,
        false,
        &[MultipleChoice],
    ),
    known("mcc", Aggregation::Matthews, true, &[MultipleChoice]),
    known("f1", Aggregation::F1, true, &[MultipleChoice]),
    known(
        "perplexity",
        Aggregation::Perplexity,
        false,
        &[LogLikelihood],
    ),
    known(
        "word_perplexity",
        Aggregation::WeightedPerplexity,
        false,
        &[LogLikelihoodRolling],
    ),
    known(
        "byte_perplexity",
        Aggregation::WeightedPerplexity,
        false,
        &[LogLikelihoodRolling],
    ),
    known(
        "bits_per_byte",
        Aggregation::BitsPerByte,
        false,
        &[LogLikelihoodRolling],
    ),
    known(
        "bypass",
        Aggregation::Bypass,
        true,
        &[
            LogLikelihood,
            MultipleChoice,
            GenerateUntil,
            LogLikelihoodRolling,
        ],
    ),
    known("acc_all", Aggregation::Mean, true, &[]),
];

const fn known(
    name: &'static str,
    aggregation: Aggregation,
    higher_is_better: bool,
    outputs: &'static [OutputType],
) -> Known {
    Known {
        name,
        aggregation,
        higher_is_better,
        outputs,
    }
}

/// The metrics of a task without `metric_list`.
fn defaults(output_type: OutputType) -> &'static [&'static str] {
    match output_type {
        LogLikelihood => &["perplexity", "acc"],
        LogLikelihoodRolling => &["word_perplexity", "byte_perplexity", "bits_per_byte"],
        MultipleChoice => &["acc", "acc_norm"],
        GenerateUntil => &["exact_match"],
    }
}

impl Metric {
    /// The metrics of a task. With `process_results` the task computes their values itself.
    pub(super) fn list(
        read: &Reader<'_>,
        output_type: OutputType,
        computed_by_task: bool,
    ) -> Result<Vec<Metric>> {
        let entries = match read.keys.get("metric_list") {
            None | Some(Value::Null) => {
                return Ok(defaults(output_type)
                    .iter()
                    .filter_map(|name| KNOWN.iter().find(|known| known.name == *name))
                    .map(|known| Metric {
                        name: known.name.to_string(),
                        aggregation: known.aggregation,
                        higher_is_better: Some(known.higher_is_better),
                        exact_match: ExactMatch::default(),
                    })
                    .collect());
            }
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err(read.wrong("metric_list", "a list")),
        };
        entries
            .iter()
            .map(|entry| match entry {
                Value::Object(entry) => Metric::entry(entry, read, output_type, computed_by_task),
                _ => Err(read.wrong("metric_list", "a list of mappings with the key 'metric'")),
            })
            .collect()
    }

    fn entry(
        entry: &Map<String, Value>,
        read: &Reader<'_>,
        output_type: OutputType,
        computed_by_task: bool,
    ) -> Result<Metric> {
        let Some(Value::String(name)) = entry.get("metric") else {
            return Err(read.wrong(
                "metric_list",
                "a list of mappings with the key 'metric', a name",
            ));
        };
        let known = KNOWN.iter().find(|known| known.name == name);
        if !computed_by_task && !known.is_some_and(|known| known.outputs.contains(&output_type)) {
            let here: Vec<&str> = KNOWN
                .iter()
                .filter(|known| known.outputs.contains(&output_type))
                .map(|known| known.name)
                .collect();
            return Err(read.origin.invalid(format!(
                "the metric {name:?} is not computed for the output type {}; computed are {}",
                output_type.name(),
                here.join(", ")
            )));
        }
        let aggregation = match entry.get("aggregation") {
            None | Some(Value::Null) => match known {
                Some(known) => known.aggregation,
                None => {
                    return Err(read.origin.invalid(format!(
                        "the metric {name:?} needs an 'aggregation', such as mean"
                    )));
                }
            },
            Some(Value::String(aggregation)) => Aggregation::by_name(aggregation).ok_or_else(|| {
                read.origin.invalid(format!(
                    "the aggregation {aggregation:?} of the metric {name:?} is unknown; it must be one of {}",
                    Aggregation::names().join(", ")
                ))
            })?,
            Some(value) => match FunctionTag::of(value) {
                Some(tag) => match read.resolve("metric_list.aggregation", &tag)? {
                    Function::Aggregation(function) => Aggregation::Function(function),
                    other => return Err(read.misplaced("metric_list.aggregation", other)),
                },
                None => return Err(read.wrong("metric_list.aggregation", "a name or a !function")),
            },
        };
        let higher_is_better = match entry.get("higher_is_better") {
            None => known.map(|known| known.higher_is_better),
            Some(Value::Null) => None,
            Some(value) => Some(
                as_bool(value)
                    .ok_or_else(|| read.wrong("metric_list.higher_is_better", "true or false"))?,
            ),
        };
        if entry.get("hf_evaluate").and_then(as_bool) == Some(true) && name != "exact_match" {
            return Err(read.wrong(
                "metric_list.hf_evaluate",
                "false: of that library only exact_match is available",
            ));
        }
        let settings = entry.iter().filter(|(key, _)| {
            !matches!(
                key.as_str(),
                "metric" | "aggregation" | "higher_is_better" | "hf_evaluate"
            )
        });
        let exact_match =
            if computed_by_task || name != "exact_match" || output_type != GenerateUntil {
                ExactMatch::default()
            } else {
                ExactMatch::new(name, settings, read.origin)?
            };
        Ok(Metric {
            name: name.clone(),
            aggregation,
            higher_is_better,
            exact_match,
        })
    }
}
