//! Hard negatives: documents that a model finds near to a query although they do not answer it (Karpukhin et al., 2020,
//! arXiv:2004.04906, section 3.2; Moreira et al., 2024, arXiv:2407.15831, section 3.2, for the margins).

use std::collections::{HashMap, HashSet};

use ft_core::mix_seed;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::{Embeddings, Error, ExactIndex, Result, TextDataset, TextRow, VectorIndex};

/// Which documents are taken for negatives.
#[derive(Clone, Debug, PartialEq)]
pub struct MiningConfig {
    /// How many negatives a query gets.
    pub num_negatives: usize,
    /// The best so many documents that are no positives are left out.
    pub range_min: usize,
    /// So many of the best documents are looked at, positives not counted.
    pub range_max: usize,
    /// A negative's score must be lower than that of the query's worst positive by this much.
    pub absolute_margin: Option<f64>,
    /// A negative's score must be lower by this part of that score. 0.05 leaves those below 95% of it.
    pub relative_margin: Option<f64>,
    /// A negative's score must be at least this.
    pub min_score: Option<f64>,
    /// A negative's score must be at most this.
    pub max_score: Option<f64>,
    /// Draws negatives from those that are left by this seed, instead of the best ones.
    pub random: Option<u64>,
}

impl Default for MiningConfig {
    /// Three negatives among the best 50 documents, below 95% of the positive's score.
    fn default() -> Self {
        Self {
            num_negatives: 3,
            range_min: 0,
            range_max: 50,
            absolute_margin: None,
            relative_margin: Some(0.05),
            min_score: None,
            max_score: None,
            random: None,
        }
    }
}

/// What mining found.
#[derive(Clone, Debug, PartialEq)]
pub struct Mined {
    /// Anchor, positive and negatives; rows with fewer than wanted are left out.
    pub dataset: TextDataset,
    /// The number of rows that had too few negatives.
    pub left_out: usize,
    /// The number of candidates that a margin or a bound of scores left out.
    pub filtered: usize,
}

/// Scores pairs of query and document, as a cross-encoder does.
pub type PairScorer<'a> = &'a mut dyn FnMut(&[(&str, &str)]) -> Result<Vec<f32>>;

/// Hard negatives for pairs of anchor and positive. All positives are candidates; those of the same anchor are none of its
/// negatives.
///
/// `anchors` and `positives` are the embeddings of the rows' texts, normalized if cosines are to be compared. `scorer`, if
/// given, scores the candidates again, and the margins are about its scores.
///
/// # Errors
///
/// If rows are no pairs or have labels, embeddings and rows are not as many, or settings make no sense.
pub fn mine_hard_negatives(
    pairs: &TextDataset,
    anchors: &Embeddings,
    positives: &Embeddings,
    config: &MiningConfig,
    mut scorer: Option<PairScorer<'_>>,
) -> Result<Mined> {
    config.validate()?;
    let rows = &pairs.rows;
    if rows.iter().any(|row| row.texts.len() < 2) {
        return Err(Error::Settings(
            "mining needs rows with an anchor and a positive".into(),
        ));
    }
    if rows.iter().any(|row| !row.labels.is_empty()) {
        return Err(Error::Settings(
            "rows have labels, so their texts may not belong together: mine the positives".into(),
        ));
    }
    if anchors.len() != rows.len() || positives.len() != rows.len() {
        return Err(Error::Embeddings(format!(
            "{} rows have {} embeddings of anchors and {} of positives: all must be as many",
            rows.len(),
            anchors.len(),
            positives.len()
        )));
    }
    // The corpus is the distinct positives.
    let mut number: HashMap<&str, usize> = HashMap::new();
    let mut corpus: Vec<usize> = Vec::new();
    let of_row: Vec<usize> = (rows.iter().enumerate())
        .map(|(row, texts)| {
            *number.entry(texts.texts[1].as_str()).or_insert_with(|| {
                corpus.push(row);
                corpus.len() - 1
            })
        })
        .collect();
    let mut of_anchor: HashMap<&str, HashSet<usize>> = HashMap::new();
    for (row, &document) in rows.iter().zip(&of_row) {
        of_anchor.entry(&row.texts[0]).or_default().insert(document);
    }
    let documents = positives.select(&corpus);
    let index = ExactIndex::new(&documents)?;
    let most = of_anchor.values().map(HashSet::len).max().unwrap_or(0);
    let found = index.search(anchors, config.range_max + most)?;
    let mut mined = Mined {
        dataset: TextDataset {
            columns: pairs.columns[..2.min(pairs.columns.len())].to_vec(),
            rows: Vec::new(),
        },
        left_out: 0,
        filtered: 0,
    };
    let names = (1..=config.num_negatives).map(|n| format!("negative_{n}"));
    mined.dataset.columns.extend(names);
    for (row, hits) in found.into_iter().enumerate() {
        let [anchor, positive] = [&rows[row].texts[0], &rows[row].texts[1]];
        let own = &of_anchor[anchor.as_str()];
        let text = |document: usize| rows[corpus[document]].texts[1].as_str();
        let mut candidates: Vec<(usize, f64)> = (hits.iter())
            .filter(|hit| !own.contains(&hit.document) && text(hit.document) != anchor)
            .take(config.range_max)
            .skip(config.range_min)
            .map(|hit| (hit.document, f64::from(hit.score)))
            .collect();
        let mut worst: f64 = (own.iter())
            .map(|&document| {
                let both = anchors.row(row).iter().zip(documents.row(document));
                both.map(|(a, b)| f64::from(a * b)).sum()
            })
            .fold(f64::INFINITY, f64::min);
        if let Some(scorer) = &mut scorer {
            let mut ask: Vec<(&str, &str)> = candidates
                .iter()
                .map(|(d, _)| (anchor.as_str(), text(*d)))
                .collect();
            ask.extend(
                own.iter()
                    .map(|&document| (anchor.as_str(), text(document))),
            );
            let scores = scorer(&ask)?;
            if scores.len() != ask.len() {
                return Err(Error::Embeddings(format!(
                    "the scorer gave {} scores for {} pairs",
                    scores.len(),
                    ask.len()
                )));
            }
            let (of_candidates, of_own) = scores.split_at(candidates.len());
            for (candidate, score) in candidates.iter_mut().zip(of_candidates) {
                candidate.1 = f64::from(*score);
            }
            worst = of_own
                .iter()
                .copied()
                .map(f64::from)
                .fold(f64::INFINITY, f64::min);
            candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
        }
        let before = candidates.len();
        candidates.retain(|(_, score)| config.accepts(*score, worst));
        mined.filtered += before - candidates.len();
        if candidates.len() < config.num_negatives {
            mined.left_out += 1;
            continue;
        }
        if let Some(seed) = config.random {
            candidates.shuffle(&mut StdRng::seed_from_u64(mix_seed(seed, row as u64)));
        }
        let mut texts = vec![anchor.clone(), positive.clone()];
        let negatives = candidates.iter().take(config.num_negatives);
        texts.extend(negatives.map(|(document, _)| text(*document).to_string()));
        mined.dataset.rows.push(TextRow {
            texts,
            labels: Vec::new(),
        });
    }
    Ok(mined)
}

impl MiningConfig {
    fn validate(&self) -> Result<()> {
        if self.num_negatives == 0 || self.range_min + self.num_negatives > self.range_max {
            return Err(Error::Settings(format!(
                "{} negatives cannot be found in places {} to {}: the range must hold them",
                self.num_negatives, self.range_min, self.range_max
            )));
        }
        Ok(())
    }

    fn accepts(&self, score: f64, positive: f64) -> bool {
        let absolute = self
            .absolute_margin
            .is_none_or(|margin| score + margin <= positive);
        let relative = self
            .relative_margin
            .is_none_or(|margin| score <= positive - positive.abs() * margin);
        let low = self.min_score.is_none_or(|least| score >= least);
        let high = self.max_score.is_none_or(|most| score <= most);
        absolute && relative && low && high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Anchors point at 0°, positives at 10° times their number.
    fn setting() -> (TextDataset, Embeddings, Embeddings) {
        let rows = (0..6).map(|i| TextRow {
            texts: vec![
                "q".to_string() + if i < 2 { "" } else { "x" },
                format!("d{i}"),
            ],
            labels: Vec::new(),
        });
        let anchors = Embeddings::new([1.0, 0.0].repeat(6), 2).expect("rows");
        let positives = (0..6).flat_map(|i| {
            let angle = (10.0 * i as f32).to_radians();
            [angle.cos(), angle.sin()]
        });
        let positives = Embeddings::new(positives.collect(), 2).expect("rows");
        (
            TextDataset::new(rows.collect()).expect("rows"),
            anchors,
            positives,
        )
    }

    fn negatives(config: &MiningConfig) -> (Vec<Vec<String>>, usize) {
        let (pairs, anchors, positives) = setting();
        let mined = mine_hard_negatives(&pairs, &anchors, &positives, config, None).expect("mines");
        let rows = mined.dataset.rows.iter().filter(|row| row.texts[0] == "q");
        (
            rows.map(|row| row.texts[2..].to_vec()).collect(),
            mined.left_out,
        )
    }

    #[test]
    fn positives_of_the_same_anchor_are_no_negatives() {
        let config = MiningConfig {
            num_negatives: 2,
            range_max: 4,
            relative_margin: None,
            ..MiningConfig::default()
        };
        assert_eq!(negatives(&config).0, [["d2", "d3"], ["d2", "d3"]]);
        let later = MiningConfig {
            range_min: 1,
            ..config
        };
        assert_eq!(negatives(&later).0, [["d3", "d4"], ["d3", "d4"]]);
    }

    /// The worst positive of `q` is at 10°: 0.98481. d2 has 0.93969, d3 0.86603.
    #[test]
    fn margins_are_about_the_worst_positive() {
        let config = MiningConfig {
            num_negatives: 1,
            range_max: 4,
            relative_margin: Some(0.05),
            ..MiningConfig::default()
        };
        assert_eq!(negatives(&config).0, [["d3"], ["d3"]]);
        let absolute = MiningConfig {
            absolute_margin: Some(0.3),
            relative_margin: None,
            ..config.clone()
        };
        // 0.98481 − 0.3: cos 50°
        assert_eq!(negatives(&absolute).0, [["d5"], ["d5"]]);
        let none = MiningConfig {
            max_score: Some(0.1),
            ..config
        };
        assert_eq!(negatives(&none), (vec![], 6));
    }

    #[test]
    fn rows_with_labels_are_no_positives() {
        let (mut pairs, anchors, positives) = setting();
        pairs.rows[3].labels.push(0.0);
        let config = MiningConfig::default();
        let error = mine_hard_negatives(&pairs, &anchors, &positives, &config, None);
        assert!(error.expect_err("a label").to_string().contains("labels"));
    }

    #[test]
    fn a_scorer_decides_where_it_is_given() {
        let (pairs, anchors, positives) = setting();
        let config = MiningConfig {
            num_negatives: 1,
            range_max: 4,
            ..MiningConfig::default()
        };
        let mut scorer = |pairs: &[(&str, &str)]| -> Result<Vec<f32>> {
            let score = |(_, document): &(&str, &str)| match *document {
                "d0" | "d1" => 0.9,
                "d4" => 0.8,
                _ => 0.1,
            };
            Ok(pairs.iter().map(score).collect())
        };
        let mined = mine_hard_negatives(&pairs, &anchors, &positives, &config, Some(&mut scorer));
        let mined = mined.expect("mines");
        assert_eq!(mined.dataset.rows[0].texts[2], "d4");
    }
}
