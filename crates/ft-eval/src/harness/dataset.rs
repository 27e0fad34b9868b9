//! The documents of a task, from local files.
//!
//! A split is a file of rows, `DIR/TASK/SPLIT.jsonl` or `.json`, with the fields of the dataset on the hub.
//! The folder may also have the name of the dataset: for `cais/mmlu` with the configuration `anatomy`,
//! `DIR/mmlu/anatomy/` or `DIR/cais/mmlu/anatomy/`. A task with `dataset_path: json` names its files in
//! `dataset_kwargs.data_files`.
//!
//! As in Hugging Face's datasets, every row has the fields of all rows, in the order of their first occurrence.
//! Missing values are null. In a column with integers and floats, integers become floats. Objects with different
//! fields, and columns of several kinds, are not changed. One thing differs: texts that look like times stay
//! texts, where pyarrow converts some to timestamps.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::functions::Doc;
use super::task_config::TaskConfig;
use crate::{Error, Result};

/// The location of a task's data.
pub(super) struct Dataset<'a> {
    config: &'a TaskConfig,
    dir: &'a Path,
}

impl<'a> Dataset<'a> {
    pub(super) fn new(config: &'a TaskConfig, dir: &'a Path) -> Result<Self> {
        let unknown: Vec<&str> = config
            .dataset_kwargs
            .keys()
            .map(String::as_str)
            .filter(|key| !matches!(*key, "data_files" | "field" | "trust_remote_code"))
            .collect();
        let dataset = Self { config, dir };
        if unknown.is_empty() {
            Ok(dataset)
        } else {
            Err(dataset.error(format!(
                "'dataset_kwargs' has {}; supported are data_files and field",
                unknown.join(", ")
            )))
        }
    }

    fn error(&self, reason: String) -> Error {
        Error::Task {
            task: self.config.task.clone(),
            reason,
        }
    }

    /// The rows of a split.
    pub(super) fn split(&self, split: &str) -> Result<Vec<Doc>> {
        let field = self
            .config
            .dataset_kwargs
            .get("field")
            .and_then(Value::as_str);
        let mut rows = Vec::new();
        for path in self.files(split)? {
            rows.extend(read_rows(&path, field)?);
        }
        Ok(as_columns(rows))
    }

    fn files(&self, split: &str) -> Result<Vec<PathBuf>> {
        let Some(data_files) = self.config.dataset_kwargs.get("data_files") else {
            return self.file_in_folders(split).map(|path| vec![path]);
        };
        let of_split = match data_files {
            Value::Object(splits) => splits.get(split),
            // Files without a split are the training split.
            other => Some(other).filter(|_| split == "train"),
        };
        let names: Option<Vec<&str>> = match of_split {
            Some(Value::String(name)) => Some(vec![name]),
            Some(Value::Array(names)) => names.iter().map(Value::as_str).collect(),
            _ => None,
        };
        let names = names.ok_or_else(|| {
            self.error(format!(
                "'dataset_kwargs.data_files' names no file for the split {split:?}"
            ))
        })?;
        names
            .into_iter()
            .map(|name| {
                let here = PathBuf::from(name);
                let in_dir = self.dir.join(name);
                match (here.is_file(), in_dir.is_file()) {
                    (true, _) => Ok(here),
                    (false, true) => Ok(in_dir),
                    _ => Err(self.error(format!(
                        "the data file of the split {split:?} is neither {} nor {}",
                        here.display(),
                        in_dir.display()
                    ))),
                }
            })
            .collect()
    }

    fn file_in_folders(&self, split: &str) -> Result<PathBuf> {
        let mut folders = vec![self.dir.join(&self.config.task)];
        if let Some(path) = &self.config.dataset_path {
            let short = path.rsplit('/').next().unwrap_or(path);
            for dataset in [path.as_str(), short] {
                let folder = self.dir.join(dataset);
                folders.extend(
                    self.config
                        .dataset_name
                        .as_ref()
                        .map(|name| folder.join(name)),
                );
                folders.push(folder);
            }
        }
        let candidates: Vec<PathBuf> = folders
            .iter()
            .flat_map(|folder| {
                ["jsonl", "json"].map(|ending| folder.join(format!("{split}.{ending}")))
            })
            .collect();
        candidates
            .iter()
            .find(|path| path.is_file())
            .cloned()
            .ok_or_else(|| {
                let mut tried: Vec<String> = Vec::new();
                for path in &candidates {
                    let path = path.display().to_string();
                    if !tried.contains(&path) {
                        tried.push(path);
                    }
                }
                self.error(format!(
                    "there is no file with the split {split:?}; it was searched at {}",
                    tried.join(", ")
                ))
            })
    }
}

/// The rows of a file.
fn read_rows(path: &Path, field: Option<&str>) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_path_buf(),
        source,
    })?;
    parse_rows(&text, field).map_err(|reason| Error::Invalid {
        path: path.to_path_buf(),
        reason,
    })
}

/// Rows of a text: a JSON array, an object with the rows under `field`, or one row per line.
pub(super) fn parse_rows(text: &str, field: Option<&str>) -> Result<Vec<Value>, String> {
    let text = text.trim_start_matches('\u{feff}');
    let rows: Vec<Value> = if let Some(field) = field {
        let mut whole: Value =
            serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        match whole.get_mut(field).map(Value::take) {
            Some(Value::Array(rows)) => rows,
            _ => return Err(format!("it has no list of rows under the field {field:?}")),
        }
    } else if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|error| format!("it is not a JSON array: {error}"))?
    } else {
        // Not `str::lines`: texts may contain its separators.
        text.split('\n')
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(i, line)| {
                serde_json::from_str(line)
                    .map_err(|error| format!("line {} is not JSON: {error}", i + 1))
            })
            .collect::<Result<_, _>>()?
    };
    match rows.iter().position(|row| !row.is_object()) {
        Some(row) => Err(format!("row {} is not an object with fields", row + 1)),
        None => Ok(rows),
    }
}

/// The kind of values in a column.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Null,
    Whole,
    Broken,
    Fields(Fields),
    List(Box<Kind>),
    /// Texts, booleans, and columns of several kinds, which are not changed.
    Other,
}

impl Kind {
    fn of(value: &Value) -> Kind {
        match value {
            Value::Null => Kind::Null,
            Value::Number(number) if number.is_i64() => Kind::Whole,
            Value::Number(_) => Kind::Broken,
            Value::Array(items) => Kind::List(Box::new(
                items
                    .iter()
                    .fold(Kind::Null, |kind, item| kind.join(Kind::of(item))),
            )),
            Value::Object(fields) => Kind::Fields(
                fields
                    .iter()
                    .map(|(name, value)| (name.clone(), Kind::of(value)))
                    .collect(),
            ),
            Value::Bool(_) | Value::String(_) => Kind::Other,
        }
    }

    fn join(self, other: Kind) -> Kind {
        match (self, other) {
            (Kind::Null, kind) | (kind, Kind::Null) => kind,
            (Kind::Whole, Kind::Broken) | (Kind::Broken, Kind::Whole) => Kind::Broken,
            (Kind::List(a), Kind::List(b)) => Kind::List(Box::new(a.join(*b))),
            (Kind::Fields(a), Kind::Fields(b)) if same_names(&a, &b) => Kind::Fields(merge(a, b)),
            (a, b) if a == b => a,
            _ => Kind::Other,
        }
    }

    fn cast(&self, value: Value) -> Value {
        match (self, value) {
            (Kind::Broken, Value::Number(number)) => Value::from(number.as_f64()),
            (Kind::List(kind), Value::Array(items)) => {
                Value::Array(items.into_iter().map(|item| kind.cast(item)).collect())
            }
            (Kind::Fields(kinds), Value::Object(mut fields)) => {
                let mut all = Map::new();
                for (name, kind) in kinds {
                    let value = fields.shift_remove(name).unwrap_or(Value::Null);
                    all.insert(name.clone(), kind.cast(value));
                }
                Value::Object(all)
            }
            (_, value) => value,
        }
    }
}

type Fields = Vec<(String, Kind)>;

fn same_names(a: &Fields, b: &Fields) -> bool {
    a.len() == b.len()
        && a.iter()
            .all(|(name, _)| b.iter().any(|(other, _)| other == name))
}

/// The fields of both, those of `a` first.
fn merge(mut a: Fields, b: Fields) -> Fields {
    for (name, kind) in b {
        match a.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => {
                let old = std::mem::replace(known, Kind::Null);
                *known = old.join(kind);
            }
            None => a.push((name, kind)),
        }
    }
    a
}

/// Rows with the fields of all rows.
pub(super) fn as_columns(rows: Vec<Value>) -> Vec<Doc> {
    let columns = rows
        .iter()
        .fold(Vec::new(), |columns, row| match Kind::of(row) {
            Kind::Fields(fields) => merge(columns, fields),
            _ => columns,
        });
    let kind = Kind::Fields(columns);
    rows.into_iter().map(|row| kind.cast(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_row_gets_the_fields_of_all() {
        let rows = as_columns(vec![
            json!({"a": 1, "s": {"x": [1], "y": 0}, "t": {"u": 1}}),
            json!({"b": "t", "a": 2.5, "s": {"y": null, "x": [0.5]}, "t": {}}),
            json!({"s": null}),
        ]);
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        assert_eq!(
            lines,
            [
                r#"{"a":1.0,"s":{"x":[1.0],"y":0},"t":{"u":1},"b":null}"#,
                r#"{"a":2.5,"s":{"x":[0.5],"y":null},"t":{},"b":"t"}"#,
                r#"{"a":null,"s":null,"t":null,"b":null}"#,
            ]
        );
    }
}
