//! What a system found.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::qrels::{invalid, is_json, lines, read};
use crate::{Error, Result};

/// The order of documents with equal scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// By name, the last one first: trec_eval, MTEB.
    #[default]
    Descending,
    /// By name, the first one first: sentence-transformers.
    Ascending,
}

/// The scores of the documents that a system found, by query.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Run(BTreeMap<String, BTreeMap<String, f64>>);

impl Run {
    /// An empty run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Scores a document.
    ///
    /// # Errors
    ///
    /// If the score is not finite, or the document is scored already.
    pub fn insert(&mut self, query: &str, document: &str, score: f64) -> Result<()> {
        if !score.is_finite() {
            return Err(Error::Input(format!(
                "the score of document {document} for query {query} is {score}"
            )));
        }
        let documents = self.0.entry(query.to_string()).or_default();
        match documents.insert(document.to_string(), score) {
            None => Ok(()),
            Some(_) => Err(Error::Input(format!(
                "document {document} is scored twice for query {query}"
            ))),
        }
    }

    /// Notes that a query was answered, perhaps with no document at all.
    pub fn answer(&mut self, query: &str) {
        self.0.entry(query.to_string()).or_default();
    }

    /// The queries.
    pub fn queries(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The scores of a query's documents.
    pub fn of(&self, query: &str) -> Option<&BTreeMap<String, f64>> {
        self.0.get(query)
    }

    /// The documents of a query, the best first.
    pub fn ranking(&self, query: &str, ties: Ties) -> Vec<&str> {
        let Some(documents) = self.0.get(query) else {
            return Vec::new();
        };
        let mut all: Vec<(&str, f64)> = (documents.iter())
            .map(|(document, score)| (document.as_str(), *score))
            .collect();
        all.sort_by(|a, b| {
            let by_score = b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal);
            by_score.then(match ties {
                Ties::Descending => b.0.cmp(a.0),
                Ties::Ascending => a.0.cmp(b.0),
            })
        });
        all.into_iter().map(|(document, _)| document).collect()
    }

    /// Reads trec's form, `query Q0 document rank score name` a line, or, from a file that ends in `.json`, ranx's, `{query:
    /// {document: score}}`. Ranks are ignored, as trec_eval does.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or a line is of another form.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read(path)?;
        if is_json(path) {
            let run = serde_json::from_str(&text);
            return run.map_err(|error| invalid(path, error.to_string()));
        }
        let mut run = Self::new();
        for (number, line) in lines(&text) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [query, _, document, _, score, ..] = fields[..] else {
                return Err(invalid(
                    path,
                    format!(
                        "line {number} has {} fields: `query Q0 document rank score name` is expected",
                        fields.len()
                    ),
                ));
            };
            let score = score.parse().map_err(|_| {
                invalid(
                    path,
                    format!("line {number}: the score {:?} is no number", fields[4]),
                )
            })?;
            run.insert(query, document, score)
                .map_err(|error| invalid(path, format!("line {number}: {error}")))?;
        }
        Ok(run)
    }

    /// trec's form, with a name of the system.
    pub fn to_trec(&self, name: &str, ties: Ties) -> String {
        let mut text = String::new();
        for (query, documents) in &self.0 {
            for (rank, document) in self.ranking(query, ties).into_iter().enumerate() {
                let score = documents[document];
                let _ = writeln!(text, "{query} Q0 {document} {} {score} {name}", rank + 1);
            }
        }
        text
    }
}
