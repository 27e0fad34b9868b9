//! Rows of texts to train on: pairs, labelled pairs, triplets, n-tuples, or single texts with classes.

use std::collections::BTreeMap;
use std::path::Path;

use ft_data::read_rows;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Names of columns, in the order in which they are looked for.
const ANCHORS: &[&str] = &[
    "anchor",
    "query",
    "question",
    "sentence1",
    "sentence_0",
    "text1",
    "instruction",
    "prompt",
    "sentence",
    "text",
];
const POSITIVES: &[&str] = &[
    "positive",
    "pos",
    "document",
    "passage",
    "answer",
    "sentence2",
    "sentence_1",
    "text2",
    "output",
    "completion",
    "response",
    "context",
];
const LABELS: &[&str] = &["label", "labels", "score", "scores", "similarity"];

/// A row: texts, and perhaps numbers that belong to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextRow {
    /// The texts: anchor, positive, negatives.
    pub texts: Vec<String>,
    /// What the loss wants: a similarity, a class, margins, or a teacher's embedding.
    pub labels: Vec<f32>,
}

/// Rows with the same number of texts and of labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextDataset {
    /// The names of the columns of texts.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<TextRow>,
}

impl TextDataset {
    /// Rows without a file.
    ///
    /// # Errors
    ///
    /// If rows differ in their number of texts or labels.
    pub fn new(rows: Vec<TextRow>) -> Result<Self> {
        let first = rows.first().map_or(0, |row| row.texts.len());
        let columns = (0..first).map(|column| match column {
            0 => "anchor".to_string(),
            1 => "positive".to_string(),
            n => format!("negative_{}", n - 1),
        });
        let dataset = Self {
            columns: columns.collect(),
            rows,
        };
        dataset.check()?;
        Ok(dataset)
    }

    /// Reads a JSON array or JSONL.
    ///
    /// Columns are found by their usual names: an anchor (`anchor`, `query`, `question`, `sentence1`, `instruction`, `text`,
    /// ...), a positive (`positive`, `document`, `answer`, `sentence2`, `output`, ...), negatives (`negative`, `negative_1`,
    /// ..., or a list `negatives`), and labels (`label`, `score`, ..., a number or a list of numbers, in CSV as text).
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or a row lacks a column that the first one has.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::load_columns(path, &[])
    }

    /// [`load`](Self::load) with the names of the columns of texts, in their order. Without names the usual ones are
    /// looked for.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_columns(path: impl AsRef<Path>, columns: &[&str]) -> Result<Self> {
        let path = path.as_ref();
        let rows = read_rows(path)?;
        let fail =
            |row: usize, reason: String| Error::file(path, format!("row {}: {reason}", row + 1));
        let object = |number: usize| -> Result<&Map<String, Value>> {
            let object = rows[number].as_object();
            object.ok_or_else(|| fail(number, "it must be an object with columns".into()))
        };
        let first = object(0)?;
        let columns: Vec<String> = match columns.is_empty() {
            false => columns.iter().map(|name| (*name).to_string()).collect(),
            true => usual_columns(first).map_err(|reason| fail(0, reason))?,
        };
        let label = LABELS.iter().find(|name| first.contains_key(**name));
        let label = label.filter(|name| !columns.iter().any(|column| column == *name));
        let mut parsed = Vec::with_capacity(rows.len());
        for number in 0..rows.len() {
            let row = object(number)?;
            let mut texts = Vec::with_capacity(columns.len());
            for name in &columns {
                match row.get(name) {
                    Some(Value::String(text)) => texts.push(text.clone()),
                    Some(Value::Array(list)) => {
                        for text in list {
                            let text = text.as_str();
                            let text = text.ok_or_else(|| {
                                fail(number, format!("{name} must be a list of texts"))
                            })?;
                            texts.push(text.to_string());
                        }
                    }
                    Some(_) => return Err(fail(number, format!("{name} must be a text"))),
                    None => {
                        let there: Vec<&str> = row.keys().map(String::as_str).collect();
                        return Err(fail(
                            number,
                            format!(
                                "there is no column {name}; the columns are: {}",
                                there.join(", ")
                            ),
                        ));
                    }
                }
            }
            let labels = match label {
                None => Vec::new(),
                Some(name) => numbers(row.get(*name)).ok_or_else(|| {
                    fail(
                        number,
                        format!("{name} must be a number or a list of numbers"),
                    )
                })?,
            };
            parsed.push(TextRow { texts, labels });
        }
        let dataset = Self {
            columns,
            rows: parsed,
        };
        dataset
            .check()
            .map_err(|error| Error::file(path, error.to_string()))?;
        Ok(dataset)
    }

    fn check(&self) -> Result<()> {
        let Some(first) = self.rows.first() else {
            return Err(Error::Settings("there are no rows".into()));
        };
        for (number, row) in self.rows.iter().enumerate() {
            if row.texts.len() != first.texts.len() || row.labels.len() != first.labels.len() {
                return Err(Error::Settings(format!(
                    "row {} has {} texts and {} labels, row 1 has {} and {}: all rows need as many",
                    number + 1,
                    row.texts.len(),
                    row.labels.len(),
                    first.texts.len(),
                    first.labels.len()
                )));
            }
            if let Some(label) = row.labels.iter().find(|label| !label.is_finite()) {
                return Err(Error::Settings(format!(
                    "row {} has the label {label}",
                    number + 1
                )));
            }
        }
        if first.texts.is_empty() {
            return Err(Error::Settings("the rows have no texts".into()));
        }
        Ok(())
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows whose label is at least `least`, without their labels: texts that belong together, for losses with negatives and
    /// for retrieval. Rows without labels are all of them.
    ///
    /// # Errors
    ///
    /// If rows have several labels, or none has such a label.
    pub fn positives(&self, least: f32) -> Result<Self> {
        if let Some(row) = self.rows.iter().position(|row| row.labels.len() > 1) {
            return Err(Error::Settings(format!(
                "row {} has {} labels: there must be one, for whether its texts belong together",
                row + 1,
                self.rows[row].labels.len()
            )));
        }
        let positive = |row: &&TextRow| row.labels.first().is_none_or(|label| *label >= least);
        let kept = Self {
            columns: self.columns.clone(),
            rows: self.rows.iter().filter(positive).cloned().collect(),
        };
        match kept.is_empty() {
            true => Err(Error::Settings(format!(
                "no row has a label of {least} or more"
            ))),
            false => Ok(kept.without_labels()),
        }
    }

    /// A hash of all texts and labels, by which a resumed run checks that its rows have not changed.
    pub fn fingerprint(&self) -> String {
        let numbers = self.rows.iter().flat_map(|row| {
            let texts = row.texts.iter().flat_map(|text| {
                let bytes = text.bytes().map(i64::from);
                bytes.chain([-1])
            });
            let labels = row.labels.iter().map(|label| i64::from(label.to_bits()));
            texts.chain(labels).chain([-2])
        });
        ft_data::fingerprint(numbers)
    }

    /// The rows without their labels.
    #[must_use]
    pub fn without_labels(mut self) -> Self {
        self.rows.iter_mut().for_each(|row| row.labels.clear());
        self
    }

    /// Checks the labels of each row.
    pub(crate) fn check_labels(&self, mistake: impl Fn(&[f32]) -> Option<String>) -> Result<()> {
        for (number, row) in self.rows.iter().enumerate() {
            if let Some(reason) = mistake(&row.labels) {
                return Err(Error::Settings(format!("row {}: {reason}", number + 1)));
            }
        }
        Ok(())
    }

    /// Two parts by chance, the second with `fraction` of the rows, at least one and not all of them. Rows with the same
    /// anchor or the same positive are in the same part, so that nothing that is held out was trained on.
    ///
    /// # Errors
    ///
    /// If the fraction is not between 0 and 1, or all rows belong together.
    pub fn split(&self, fraction: f64, seed: u64) -> Result<(Self, Self)> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(Error::Settings(format!(
                "{fraction} is no fraction to hold out: it must be between 0 and 1"
            )));
        }
        let groups = self.groups();
        let wanted = ((self.len() as f64 * fraction).round() as usize).max(1);
        let mut held = vec![false; self.len()];
        let mut count = 0;
        for place in crate::batches::shuffled(groups.len(), seed, 0) {
            let group = &groups[place];
            if count >= wanted {
                break;
            }
            if count + group.len() < self.len() {
                group.iter().for_each(|&row| held[row] = true);
                count += group.len();
            }
        }
        if count == 0 {
            return Err(Error::Settings(
                "all rows have texts in common: nothing can be held out".into(),
            ));
        }
        let part = |which: bool| Self {
            columns: self.columns.clone(),
            rows: (self.rows.iter().zip(&held))
                .filter(|(_, held)| **held == which)
                .map(|(row, _)| row.clone())
                .collect(),
        };
        Ok((part(false), part(true)))
    }

    /// Rows that share the text of one of the first two columns, directly or through others.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut parent: Vec<usize> = (0..self.len()).collect();
        fn root(parent: &mut [usize], mut row: usize) -> usize {
            while parent[row] != row {
                parent[row] = parent[parent[row]];
                row = parent[row];
            }
            row
        }
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (number, row) in self.rows.iter().enumerate() {
            for text in row.texts.iter().take(2) {
                let other = *seen.entry(text).or_insert(number);
                let (a, b) = (root(&mut parent, number), root(&mut parent, other));
                parent[a.max(b)] = a.min(b);
            }
        }
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for row in 0..self.len() {
            groups.entry(root(&mut parent, row)).or_default().push(row);
        }
        groups.into_values().collect()
    }
}

fn usual_columns(row: &Map<String, Value>) -> std::result::Result<Vec<String>, String> {
    let find = |names: &[&str]| {
        let mut names = names.iter();
        names
            .find(|name| row.contains_key(**name))
            .map(|name| (*name).to_string())
    };
    let there = || {
        row.keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let anchor = find(ANCHORS).ok_or_else(|| {
        format!(
            "no column has a usual name of an anchor; the columns are: {}; name those to use",
            there()
        )
    })?;
    let positive = find(POSITIVES);
    let mut columns = vec![anchor];
    if let Some(positive) = positive {
        columns.push(positive);
        let mut negatives: Vec<(usize, String)> = row
            .keys()
            .filter_map(|name| match name.as_str() {
                "negative" | "negatives" | "neg" => Some((0, name.clone())),
                _ => {
                    let number = name.strip_prefix("negative_")?.parse().ok()?;
                    Some((number, name.clone()))
                }
            })
            .collect();
        negatives.sort_unstable();
        columns.extend(negatives.into_iter().map(|(_, name)| name));
    }
    Ok(columns)
}

fn numbers(value: Option<&Value>) -> Option<Vec<f32>> {
    let one = |value: &Value| match value {
        Value::Number(number) => number.as_f64().map(|x| x as f32),
        Value::Bool(yes) => Some(f32::from(u8::from(*yes))),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match value? {
        Value::Array(list) => list.iter().map(one).collect(),
        // A list in CSV.
        Value::String(text) if text.trim_start().starts_with('[') => {
            let list: Value = serde_json::from_str(text).ok()?;
            numbers(Some(&list))
        }
        other => one(other).map(|x| vec![x]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::TempDir::new().expect("temporary folder");
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, text).expect("writes");
        (folder, path)
    }

    #[test]
    fn columns_are_found_by_name_and_put_in_order() {
        let (_folder, path) = file(
            "{\"negative_2\": \"d\", \"negative_1\": \"c\", \"answer\": \"b\", \"query\": \"a\", \"score\": 0.5}\n",
        );
        let dataset = TextDataset::load(&path).expect("reads");
        assert_eq!(
            dataset.columns,
            ["query", "answer", "negative_1", "negative_2"]
        );
        assert_eq!(dataset.rows[0].texts, ["a", "b", "c", "d"]);
        assert_eq!(dataset.rows[0].labels, [0.5]);
        let named = TextDataset::load_columns(&path, &["answer", "negative_2"]).expect("reads");
        assert_eq!(named.rows[0].texts, ["b", "d"]);
    }

    #[test]
    fn labels_of_csv_are_numbers() {
        let folder = tempfile::TempDir::new().expect("temporary folder");
        let path = folder.path().join("rows.csv");
        let load = |lines: &str| {
            std::fs::write(&path, lines).expect("writes");
            TextDataset::load(&path).map(|dataset| dataset.rows)
        };
        let rows = load("sentence1,sentence2,label\na,b,1\nc,d,0.5\n").expect("reads");
        assert_eq!((rows[0].labels[0], rows[1].labels[0]), (1.0, 0.5));
        let rows = load("query,answer,negative,labels\na,b,c,\"[1, 2.5]\"\n").expect("reads");
        assert_eq!(rows[0].labels, [1.0, 2.5]);
        let error = load("sentence1,sentence2,label\na,b,good\n").expect_err("a name");
        assert!(
            error.to_string().contains("label must be a number"),
            "{error}"
        );
    }

    #[test]
    fn positives_have_high_labels_and_lose_them() {
        let row = |label: f32| TextRow {
            texts: vec![format!("a{label}"), "b".into()],
            labels: vec![label],
        };
        let all = TextDataset::new([0.0, 1.0, 0.5].map(row).to_vec()).expect("rows");
        let kept = all.positives(0.5).expect("two");
        assert_eq!(kept.rows[0].texts[0], "a1");
        assert!(kept.len() == 2 && kept.rows.iter().all(|row| row.labels.is_empty()));
        assert!(all.positives(2.0).is_err());
    }

    #[test]
    fn what_is_missing_is_named_with_its_row() {
        let (_folder, path) = file("{\"query\": \"a\", \"answer\": \"b\"}\n{\"query\": \"c\"}\n");
        let error = TextDataset::load(&path).expect_err("no answer").to_string();
        assert!(
            error.contains("row 2") && error.contains("answer"),
            "{error}"
        );
        let (_folder, path) = file("{\"x\": \"a\"}\n");
        let error = TextDataset::load(&path).expect_err("no names").to_string();
        assert!(error.contains("the columns are: x"), "{error}");
    }

    #[test]
    fn rows_with_a_common_text_are_held_out_together() {
        let rows = (0..40).map(|i| TextRow {
            texts: vec![format!("q{}", i / 2), format!("d{i}")],
            labels: Vec::new(),
        });
        let dataset = TextDataset::new(rows.collect()).expect("rows");
        let (train, held) = dataset.split(0.25, 1).expect("splits");
        assert_eq!((train.len(), held.len()), (30, 10));
        for row in &held.rows {
            assert!(
                train
                    .rows
                    .iter()
                    .all(|other| other.texts[0] != row.texts[0])
            );
        }
        let same = TextDataset::new(vec![
            TextRow {
                texts: vec!["a".into()],
                labels: vec![]
            };
            3
        ]);
        assert!(same.expect("rows").split(0.5, 1).is_err());
    }
}
