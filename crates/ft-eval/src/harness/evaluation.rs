//! The result of a run: numbers for tasks and groups, and every document with its answers.
//!
//! The JSON has the keys of lm-evaluation-harness, so that programs for its results also read these. In the
//! samples, metrics that are lists (`f1`, `brier_score`, ...) are lists of numbers, where the reference writes
//! numpy arrays as text.

use serde_json::Value;

use super::functions::{Doc, MetricValue, Metrics, Response};
use super::python_value::{PyValue, dict, float_repr};
use super::requests::Arguments;

/// The numbers of a task or a group.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskResult {
    /// Its name.
    pub name: String,
    /// The name in tables.
    pub alias: String,
    /// The number of documents; `None` for a group without numbers.
    pub sample_len: Option<usize>,
    /// Its metrics, for every filter.
    pub metrics: Vec<MetricResult>,
    /// For a group: the number of documents for each `metric,filter`.
    pub sample_count: Vec<(String, usize)>,
}

/// One number of a task or group.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricResult {
    /// The metric: `acc`, `exact_match`, ...
    pub name: String,
    /// The name of the filter pipeline; `none` if there is none.
    pub filter: String,
    /// The value, in the metric's own scale.
    pub value: f64,
    /// Its standard error, if there is one.
    pub stderr: Option<f64>,
}

impl TaskResult {
    /// The number of a metric under a filter.
    pub fn metric(&self, name: &str, filter: &str) -> Option<&MetricResult> {
        self.metrics
            .iter()
            .find(|result| result.name == name && result.filter == filter)
    }

    pub(super) fn to_python(&self, is_group: bool) -> PyValue {
        let name = ("name".to_string(), PyValue::from(&*self.name));
        let alias = ("alias".to_string(), PyValue::from(&*self.alias));
        let mut fields = if is_group {
            vec![alias, name]
        } else {
            vec![name, alias]
        };
        if let Some(count) = self.sample_len {
            fields.push(("sample_len".to_string(), PyValue::Int(count as i64)));
        }
        for result in &self.metrics {
            let value = match result.name.as_str() {
                "bypass" => PyValue::Int(result.value as i64),
                _ => PyValue::Float(result.value),
            };
            let stderr = result.stderr.map_or(PyValue::from("N/A"), PyValue::Float);
            fields.push((format!("{},{}", result.name, result.filter), value));
            fields.push((format!("{}_stderr,{}", result.name, result.filter), stderr));
        }
        if !self.sample_count.is_empty() {
            let counts = self.sample_count.iter();
            let counts =
                dict(counts.map(|(key, count)| (key.as_str(), PyValue::Int(*count as i64))));
            fields.push(("sample_count".to_string(), counts));
        }
        dict(fields)
    }
}

/// A document with its requests, answers and metrics, under one filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The index of the document in its split, from 0.
    pub doc_id: usize,
    /// The document.
    pub doc: Doc,
    /// The correct answer.
    pub target: Value,
    /// The filter pipeline.
    pub filter: String,
    /// The metrics of this document.
    pub metrics: Metrics,
    /// The filtered answers, one for each request.
    pub filtered_resps: Vec<Response>,
    /// The answers, one list of repeats for each request.
    pub resps: Vec<Vec<Response>>,
    pub(super) arguments: Vec<Arguments>,
}

impl Sample {
    /// The prompts, one for each request.
    pub fn prompts(&self) -> impl Iterator<Item = &str> {
        self.arguments.iter().map(Arguments::prompt)
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> Option<&MetricValue> {
        self.metrics
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    /// The sha256 of the document, of the first prompt and of the correct answer.
    pub fn hashes(&self) -> [String; 3] {
        [
            sha256(&PyValue::from(&self.doc).json(Some(2))),
            sha256(self.prompts().next().unwrap_or("")),
            sha256(&PyValue::from(&self.target).str()),
        ]
    }

    /// The row of the samples file.
    pub fn to_line(&self) -> String {
        let [doc_hash, prompt_hash, target_hash] = self.hashes();
        let arguments = self.arguments.iter().enumerate();
        let resps = self
            .resps
            .iter()
            .map(|repeats| PyValue::List(repeats.iter().map(as_texts).collect()));
        let mut fields = vec![
            ("doc_id", PyValue::Int(self.doc_id as i64)),
            ("doc", PyValue::from(&self.doc)),
            ("target", PyValue::Str(PyValue::from(&self.target).str())),
            (
                "arguments",
                dict(arguments.map(|(i, a)| (format!("gen_args_{i}"), a.to_python()))),
            ),
            ("resps", PyValue::List(resps.collect())),
            (
                "filtered_resps",
                PyValue::List(self.filtered_resps.iter().map(as_texts).collect()),
            ),
            ("filter", PyValue::from(&*self.filter)),
            (
                "metrics",
                PyValue::List(
                    self.metrics
                        .iter()
                        .map(|(name, _)| PyValue::from(&**name))
                        .collect(),
                ),
            ),
            ("doc_hash", PyValue::Str(doc_hash)),
            ("prompt_hash", PyValue::Str(prompt_hash)),
            ("target_hash", PyValue::Str(target_hash)),
        ];
        fields.extend(
            self.metrics
                .iter()
                .map(|(name, value)| (name.as_str(), PyValue::from(value))),
        );
        dict(fields).json(None)
    }
}

/// An answer in the format of the samples file, with numbers as texts.
fn as_texts(response: &Response) -> PyValue {
    match response {
        Response::LogLikelihood(answer) => PyValue::List(vec![
            PyValue::Str(float_repr(answer.logp)),
            PyValue::Str(PyValue::Bool(answer.is_greedy).repr()),
        ]),
        Response::Rolling(logp) => PyValue::Str(float_repr(*logp)),
        Response::Text(text) => PyValue::Str(text.clone()),
        Response::Mapped(value) => PyValue::Str(PyValue::from(value).str()),
        Response::Repeats(repeats) => PyValue::List(repeats.iter().map(as_texts).collect()),
    }
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The numbers of the tasks, then of the groups.
    pub results: Vec<TaskResult>,
    /// The documents of each task.
    pub samples: Vec<(String, Vec<Sample>)>,
    pub(super) groups: Vec<GroupInfo>,
    pub(super) tasks: Vec<TaskInfo>,
    pub(super) run: RunInfo,
}

/// Metadata of a group.
#[derive(Clone, Debug)]
pub(super) struct GroupInfo {
    pub(super) name: String,
    pub(super) children: Vec<String>,
    pub(super) version: String,
    pub(super) has_numbers: bool,
}

/// Metadata of a task.
#[derive(Clone, Debug)]
pub(super) struct TaskInfo {
    pub(super) name: String,
    pub(super) config: PyValue,
    pub(super) version: PyValue,
    pub(super) num_fewshot: usize,
    pub(super) higher_is_better: Vec<(String, Option<bool>)>,
    pub(super) documents: usize,
}

/// Metadata of the run.
#[derive(Clone, Debug)]
pub(super) struct RunInfo {
    pub(super) model_name: String,
    pub(super) config: PyValue,
    pub(super) date: f64,
    pub(super) seconds: f64,
    pub(super) system_instruction: Option<String>,
    pub(super) fewshot_as_multiturn: bool,
    pub(super) chat_template: Option<String>,
}

/// Whether higher is better, by metric.
type Directions<'a> = Vec<(&'a str, Option<bool>)>;

impl Evaluation {
    /// The numbers of a task or group.
    pub fn result(&self, name: &str) -> Option<&TaskResult> {
        self.results.iter().find(|result| result.name == name)
    }

    /// The results in the format of the reference's JSON file, indented by two spaces.
    pub fn to_json(&self) -> String {
        let group = |name: &str| self.groups.iter().find(|group| group.name == name);
        let mut results = Vec::new();
        let mut groups = Vec::new();
        for result in &self.results {
            let info = group(&result.name);
            let numbers = result.to_python(info.is_some());
            if info.is_some_and(|group| group.has_numbers) {
                groups.push((result.name.as_str(), numbers.clone()));
            }
            results.push((result.name.as_str(), numbers));
        }
        let subtasks = self.groups.iter().map(|group| {
            let children = group
                .children
                .iter()
                .map(|child| PyValue::from(&**child))
                .collect();
            (group.name.as_str(), PyValue::List(children))
        });
        let mut configs: Vec<_> = self
            .tasks
            .iter()
            .map(|t| (t.name.as_str(), t.config.clone()))
            .collect();
        let mut versions: Vec<_> = self
            .tasks
            .iter()
            .map(|t| (t.name.as_str(), t.version.clone()))
            .collect();
        versions.extend(
            self.groups
                .iter()
                .map(|g| (g.name.as_str(), PyValue::from(&*g.version))),
        );
        configs.sort_by_key(|(name, _)| *name);
        versions.sort_by_key(|(name, _)| *name);
        let shots = self
            .num_fewshot()
            .into_iter()
            .map(|(name, shots)| (name, PyValue::Int(shots as i64)));
        let better = self.higher_is_better().into_iter().map(|(name, metrics)| {
            let metrics = metrics
                .into_iter()
                .map(|(metric, better)| (metric, better.map_or(PyValue::None, PyValue::Bool)));
            (name, dict(metrics))
        });
        let counts = self.tasks.iter().map(|task| {
            let asked = self
                .result(&task.name)
                .and_then(|result| result.sample_len)
                .unwrap_or(0);
            let counts = [("original", task.documents), ("effective", asked)];
            (
                task.name.as_str(),
                dict(counts.map(|(key, count)| (key, PyValue::Int(count as i64)))),
            )
        });
        let hashes = self.samples.iter().map(|(task, samples)| {
            let all: String = samples.iter().flat_map(Sample::hashes).collect();
            (task.as_str(), PyValue::Str(sha256(&all)))
        });
        let text = |text: &Option<String>| text.as_deref().map_or(PyValue::None, PyValue::from);
        let hash = |text: &Option<String>| {
            text.as_deref()
                .filter(|text| !text.is_empty())
                .map_or(PyValue::None, |text| PyValue::Str(sha256(text)))
        };
        let run = &self.run;
        let mut fields = vec![("results", dict(results))];
        if !groups.is_empty() {
            fields.push(("groups", dict(groups)));
        }
        fields.extend([
            ("group_subtasks", dict(subtasks)),
            ("configs", dict(configs)),
            ("versions", dict(versions)),
            ("n-shot", dict(shots)),
            ("higher_is_better", dict(better)),
            ("n-samples", dict(counts)),
            ("config", run.config.clone()),
            ("git_hash", PyValue::None),
            ("date", PyValue::Float(run.date)),
            ("ft_eval_version", PyValue::from(env!("CARGO_PKG_VERSION"))),
            ("task_hashes", dict(hashes)),
            ("model_source", PyValue::from("ft")),
            ("model_name", PyValue::from(&*run.model_name)),
            (
                "model_name_sanitized",
                PyValue::Str(sanitize(&run.model_name)),
            ),
            ("system_instruction", text(&run.system_instruction)),
            ("system_instruction_sha", hash(&run.system_instruction)),
            (
                "fewshot_as_multiturn",
                PyValue::Bool(run.fewshot_as_multiturn),
            ),
            ("chat_template", text(&run.chat_template)),
            ("chat_template_sha", hash(&run.chat_template)),
            (
                "total_evaluation_time_seconds",
                PyValue::Str(float_repr(run.seconds)),
            ),
        ]);
        dict(fields).json(Some(2))
    }

    /// The number of examples by name, for each task and each group whose members agree.
    pub(super) fn num_fewshot(&self) -> Vec<(&str, usize)> {
        let mut shots: Vec<(&str, usize)> = self
            .tasks
            .iter()
            .map(|task| (task.name.as_str(), task.num_fewshot))
            .collect();
        for group in &self.groups {
            let mut of_members: Vec<usize> = shots
                .iter()
                .filter(|(name, _)| group.children.iter().any(|child| child == name))
                .map(|(_, count)| *count)
                .collect();
            of_members.sort_unstable();
            of_members.dedup();
            if let [count] = of_members[..] {
                shots.push((&group.name, count));
            }
        }
        shots.sort_by_key(|(name, _)| *name);
        shots
    }

    /// Whether higher is better, by name of task or group; `None` if the members of a group disagree.
    pub(super) fn higher_is_better(&self) -> Vec<(&str, Directions<'_>)> {
        let mut all: Vec<(&str, Directions<'_>)> = self
            .tasks
            .iter()
            .map(|task| {
                let metrics = task
                    .higher_is_better
                    .iter()
                    .map(|(name, better)| (name.as_str(), *better));
                (task.name.as_str(), metrics.collect())
            })
            .collect();
        for group in &self.groups {
            let mut merged: Directions<'_> = Vec::new();
            for child in &group.children {
                let Some((_, metrics)) = all.iter().find(|(name, _)| name == child) else {
                    continue;
                };
                for (metric, better) in metrics {
                    match merged.iter_mut().find(|(known, _)| known == metric) {
                        None => merged.push((metric, *better)),
                        Some((_, known)) if *known != *better => *known = None,
                        Some(_) => {}
                    }
                }
            }
            if !merged.is_empty() {
                all.push((&group.name, merged));
            }
        }
        all.sort_by_key(|(name, _)| *name);
        all
    }
}

/// The name of a model as a folder name.
pub(super) fn sanitize(name: &str) -> String {
    let mut out = String::new();
    let mut replaced = false;
    for c in name.chars() {
        if "\"<>:/|\\?*[]".contains(c) {
            if !replaced {
                out.push_str("__");
            }
            replaced = true;
        } else {
            out.push(c);
            replaced = false;
        }
    }
    out
}

/// The sha256 of a text, in hexadecimal.
pub(super) fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
