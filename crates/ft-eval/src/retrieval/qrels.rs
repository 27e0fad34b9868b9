//! Judgements: how relevant documents are to queries.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The relevance of documents to queries. Documents that are not listed, or with 0 or less, are not relevant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Qrels(BTreeMap<String, BTreeMap<String, f64>>);

impl Qrels {
    /// No judgements.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges a document; a second judgement replaces the first.
    ///
    /// # Errors
    ///
    /// If the relevance is not finite.
    pub fn insert(&mut self, query: &str, document: &str, relevance: f64) -> Result<()> {
        if !relevance.is_finite() {
            return Err(Error::Input(format!(
                "the relevance of document {document} to query {query} is {relevance}"
            )));
        }
        let documents = self.0.entry(query.to_string()).or_default();
        documents.insert(document.to_string(), relevance);
        Ok(())
    }

    /// The queries that have a relevant document.
    pub fn queries(&self) -> impl Iterator<Item = &str> {
        let relevant = |documents: &BTreeMap<String, f64>| documents.values().any(|r| *r > 0.0);
        let queries = self
            .0
            .iter()
            .filter(move |(_, documents)| relevant(documents));
        queries.map(|(query, _)| query.as_str())
    }

    /// The judgements of a query.
    pub fn of(&self, query: &str) -> Option<&BTreeMap<String, f64>> {
        self.0.get(query)
    }

    /// The number of queries, also of those without a relevant document.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no judgements.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads trec's form, `query 0 document relevance` a line, or, from a file that ends in `.json`, ranx's, `{query: {document:
    /// relevance}}`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or a line is of another form.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read(path)?;
        if is_json(path) {
            let qrels = serde_json::from_str(&text);
            return qrels.map_err(|error| invalid(path, error.to_string()));
        }
        let mut qrels = Self::new();
        for (number, line) in lines(&text) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [query, _, document, relevance] = fields[..] else {
                return Err(invalid(
                    path,
                    format!(
                        "line {number} has {} fields: `query 0 document relevance` is expected",
                        fields.len()
                    ),
                ));
            };
            let relevance = relevance.parse();
            let relevance = relevance.map_err(|_| {
                invalid(
                    path,
                    format!("line {number}: the relevance {:?} is no number", fields[3]),
                )
            })?;
            qrels.insert(query, document, relevance)?;
        }
        Ok(qrels)
    }

    /// trec's form.
    pub fn to_trec(&self) -> String {
        let mut text = String::new();
        for (query, documents) in &self.0 {
            for (document, relevance) in documents {
                let _ = writeln!(text, "{query} 0 {document} {relevance}");
            }
        }
        text
    }
}

pub(super) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_path_buf(),
        source,
    })
}

pub(super) fn invalid(path: &Path, reason: String) -> Error {
    Error::Invalid {
        path: path.to_path_buf(),
        reason,
    }
}

pub(super) fn is_json(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "json")
}

/// Lines that are not empty, with their numbers.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate();
    lines
        .map(|(i, line)| (i + 1, line))
        .filter(|(_, line)| !line.trim().is_empty())
}
