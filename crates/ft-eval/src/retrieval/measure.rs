//! Measures of a ranking (Manning, Raghavan & Schütze, *Introduction to Information Retrieval*, 2008, chapter 8; Järvelin &
//! Kekäläinen, TOIS 20, 2002; Burges et al., ICML 2005).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::{Qrels, Run, Ties};
use crate::{Error, Result};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Mrr,
    Map,
    MapAtMost,
    Ndcg,
    NdcgBurges,
    Precision,
    Recall,
    F1,
    HitRate,
    RPrecision,
}

/// A measure and how many documents of a ranking count, written as `ndcg@10` or `mrr`.
///
/// With `R` relevant documents of a query, `rel` of them among the first `k`, and gains `g` by relevance:
///
/// - `mrr`: 1 over the rank of the first relevant document;
/// - `map`: `Σ precision at each relevant document / R`; `map_at_most` divides by `min(k, R)`, as sentence-transformers;
/// - `ndcg`: `Σ g / log₂(1 + rank)` over that of the best order, with the relevance as gain; `ndcg_burges` with
///   `2^relevance − 1`;
/// - `precision`: `rel / k`, also where fewer than `k` documents were found; `recall`: `rel / R`; `f1` of both;
/// - `hit_rate`: 1 if there is a relevant document;
/// - `r-precision`: precision at `R`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Measure {
    kind: Kind,
    k: Option<usize>,
}

const NAMES: [(&str, Kind); 10] = [
    ("mrr", Kind::Mrr),
    ("map", Kind::Map),
    ("map_at_most", Kind::MapAtMost),
    ("ndcg", Kind::Ndcg),
    ("ndcg_burges", Kind::NdcgBurges),
    ("precision", Kind::Precision),
    ("recall", Kind::Recall),
    ("f1", Kind::F1),
    ("hit_rate", Kind::HitRate),
    ("r-precision", Kind::RPrecision),
];

impl FromStr for Measure {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, k) = match text.split_once('@') {
            None => (text, None),
            Some((name, k)) => match k.parse() {
                Ok(k) if k > 0 => (name, Some(k)),
                _ => {
                    return Err(Error::Settings(format!(
                        "measure {text}: after @ there must be a positive number"
                    )));
                }
            },
        };
        let kind = NAMES.iter().find(|(known, _)| *known == name);
        match kind {
            Some((_, kind)) => Ok(Self { kind: *kind, k }),
            None => {
                let known = NAMES.map(|(name, _)| name).join(", ");
                Err(Error::Settings(format!(
                    "there is no measure {name}: use {known}"
                )))
            }
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, kind)| *kind == self.kind);
        f.write_str(name.map_or("", |(name, _)| name))?;
        match self.k {
            None => Ok(()),
            Some(k) => write!(f, "@{k}"),
        }
    }
}

impl Serialize for Measure {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Measure {
    /// The value for one ranking, the best document first; 0 if no document is relevant.
    ///
    /// ```
    /// # use ft_eval::retrieval::Measure;
    /// # use std::collections::BTreeMap;
    /// let relevant = BTreeMap::from([("b".to_string(), 1.0), ("d".to_string(), 2.0)]);
    /// let measure: Measure = "ndcg@3".parse()?;
    /// // 1/log₂ 3 of 2/log₂ 2 + 1/log₂ 3
    /// assert!((measure.of(&["a", "b", "c", "d"], &relevant) - 0.2398).abs() < 1e-4);
    /// # Ok::<(), ft_eval::Error>(())
    /// ```
    pub fn of<S: AsRef<str>>(&self, ranking: &[S], relevances: &BTreeMap<String, f64>) -> f64 {
        let total = relevances.values().filter(|r| **r > 0.0).count();
        if total == 0 {
            return 0.0;
        }
        let k = match self.kind {
            Kind::RPrecision => total,
            _ => self.k.unwrap_or(ranking.len()),
        };
        let relevance = |document: &S| relevances.get(document.as_ref()).copied().unwrap_or(0.0);
        let found: Vec<f64> = ranking
            .iter()
            .take(k)
            .map(|d| relevance(d).max(0.0))
            .collect();
        let hits = found.iter().filter(|r| **r > 0.0).count();
        let share = |part: usize, of: usize| match of {
            0 => 0.0,
            of => part as f64 / of as f64,
        };
        match self.kind {
            Kind::Mrr => {
                let first = found.iter().position(|r| *r > 0.0);
                first.map_or(0.0, |place| 1.0 / (place + 1) as f64)
            }
            Kind::Map | Kind::MapAtMost => {
                let mut hits = 0;
                let mut sum = 0.0;
                for (place, _) in found.iter().enumerate().filter(|(_, r)| **r > 0.0) {
                    hits += 1;
                    sum += share(hits, place + 1);
                }
                match self.kind {
                    Kind::MapAtMost => sum / total.min(self.k.unwrap_or(total)) as f64,
                    _ => sum / total as f64,
                }
            }
            Kind::Ndcg | Kind::NdcgBurges => {
                let gain = |relevance: f64| match self.kind {
                    Kind::NdcgBurges => relevance.exp2() - 1.0,
                    _ => relevance,
                };
                let dcg = |relevances: &mut dyn Iterator<Item = f64>| -> f64 {
                    let gains = relevances.enumerate();
                    gains.map(|(i, r)| gain(r) / (i as f64 + 2.0).log2()).sum()
                };
                let mut best: Vec<f64> =
                    relevances.values().copied().filter(|r| *r > 0.0).collect();
                best.sort_by(|a, b| b.total_cmp(a));
                let most = self.k.unwrap_or(best.len());
                let ideal = dcg(&mut best.into_iter().take(most));
                dcg(&mut found.into_iter()) / ideal
            }
            Kind::Precision | Kind::RPrecision => share(hits, k),
            Kind::Recall => share(hits, total),
            Kind::F1 => {
                let (precision, recall) = (share(hits, k), share(hits, total));
                match hits {
                    0 => 0.0,
                    _ => 2.0 * precision * recall / (precision + recall),
                }
            }
            Kind::HitRate => f64::from(u8::from(hits > 0)),
        }
    }
}

/// The values of one measure, query by query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Which measure.
    pub measure: Measure,
    /// The queries that have a relevant document, in order.
    pub queries: Vec<String>,
    /// Their values; 0 where the system did not answer.
    pub values: Vec<f64>,
    /// How many of these queries the system did not answer.
    pub unanswered: usize,
}

impl Scores {
    /// The mean over all queries.
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }
}

/// Measures a run, query by query.
///
/// # Errors
///
/// If no query has a relevant document.
pub fn evaluate(qrels: &Qrels, run: &Run, measures: &[Measure], ties: Ties) -> Result<Vec<Scores>> {
    let queries: Vec<&str> = qrels.queries().collect();
    if queries.is_empty() {
        return Err(Error::Input(
            "no query has a relevant document: there is nothing to measure".to_string(),
        ));
    }
    let unanswered = queries
        .iter()
        .filter(|query| run.of(query).is_none())
        .count();
    let none = BTreeMap::new();
    let rankings: Vec<_> = (queries.iter())
        .map(|query| (run.ranking(query, ties), qrels.of(query).unwrap_or(&none)))
        .collect();
    let scores = measures.iter().map(|&measure| Scores {
        measure,
        queries: queries.iter().map(|query| (*query).to_string()).collect(),
        values: (rankings.iter())
            .map(|(ranking, relevances)| measure.of(ranking, relevances))
            .collect(),
        unanswered,
    });
    Ok(scores.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relevances() -> BTreeMap<String, f64> {
        [("a", 1.0), ("c", 2.0), ("x", 1.0), ("z", 0.0)]
            .map(|(document, r)| (document.to_string(), r))
            .into()
    }

    #[test]
    fn measures_by_hand() {
        let ranking = ["z", "a", "b", "c"];
        let log = |x: f64| x.log2();
        for (name, expected) in [
            ("mrr", 0.5),
            ("mrr@1", 0.0),
            // (1/2 + 2/4)/3
            ("map", 1.0 / 3.0),
            ("map@2", 1.0 / 6.0),
            ("map_at_most@2", 0.25),
            ("precision@2", 0.5),
            // four documents were found
            ("precision@8", 0.25),
            ("recall@2", 1.0 / 3.0),
            ("recall", 2.0 / 3.0),
            // 2/4 and 2/3
            ("f1", 4.0 / 7.0),
            ("hit_rate@1", 0.0),
            ("hit_rate@2", 1.0),
            // three are relevant, one of the first three is
            ("r-precision", 1.0 / 3.0),
            ("ndcg@2", (1.0 / log(3.0)) / (2.0 + 1.0 / log(3.0))),
            (
                "ndcg",
                (1.0 / log(3.0) + 2.0 / log(5.0)) / (2.0 + 1.0 / log(3.0) + 0.5),
            ),
            (
                "ndcg_burges",
                (1.0 / log(3.0) + 3.0 / log(5.0)) / (3.0 + 1.0 / log(3.0) + 0.5),
            ),
        ] {
            let measure: Measure = name.parse().expect("a measure");
            assert_eq!(measure.to_string(), name);
            let value = measure.of(&ranking, &relevances());
            assert!(
                (value - expected).abs() < 1e-12,
                "{name}: {value} {expected}"
            );
        }
    }

    #[test]
    fn unknown_measures_are_errors() {
        for name in ["ndgc@10", "ndcg@0", "ndcg@x", ""] {
            assert!(name.parse::<Measure>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_query_without_answer_scores_zero_and_one_without_relevant_documents_is_left_out() {
        let mut qrels = Qrels::new();
        for (query, document, relevance) in [("1", "a", 1.0), ("2", "b", 1.0), ("3", "c", 0.0)] {
            qrels.insert(query, document, relevance).expect("finite");
        }
        let mut run = Run::new();
        run.insert("1", "a", 0.5).expect("finite");
        let measures = ["recall@5".parse().expect("a measure")];
        let scores = evaluate(&qrels, &run, &measures, Ties::default()).expect("judged");
        assert_eq!(
            (scores[0].values.as_slice(), scores[0].unanswered),
            (&[1.0, 0.0][..], 1)
        );
        assert_eq!(scores[0].mean(), 0.5);
        assert!(run.insert("1", "a", 0.4).is_err() && run.insert("1", "b", f64::NAN).is_err());
    }
}
