//! Groups of tasks, and the aggregation of the numbers of their tasks.
//!
//! With `weight_by_size` the mean weights each task by its documents, and the error is the pooled one,
//! `sqrt(sum((n_i - 1) n_i se_i^2) / (sum n_i - k) / sum n_i)`; without it, it is the plain mean of
//! the `k` tasks with the error `sqrt(sum se_i^2) / k`. Tasks are found through all subgroups.

use serde_json::{Map, Value};

use super::evaluation::{MetricResult, TaskResult};
use super::task_config::{as_bool, check_keys};
use super::task_file::Origin;
use crate::Result;

/// A group and its members.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) alias: Option<String>,
    pub(super) aggregates: Vec<Aggregate>,
    pub(super) version: String,
    pub(super) children: Vec<Child>,
}

#[derive(Clone, Debug)]
pub(super) enum Child {
    Task(String),
    Group(Group),
}

/// An entry of `aggregate_metric_list`.
#[derive(Clone, Debug)]
pub(super) struct Aggregate {
    metric: String,
    /// `None`: all filters that the tasks have.
    filters: Option<Vec<String>>,
    weight_by_size: bool,
}

impl Group {
    /// A group without its children.
    pub(super) fn new(name: String, keys: &Map<String, Value>, origin: &Origin) -> Result<Self> {
        let metadata = keys.get("metadata");
        let version = match metadata.and_then(|metadata| metadata.get("version")) {
            None | Some(Value::Null) => "N/A".to_string(),
            Some(version) => super::python_value::PyValue::from(version).str(),
        };
        let entries = match keys.get("aggregate_metric_list") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(entries)) => entries.clone(),
            Some(entry) => vec![entry.clone()],
        };
        let alias = keys
            .get("group_alias")
            .and_then(Value::as_str)
            .map(str::to_string);
        let aggregates = entries
            .iter()
            .map(|entry| Aggregate::new(entry, origin))
            .collect::<Result<_>>()?;
        Ok(Self {
            name,
            alias,
            aggregates,
            version,
            children: Vec::new(),
        })
    }

    /// Adds a child, which replaces one with the same name.
    pub(super) fn add(&mut self, child: Child) {
        match self
            .children
            .iter_mut()
            .find(|old| old.name() == child.name())
        {
            Some(old) => *old = child,
            None => self.children.push(child),
        }
    }

    /// The names of all tasks in it.
    pub(super) fn tasks(&self) -> Vec<&str> {
        let mut tasks = Vec::new();
        for child in &self.children {
            match child {
                Child::Task(name) => tasks.push(name.as_str()),
                Child::Group(group) => tasks.extend(group.tasks()),
            }
        }
        tasks
    }

    /// The groups in it, each before those in it.
    pub(super) fn subgroups(&self) -> Vec<&Group> {
        let mut groups = Vec::new();
        for child in &self.children {
            if let Child::Group(group) = child {
                groups.push(group);
                groups.extend(group.subgroups());
            }
        }
        groups
    }

    /// The numbers of the group; `results` are those of the tasks.
    pub(super) fn aggregate(&self, results: &[TaskResult]) -> TaskResult {
        let mut group = TaskResult {
            name: self.name.clone(),
            alias: self.alias.clone().unwrap_or_else(|| self.name.clone()),
            sample_len: None,
            metrics: Vec::new(),
            sample_count: Vec::new(),
        };
        if self.aggregates.is_empty() {
            return group;
        }
        let names = self.tasks();
        let tasks: Vec<&TaskResult> = names
            .iter()
            .filter_map(|name| results.iter().find(|result| result.name == *name))
            .collect();
        let size = |task: &TaskResult| task.sample_len.unwrap_or(0);
        group.sample_len = Some(tasks.iter().map(|task| size(task)).sum());
        for aggregate in &self.aggregates {
            let of_metric = || {
                let all = tasks.iter().flat_map(|task| &task.metrics);
                all.filter(|result| result.name == aggregate.metric)
            };
            let filters = aggregate.filters.clone().unwrap_or_else(|| {
                let mut filters: Vec<String> =
                    of_metric().map(|result| result.filter.clone()).collect();
                filters.sort();
                filters.dedup();
                filters
            });
            for filter in filters {
                let found: Vec<(&MetricResult, usize)> = tasks
                    .iter()
                    .filter_map(|task| Some((task.metric(&aggregate.metric, &filter)?, size(task))))
                    .collect();
                if found.is_empty() {
                    continue;
                }
                // The last entry for a metric and filter takes precedence.
                let key = format!("{},{filter}", aggregate.metric);
                group
                    .metrics
                    .retain(|old| old.name != aggregate.metric || old.filter != filter);
                group.sample_count.retain(|(old, _)| *old != key);
                let weight = |size: usize| {
                    if aggregate.weight_by_size {
                        size as f64
                    } else {
                        1.0
                    }
                };
                let weights: f64 = found.iter().map(|(_, size)| weight(*size)).sum();
                let sum: f64 = found
                    .iter()
                    .map(|(result, size)| result.value * weight(*size))
                    .sum();
                let errors: Option<Vec<(f64, f64)>> = found
                    .iter()
                    .map(|(result, size)| Some((result.stderr?, *size as f64)))
                    .collect();
                group.metrics.push(MetricResult {
                    name: aggregate.metric.clone(),
                    filter: filter.clone(),
                    value: sum / weights,
                    stderr: errors.map(|errors| {
                        if aggregate.weight_by_size {
                            pooled(&errors)
                        } else {
                            unweighted(&errors)
                        }
                    }),
                });
                let documents = found.iter().map(|(_, size)| size).sum();
                group.sample_count.push((key, documents));
            }
        }
        group
    }
}

/// The pooled error of pairs `(error, size)`.
pub(super) fn pooled(errors: &[(f64, f64)]) -> f64 {
    let total: f64 = errors.iter().map(|(_, size)| size).sum();
    let sum: f64 = errors
        .iter()
        .map(|(error, size)| (size - 1.0) * error.powi(2) * size)
        .sum();
    (sum / (total - errors.len() as f64) / total).sqrt()
}

/// The error of a plain mean.
pub(super) fn unweighted(errors: &[(f64, f64)]) -> f64 {
    errors
        .iter()
        .map(|(error, _)| error.powi(2))
        .sum::<f64>()
        .sqrt()
        / errors.len() as f64
}

impl Child {
    pub(super) fn name(&self) -> &str {
        match self {
            Child::Task(name) => name,
            Child::Group(group) => &group.name,
        }
    }
}

impl Aggregate {
    fn new(entry: &Value, origin: &Origin) -> Result<Self> {
        let wrong = || {
            origin.invalid(
                "an entry of 'aggregate_metric_list' has the keys metric, filter_list (a name or a list of \
                 names), aggregation (mean) and weight_by_size (true or false)",
            )
        };
        let entry = entry.as_object().ok_or_else(wrong)?;
        let known = ["metric", "filter_list", "aggregation", "weight_by_size"];
        check_keys(entry, &known, origin, "aggregate_metric_list.")?;
        if entry
            .get("aggregation")
            .is_some_and(|aggregation| aggregation != "mean")
        {
            return Err(wrong());
        }
        let filters = match entry.get("filter_list") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(vec![name.clone()]),
            Some(Value::Array(names)) => {
                let names = names.iter().map(|name| name.as_str().map(str::to_string));
                Some(names.collect::<Option<_>>().ok_or_else(wrong)?)
            }
            Some(_) => return Err(wrong()),
        };
        Ok(Self {
            metric: entry
                .get("metric")
                .and_then(Value::as_str)
                .ok_or_else(wrong)?
                .to_string(),
            filters,
            weight_by_size: match entry.get("weight_by_size") {
                None => true,
                Some(value) => as_bool(value).ok_or_else(wrong)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sizes_give_the_same_error_both_ways() {
        let errors = [(0.1, 50.0), (0.2, 50.0), (0.05, 50.0)];
        assert!((pooled(&errors) - unweighted(&errors)).abs() < 1e-15);
    }
}
