//! The content of a task file, checked.
//!
//! The keys and their defaults are those of lm-evaluation-harness' `TaskConfig`. An unknown key, or one that
//! requires an unsupported feature (Python classes, images), is an error that names the file, the key and what is
//! supported. `should_decontaminate` is copied to the results and has no effect, as in the reference.

mod reader;

use serde_json::{Map, Value, json};

use super::filters::FilterPipeline;
use super::functions::{Doc, Function, FunctionRegistry, FunctionResult, Metrics, Response};
use super::metric::Metric;
use super::python_value::{PyValue, dict};
use super::task_file::{FunctionTag, Origin};
use crate::Result;

pub(super) use reader::{Reader, as_bool};

/// The kind of a task's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputType {
    /// The log-likelihood of the target after the prompt.
    LogLikelihood,
    /// The log-likelihood of a whole text.
    LogLikelihoodRolling,
    /// A text that continues the prompt.
    GenerateUntil,
    /// The most likely of several choices after the prompt.
    MultipleChoice,
}

impl OutputType {
    const ALL: [(&'static str, OutputType); 4] = [
        ("loglikelihood", OutputType::LogLikelihood),
        ("multiple_choice", OutputType::MultipleChoice),
        ("loglikelihood_rolling", OutputType::LogLikelihoodRolling),
        ("generate_until", OutputType::GenerateUntil),
    ];

    /// The name in task files.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }
}

/// A value that is derived from a document.
#[derive(Clone, Debug)]
pub(super) enum DocField {
    /// The name of a field, or a template.
    Template(String),
    Number(i64),
    /// The same value for every document.
    List(Vec<Value>),
    Function(fn(&Doc) -> FunctionResult<Value>),
}

type ProcessDocs = fn(Vec<Doc>) -> FunctionResult<Vec<Doc>>;
type ProcessResults = fn(&Doc, &[Response]) -> FunctionResult<Metrics>;

/// How few-shot examples are selected and formatted.
#[derive(Clone, Debug)]
pub(super) struct FewshotConfig {
    pub(super) first_n: bool,
    pub(super) split: Option<String>,
    pub(super) samples: Option<Vec<Doc>>,
    pub(super) process_docs: Option<ProcessDocs>,
    pub(super) doc_to_text: Option<DocField>,
    pub(super) doc_to_target: Option<DocField>,
    pub(super) doc_to_choice: Option<DocField>,
    pub(super) gen_prefix: Option<String>,
    pub(super) fewshot_delimiter: String,
    pub(super) target_delimiter: String,
}

/// A checked task file.
#[derive(Clone, Debug)]
pub(super) struct TaskConfig {
    pub(super) task: String,
    pub(super) task_alias: Option<String>,
    pub(super) dataset_path: Option<String>,
    pub(super) dataset_name: Option<String>,
    pub(super) dataset_kwargs: Map<String, Value>,
    pub(super) training_split: Option<String>,
    pub(super) validation_split: Option<String>,
    pub(super) test_split: Option<String>,
    pub(super) process_docs: Option<ProcessDocs>,
    pub(super) doc_to_text: Option<DocField>,
    pub(super) doc_to_target: Option<DocField>,
    pub(super) doc_to_choice: Option<DocField>,
    pub(super) process_results: Option<ProcessResults>,
    pub(super) description: String,
    pub(super) target_delimiter: String,
    pub(super) fewshot_delimiter: String,
    pub(super) fewshot: FewshotConfig,
    pub(super) num_fewshot: Option<usize>,
    pub(super) output_type: OutputType,
    pub(super) generation_kwargs: Option<Map<String, Value>>,
    pub(super) repeats: usize,
    pub(super) gen_prefix: Option<String>,
    pub(super) metrics: Vec<Metric>,
    pub(super) filters: Vec<FilterPipeline>,
    pub(super) version: Value,
    /// The values for the results, in the reference's order.
    reported: Map<String, Value>,
}

/// Supported keys, in the order of the results.
const KEYS: [&str; 31] = [
    "task",
    "task_alias",
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "test_split",
    "fewshot_split",
    "process_docs",
    "doc_to_text",
    "doc_to_target",
    "unsafe_code",
    "doc_to_choice",
    "process_results",
    "description",
    "target_delimiter",
    "fewshot_delimiter",
    "fewshot_config",
    "num_fewshot",
    "metric_list",
    "output_type",
    "generation_kwargs",
    "repeats",
    "filter_list",
    "should_decontaminate",
    "doc_to_decontamination_query",
    "gen_prefix",
    "metadata",
    "use_prompt",
    "custom_dataset",
];

/// Keys of the reference that are not supported.
const UNSUPPORTED: [(&str, &str); 6] = [
    ("class", "tasks written in Python are not supported"),
    ("custom_dataset", "the data has to be in files"),
    ("doc_to_image", "images are not supported"),
    ("doc_to_audio", "sound is not supported"),
    (
        "use_prompt",
        "promptsource is not supported; write doc_to_text and doc_to_target",
    ),
    ("unsafe_code", "code of the model's making is not run"),
];

const FEWSHOT_KEYS: [&str; 10] = [
    "sampler",
    "split",
    "process_docs",
    "samples",
    "doc_to_text",
    "doc_to_choice",
    "doc_to_target",
    "gen_prefix",
    "fewshot_delimiter",
    "target_delimiter",
];

impl TaskConfig {
    /// Checks the keys of a task. `overrides` are already merged.
    pub(super) fn new(
        mut keys: Map<String, Value>,
        origin: &Origin,
        functions: &FunctionRegistry,
    ) -> Result<Self> {
        for structural in ["tag", "group", "task_list"] {
            keys.shift_remove(structural);
        }
        for (key, reason) in UNSUPPORTED {
            match keys.get(key) {
                None | Some(Value::Null | Value::Bool(false)) => {}
                Some(_) => return Err(origin.invalid(format!("'{key}': {reason}"))),
            }
            keys.shift_remove(key);
        }
        check_keys(&keys, &KEYS, origin, "")?;
        let mut fewshot_keys = match keys.get("fewshot_config") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(fields)) => fields.clone(),
            Some(_) => return Err(origin.invalid("'fewshot_config' has to be a mapping")),
        };
        check_keys(&fewshot_keys, &FEWSHOT_KEYS, origin, "fewshot_config.")?;

        let task = Reader {
            keys: &keys,
            origin,
            functions,
            task: "",
            prefix: "",
        }
        .text("task")?
        .ok_or_else(|| origin.invalid("'task' is missing: it is the name of the task"))?;
        let read = Reader {
            keys: &keys,
            origin,
            functions,
            task: &task,
            prefix: "",
        };
        let description = read.text("description")?.unwrap_or_default();
        let target_delimiter = read
            .text("target_delimiter")?
            .unwrap_or_else(|| " ".to_string());
        let fewshot_delimiter = read
            .text("fewshot_delimiter")?
            .unwrap_or_else(|| "\n\n".to_string());
        let output_type = match read.text("output_type")? {
            None => OutputType::GenerateUntil,
            Some(name) => OutputType::ALL
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, kind)| *kind)
                .ok_or_else(|| {
                    let known: Vec<&str> = OutputType::ALL.iter().map(|(name, _)| *name).collect();
                    origin.invalid(format!(
                        "'output_type' is {name:?}; it has to be one of {}",
                        known.join(", ")
                    ))
                })?,
        };
        let generation_kwargs = generation_kwargs(&read, output_type, &fewshot_delimiter)?;

        let process_docs = read.process_docs()?;
        let doc_to_text = read.doc_field("doc_to_text")?;
        let doc_to_target = read.doc_field("doc_to_target")?;
        let doc_to_choice = read.doc_field("doc_to_choice")?;
        // The few-shot examples inherit the keys of the task.
        for (name, key) in [
            ("split", "fewshot_split"),
            ("process_docs", "process_docs"),
            ("gen_prefix", "gen_prefix"),
            ("doc_to_text", "doc_to_text"),
            ("doc_to_choice", "doc_to_choice"),
            ("doc_to_target", "doc_to_target"),
        ] {
            if !fewshot_keys.contains_key(name) {
                fewshot_keys.insert(
                    name.to_string(),
                    keys.get(key).cloned().unwrap_or(Value::Null),
                );
            }
        }
        let read_fewshot = Reader {
            keys: &fewshot_keys,
            prefix: "fewshot_config.",
            ..read
        };
        let sampler = read_fewshot
            .text("sampler")?
            .unwrap_or_else(|| "default".to_string());
        if !matches!(sampler.as_str(), "default" | "first_n") {
            return Err(origin.invalid(format!(
                "'fewshot_config.sampler' is {sampler:?}; it has to be one of default, first_n"
            )));
        }
        let fewshot = FewshotConfig {
            first_n: sampler == "first_n",
            split: read_fewshot.text("split")?,
            samples: read_fewshot.samples()?,
            process_docs: read_fewshot.process_docs()?,
            doc_to_text: read_fewshot.doc_field("doc_to_text")?,
            doc_to_target: read_fewshot.doc_field("doc_to_target")?,
            doc_to_choice: read_fewshot.doc_field("doc_to_choice")?,
            gen_prefix: read_fewshot.text("gen_prefix")?,
            fewshot_delimiter: read_fewshot
                .text("fewshot_delimiter")?
                .unwrap_or_else(|| fewshot_delimiter.clone()),
            target_delimiter: read_fewshot
                .text("target_delimiter")?
                .unwrap_or_else(|| target_delimiter.clone()),
        };
        let process_results = match read.function("process_results")? {
            None => None,
            Some(Function::ProcessResults(function)) => Some(function),
            Some(other) => return Err(read.misplaced("process_results", other)),
        };
        let metrics = Metric::list(&read, output_type, process_results.is_some())?;
        let filters = FilterPipeline::list(keys.get("filter_list"), origin)?;
        let version = match keys
            .get("metadata")
            .and_then(|metadata| metadata.get("version"))
        {
            None | Some(Value::Null) => json!("Yaml"),
            Some(version) => version.clone(),
        };
        let config = TaskConfig {
            task_alias: read.text("task_alias")?,
            dataset_path: read.text("dataset_path")?,
            dataset_name: read.text("dataset_name")?,
            dataset_kwargs: read.mapping("dataset_kwargs")?.unwrap_or_default(),
            training_split: read.text("training_split")?,
            validation_split: read.text("validation_split")?,
            test_split: read.text("test_split")?,
            process_docs,
            doc_to_text,
            doc_to_target,
            doc_to_choice,
            num_fewshot: read.count("num_fewshot")?,
            repeats: read.count("repeats")?.unwrap_or(1),
            gen_prefix: read.text("gen_prefix")?,
            process_results,
            description,
            target_delimiter,
            fewshot_delimiter,
            fewshot,
            output_type,
            generation_kwargs,
            metrics,
            filters,
            version,
            reported: Map::new(),
            task: task.clone(),
        };
        if config.repeats == 0 {
            return Err(origin.invalid("'repeats' is 0: it must be at least 1"));
        }
        let reported = config.report(&keys, &fewshot_keys, &sampler);
        Ok(TaskConfig { reported, ..config })
    }

    /// The values in the format of the reference: with defaults, without nulls.
    fn report(
        &self,
        keys: &Map<String, Value>,
        fewshot_keys: &Map<String, Value>,
        sampler: &str,
    ) -> Map<String, Value> {
        let mut fewshot = Map::new();
        let defaults = [
            ("sampler", json!(sampler)),
            ("fewshot_delimiter", json!(self.fewshot_delimiter)),
            ("target_delimiter", json!(self.target_delimiter)),
        ];
        for key in [
            "sampler",
            "split",
            "process_docs",
            "fewshot_indices",
            "samples",
            "doc_to_text",
            "doc_to_choice",
            "doc_to_target",
            "gen_prefix",
            "fewshot_delimiter",
            "target_delimiter",
        ] {
            let default = defaults
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value);
            let value = fewshot_keys
                .get(key)
                .or(default)
                .cloned()
                .unwrap_or(Value::Null);
            fewshot.insert(key.to_string(), value);
        }
        let mut reported = Map::new();
        for key in KEYS {
            let value = match key {
                "unsafe_code" => json!(false),
                "should_decontaminate" => keys.get(key).cloned().unwrap_or(json!(false)),
                "description" => json!(self.description),
                "target_delimiter" => json!(self.target_delimiter),
                "fewshot_delimiter" => json!(self.fewshot_delimiter),
                "fewshot_config" => Value::Object(std::mem::take(&mut fewshot)),
                "output_type" => json!(self.output_type.name()),
                "generation_kwargs" => json!(self.generation_kwargs),
                "repeats" => json!(self.repeats),
                _ => keys.get(key).cloned().unwrap_or(Value::Null),
            };
            if !value.is_null() {
                reported.insert(key.to_string(), value);
            }
        }
        if let Some(kwargs) = reported
            .get_mut("dataset_kwargs")
            .and_then(Value::as_object_mut)
        {
            kwargs.shift_remove("trust_remote_code");
        }
        reported
    }

    /// The configuration in the results.
    pub(super) fn to_python(&self, num_fewshot: usize) -> PyValue {
        let mut reported = self.reported.clone();
        // Between fewshot_config and metric_list, as in the reference.
        let mut ordered = Map::new();
        reported.insert("num_fewshot".to_string(), json!(num_fewshot));
        for key in KEYS {
            if let Some(value) = reported.shift_remove(key) {
                ordered.insert(key.to_string(), value);
            }
        }
        without_tags(&Value::Object(ordered))
    }
}

/// A loaded value with its functions as text.
fn without_tags(value: &Value) -> PyValue {
    if let Some(tag) = FunctionTag::of(value) {
        return PyValue::Str(format!("!function {}", tag.name));
    }
    match value {
        Value::Array(items) => PyValue::List(items.iter().map(without_tags).collect()),
        Value::Object(fields) => dict(
            fields
                .iter()
                .map(|(key, value)| (key.as_str(), without_tags(value))),
        ),
        other => PyValue::from(other),
    }
}

pub(super) fn check_keys(
    keys: &Map<String, Value>,
    known: &[&str],
    origin: &Origin,
    prefix: &str,
) -> Result<()> {
    let unknown: Vec<String> = keys
        .keys()
        .filter(|key| !known.contains(&key.as_str()))
        .map(|key| format!("'{prefix}{key}'"))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(origin.invalid(format!(
        "{} is not known; the keys are {}",
        unknown.join(", "),
        known.join(", ")
    )))
}

/// Generation settings with the reference's defaults.
fn generation_kwargs(
    read: &Reader<'_>,
    output_type: OutputType,
    fewshot_delimiter: &str,
) -> Result<Option<Map<String, Value>>> {
    let Some(mut kwargs) = read.mapping("generation_kwargs")? else {
        if output_type != OutputType::GenerateUntil {
            return Ok(None);
        }
        let mut kwargs = Map::new();
        kwargs.insert("temperature".to_string(), json!(0.0));
        kwargs.insert("do_sample".to_string(), json!(false));
        kwargs.insert("max_gen_toks".to_string(), json!(256));
        kwargs.insert("until".to_string(), json!([fewshot_delimiter]));
        return Ok(Some(kwargs));
    };
    if let Some(temperature) = kwargs.get_mut("temperature") {
        let number = match &*temperature {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        };
        *temperature =
            json!(number.ok_or_else(|| read.wrong("generation_kwargs.temperature", "a number"))?);
    }
    if !kwargs.contains_key("until") {
        kwargs.insert("until".to_string(), json!([fewshot_delimiter]));
    }
    Ok(Some(kwargs))
}
