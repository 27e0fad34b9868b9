//! A run: prompts, answers of the model, filters, scores, aggregation.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::answers::{Asked, answer};
use super::evaluation::{
    Evaluation, GroupInfo, MetricResult, RunInfo, Sample, TaskInfo, TaskResult,
};
use super::functions::{MetricValue, Response};
use super::group::{Child, Group};
use super::prompt::{PromptOptions, Sampler, contexts};
use super::python_value::{PyValue, dict};
use super::requests;
use super::scoring::score;
use super::task::Task;
use super::{LanguageModel, OutputType, TaskSet};
use crate::{Error, Result};

/// Settings of a run. The defaults are those of the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluateOptions {
    /// The name of the model in the results.
    pub model_name: String,
    /// The number of examples in each prompt, which replaces that of the tasks. A task with 0 keeps 0.
    pub num_fewshot: Option<usize>,
    /// Limits each task to its first documents: a number, or a share below 1.
    pub limit: Option<f64>,
    /// The system message, before the task's description.
    pub system_instruction: Option<String>,
    /// Renders prompts with the model's chat template.
    pub apply_chat_template: bool,
    /// In a conversation, examples are separate turns.
    pub fewshot_as_multiturn: bool,
    /// Generation settings that replace those of the tasks.
    pub generation_kwargs: Map<String, Value>,
    /// Seed of the examples.
    pub fewshot_seed: u64,
    /// Seed of sampled answers. Each repeat has a seed of its own, derived from this one.
    pub generation_seed: u64,
    /// Bootstrap resamples for standard errors without a formula. 0 disables all standard errors.
    pub bootstrap_iters: usize,
    /// A file in which answers are stored, so that an interrupted run can continue.
    pub cache: Option<PathBuf>,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self {
            model_name: "model".to_string(),
            num_fewshot: None,
            limit: None,
            system_instruction: None,
            apply_chat_template: false,
            fewshot_as_multiturn: true,
            generation_kwargs: Map::new(),
            fewshot_seed: 1234,
            generation_seed: 1234,
            bootstrap_iters: 100_000,
            cache: None,
        }
    }
}

/// Runs tasks on a model. `progress` receives the number of answered requests and the total.
///
/// # Errors
///
/// If a prompt cannot be made, the model fails, or an answer cannot be scored. The message names the task and the
/// document.
pub fn evaluate(
    model: &dyn LanguageModel,
    set: &TaskSet,
    options: &EvaluateOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation> {
    let started = Instant::now();
    let date = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64());
    let chat_template = match model.chat_template() {
        None if options.apply_chat_template => {
            return Err(Error::Settings(
                "apply_chat_template is set, but the model has no chat template".to_string(),
            ));
        }
        template => template.filter(|_| options.apply_chat_template),
    };
    let mut asked = Vec::new();
    for task in &set.tasks {
        asked.push(ask(model, task, options)?);
    }
    answer(model, &set.tasks, &mut asked, options, progress)?;

    let mut results = Vec::new();
    let mut samples = Vec::new();
    let mut infos = Vec::new();
    for (task, asked) in set.tasks.iter().zip(asked) {
        let of_task = score_task(task, asked)?;
        results.push(aggregate(task, &of_task, options.bootstrap_iters)?);
        infos.push(info(task, options));
        samples.push((task.name().to_string(), of_task));
    }
    let mut groups: Vec<&Group> = Vec::new();
    for group in &set.groups {
        groups.push(group);
        groups.extend(group.subgroups());
    }
    // Inner groups first.
    let mut visited: Vec<&str> = Vec::new();
    for group in &set.groups {
        aggregate_groups(group, &mut results, &mut visited);
    }
    Ok(Evaluation {
        results,
        samples,
        groups: groups
            .iter()
            .map(|group| GroupInfo {
                name: group.name.clone(),
                children: group
                    .children
                    .iter()
                    .map(|child| child.name().to_string())
                    .collect(),
                version: group.version.clone(),
                has_numbers: !group.aggregates.is_empty(),
            })
            .collect(),
        tasks: infos,
        run: RunInfo {
            model_name: options.model_name.clone(),
            config: run_config(options),
            date,
            seconds: started.elapsed().as_secs_f64(),
            system_instruction: options.system_instruction.clone(),
            fewshot_as_multiturn: options.fewshot_as_multiturn,
            chat_template,
        },
    })
}

fn num_fewshot(task: &Task, options: &EvaluateOptions) -> usize {
    match (task.config.num_fewshot, options.num_fewshot) {
        (Some(0), _) => 0,
        (own, asked) => asked.or(own).unwrap_or(0),
    }
}

/// The number of documents under a limit.
fn limited(count: usize, limit: Option<f64>) -> Result<usize> {
    match limit {
        None => Ok(count),
        Some(limit) if limit < 1.0 && limit > 0.0 => Ok((count as f64 * limit).ceil() as usize),
        Some(limit) if limit >= 1.0 => Ok(count.min(limit as usize)),
        Some(limit) => Err(Error::Settings(format!(
            "the limit {limit} leaves no documents"
        ))),
    }
}

/// The generation settings of a task.
fn generation_kwargs(task: &Task, options: &EvaluateOptions) -> Map<String, Value> {
    let mut kwargs = task.config.generation_kwargs.clone().unwrap_or_default();
    if task.config.output_type == OutputType::GenerateUntil {
        kwargs.extend(options.generation_kwargs.clone());
    }
    kwargs
}

/// The requests of a task.
fn ask(model: &dyn LanguageModel, task: &Task, options: &EvaluateOptions) -> Result<Vec<Asked>> {
    let prompt = PromptOptions {
        num_fewshot: num_fewshot(task, options),
        system_instruction: options.system_instruction.as_deref(),
        apply_chat_template: options.apply_chat_template,
        fewshot_as_multiturn: options.fewshot_as_multiturn,
    };
    let kwargs = generation_kwargs(task, options);
    let mut sampler = Sampler::new(options.fewshot_seed);
    let count = limited(task.docs.len(), options.limit)?;
    let mut asked = Vec::with_capacity(count);
    for (doc_id, doc) in task.docs.iter().take(count).enumerate() {
        let contexts = contexts(task, doc, &prompt, &mut sampler, model)?;
        let arguments = requests::build(task, doc, contexts, options.apply_chat_template, &kwargs)
            .map_err(|reason| task.error(format!("document {doc_id}: {reason}")))?;
        asked.push(Asked {
            doc_id,
            arguments,
            answers: Vec::new(),
        });
    }
    Ok(asked)
}

/// Filters and scores the answers of a task.
fn score_task(task: &Task, asked: Vec<Asked>) -> Result<Vec<Sample>> {
    let docs: Vec<_> = asked
        .iter()
        .flat_map(|doc| std::iter::repeat_n(&task.docs[doc.doc_id], doc.arguments.len()))
        .collect();
    let mut samples = Vec::new();
    for pipeline in &task.config.filters {
        let all = asked.iter().flat_map(|doc| doc.answers.clone()).collect();
        let mut filtered = pipeline
            .apply(all, &docs)
            .map_err(|reason| task.error(reason))?
            .into_iter();
        for asked in &asked {
            let doc = &task.docs[asked.doc_id];
            let responses: Vec<Response> = filtered.by_ref().take(asked.arguments.len()).collect();
            let described = |reason| task.error(format!("document {}: {reason}", asked.doc_id));
            samples.push(Sample {
                doc_id: asked.doc_id,
                doc: doc.clone(),
                target: task.doc_to_target(doc, None).map_err(described)?,
                filter: pipeline.name.clone(),
                metrics: score(task, doc, &responses).map_err(described)?,
                filtered_resps: responses,
                resps: asked.answers.clone(),
                arguments: asked.arguments.clone(),
            });
        }
    }
    Ok(samples)
}

/// The numbers of a task from its documents.
fn aggregate(task: &Task, samples: &[Sample], bootstrap_iters: usize) -> Result<TaskResult> {
    // By metric and filter, in the order of their first occurrence.
    let mut values: Vec<((&str, &str), Vec<MetricValue>)> = Vec::new();
    let mut index: HashMap<(&str, &str), usize> = HashMap::new();
    for sample in samples {
        for (name, value) in &sample.metrics {
            let key = (name.as_str(), sample.filter.as_str());
            let place = *index.entry(key).or_insert_with(|| {
                values.push((key, Vec::new()));
                values.len() - 1
            });
            values[place].1.push(value.clone());
        }
    }
    let mut metrics = Vec::new();
    for ((name, filter), values) in &values {
        let known = task
            .config
            .metrics
            .iter()
            .find(|metric| metric.name == *name);
        // A metric of process_results that the file does not list is averaged.
        let aggregation = known.map_or(super::aggregation::Aggregation::Mean, |metric| {
            metric.aggregation
        });
        let failed = |reason| task.error(format!("the metric {name}: {reason}"));
        metrics.push(MetricResult {
            name: (*name).to_string(),
            filter: (*filter).to_string(),
            value: aggregation.of(values).map_err(failed)?,
            stderr: aggregation
                .standard_error(values, bootstrap_iters)
                .map_err(failed)?,
        });
    }
    Ok(TaskResult {
        name: task.name().to_string(),
        alias: task
            .config
            .task_alias
            .clone()
            .unwrap_or_else(|| task.name().to_string()),
        sample_len: Some(
            values
                .iter()
                .map(|(_, values)| values.len())
                .max()
                .unwrap_or(0),
        ),
        metrics,
        sample_count: Vec::new(),
    })
}

fn aggregate_groups<'a>(
    group: &'a Group,
    results: &mut Vec<TaskResult>,
    visited: &mut Vec<&'a str>,
) {
    if visited.contains(&group.name.as_str()) {
        return;
    }
    for child in &group.children {
        if let Child::Group(child) = child {
            aggregate_groups(child, results, visited);
        }
    }
    visited.push(&group.name);
    let numbers = group.aggregate(results);
    results.push(numbers);
}

fn info(task: &Task, options: &EvaluateOptions) -> TaskInfo {
    let shots = num_fewshot(task, options);
    let mut config = task.config.to_python(shots);
    if let PyValue::Dict(fields) = &mut config {
        for (key, value) in fields.iter_mut() {
            if *key == PyValue::from("generation_kwargs") {
                *value = PyValue::from(&Value::Object(generation_kwargs(task, options)));
            }
        }
    }
    TaskInfo {
        name: task.name().to_string(),
        config,
        version: PyValue::from(&task.config.version),
        num_fewshot: shots,
        higher_is_better: task
            .config
            .metrics
            .iter()
            .map(|metric| (metric.name.clone(), metric.higher_is_better))
            .collect(),
        documents: task.docs.len(),
    }
}

fn run_config(options: &EvaluateOptions) -> PyValue {
    let limit = match options.limit {
        Some(limit) if limit.fract() == 0.0 => PyValue::Int(limit as i64),
        limit => limit.map_or(PyValue::None, PyValue::Float),
    };
    let kwargs = match options.generation_kwargs.is_empty() {
        true => PyValue::None,
        false => PyValue::from(&Value::Object(options.generation_kwargs.clone())),
    };
    let cache = options.cache.as_ref();
    let cache = cache.map_or(PyValue::None, |path| {
        PyValue::Str(path.to_string_lossy().into_owned())
    });
    dict([
        ("model", PyValue::from(&*options.model_name)),
        ("model_args", PyValue::None),
        ("batch_size", PyValue::None),
        ("batch_sizes", PyValue::List(Vec::new())),
        ("device", PyValue::None),
        ("use_cache", cache),
        ("limit", limit),
        (
            "bootstrap_iters",
            PyValue::Int(options.bootstrap_iters as i64),
        ),
        ("gen_kwargs", kwargs),
        ("random_seed", PyValue::Int(options.generation_seed as i64)),
        ("numpy_seed", PyValue::None),
        ("torch_seed", PyValue::None),
        ("fewshot_seed", PyValue::Int(options.fewshot_seed as i64)),
    ])
}
