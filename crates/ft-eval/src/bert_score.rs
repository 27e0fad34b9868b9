//! BERTScore (Zhang et al., 2020, arXiv:1904.09675), as bert_score 0.3.13 computes it, with any encoder of ft-core.
//!
//! Each token of a prediction is matched with the token of the reference whose hidden state is most similar (cosine), and the
//! other way round: `P = Σ w·max sim / Σ w` over the prediction's tokens, `R` over the reference's, `F` their harmonic mean. The
//! special tokens at the ends have weight 0. With `idf` a token has the weight `ln((N + 1)/(n + 1))`, where `n` of the `N`
//! references contain it.
//!
//! One thing differs: bert_score pads the texts of a batch to one length, and a similarity below 0 becomes 0 where there is
//! padding. Here padding has no effect.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::{Backbone, Bert, Pass, Tokenizer};
use serde::Serialize;

use crate::text::python_characters::is_space;
use crate::{Error, Result};

/// Precision, recall and F, each commonly between 0 and 1. With `idf`, if every reference contains all tokens of a text, their
/// weights are 0: the precision or recall is NaN, as in bert_score, and F is 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BertScore {
    /// Of the prediction's tokens.
    pub precision: f64,
    /// Of the reference's tokens.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// An encoder that compares texts.
#[derive(Debug)]
pub struct BertScorer {
    model: Bert,
    tokenizer: Tokenizer,
    device: Device,
    layers: usize,
    idf: bool,
    baseline: Option<[f64; 3]>,
    batch_tokens: usize,
}

/// A text's tokens, their weights and their hidden states.
struct Encoded {
    weights: Vec<f64>,
    /// `[tokens, width]`, of length 1 each.
    states: Tensor<2>,
    /// Whether there are only special tokens.
    empty: bool,
}

impl BertScorer {
    /// Loads an encoder whose hidden states after `layers` layers are compared. bert_score lists the best layer for each of its
    /// models (9 for `bert-base-uncased`, 17 for `roberta-large`).
    ///
    /// # Errors
    ///
    /// If the folder cannot be loaded, there are fewer layers, or the tokenizer has no tokens for the ends of a text.
    pub fn from_pretrained(folder: &Path, layers: usize, device: &Device) -> Result<Self> {
        let model = Bert::from_pretrained(folder, device).map_err(of_core)?;
        let tokenizer = Tokenizer::from_pretrained(folder).map_err(of_core)?;
        tokenizer
            .check_vocab(model.config().vocab_size)
            .map_err(of_core)?;
        if layers == 0 || layers > model.config().num_hidden_layers {
            return Err(Error::Settings(format!(
                "the encoder has {} layers: choose one of them, not {layers}",
                model.config().num_hidden_layers
            )));
        }
        let ends = tokenizer.encode("", true).map_err(of_core)?;
        if ends.len() != 2 {
            return Err(Error::Model(format!(
                "the tokenizer puts {} tokens around a text, and BERTScore needs one at either end: use the tokenizer.json \
                 of an encoder",
                ends.len()
            )));
        }
        Ok(Self {
            model,
            tokenizer,
            device: device.clone(),
            layers,
            idf: false,
            baseline: None,
            batch_tokens: 2048,
        })
    }

    /// Sets whether tokens are weighted by how rare they are among the references.
    #[must_use]
    pub fn with_idf(mut self, idf: bool) -> Self {
        self.idf = idf;
        self
    }

    /// Rescales scores so that random pairs have 0: `(x − b)/(1 − b)`. The baselines `b` come from a file in the format of
    /// bert_score: one row for each layer, with the columns `LAYER,P,R,F`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or has no row for the layer.
    pub fn with_baseline(mut self, path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_path_buf(),
            source,
        })?;
        let row = text.lines().skip(1).nth(self.layers);
        let numbers: Option<Vec<f64>> = row.and_then(|row| {
            row.split(',')
                .skip(1)
                .map(|cell| cell.trim().parse().ok())
                .collect()
        });
        let baseline = numbers.and_then(|numbers| <[f64; 3]>::try_from(numbers).ok());
        self.baseline = Some(baseline.ok_or_else(|| Error::Invalid {
            path: path.to_path_buf(),
            reason: format!("no row `LAYER,P,R,F` for layer {}", self.layers),
        })?);
        Ok(self)
    }

    /// The scores of each prediction. With several references, each of precision, recall and F is the best over the references.
    ///
    /// # Errors
    ///
    /// If there are no predictions, the number of reference lists is another one, or a list is empty.
    pub fn score<P, R, S>(&self, predictions: &[P], references: &[R]) -> Result<Vec<BertScore>>
    where
        P: AsRef<str>,
        R: AsRef<[S]>,
        S: AsRef<str>,
    {
        crate::text::each_has_a_reference(predictions, references)?;
        let all = references
            .iter()
            .flat_map(|r| r.as_ref().iter().map(AsRef::as_ref));
        let of_references: Vec<Vec<u32>> =
            all.map(|text| self.tokens(text)).collect::<Result<_>>()?;
        let idf = self.idf.then(|| Idf::new(&of_references));

        // Each text once, the longest first.
        let mut texts: HashMap<Vec<u32>, Option<Encoded>> = HashMap::new();
        let mut pairs = Vec::new();
        let mut next = of_references.into_iter();
        for (prediction, references) in predictions.iter().zip(references) {
            let prediction = self.tokens(prediction.as_ref())?;
            let references: Vec<Vec<u32>> = next.by_ref().take(references.as_ref().len()).collect();
            for ids in references.iter().chain([&prediction]) {
                texts.entry(ids.clone()).or_default();
            }
            pairs.push((prediction, references));
        }
        let mut order: Vec<Vec<u32>> = texts.keys().cloned().collect();
        order.sort_by_key(|ids| std::cmp::Reverse(ids.len()));
        let mut rest = &order[..];
        while let Some(longest) = rest.first() {
            let rows = (self.batch_tokens / longest.len().max(1)).clamp(1, rest.len());
            let (now, later) = rest.split_at(rows);
            rest = later;
            for (ids, encoded) in now.iter().zip(self.encode(now, idf.as_ref())?) {
                texts.insert(ids.clone(), Some(encoded));
            }
        }
        let encoded = |ids: &Vec<u32>| texts[ids].as_ref().expect("every text was encoded");
        Ok(pairs
            .iter()
            .map(|(prediction, references)| {
                let scores = references
                    .iter()
                    .map(|r| compare(encoded(prediction), encoded(r)));
                let best = scores.reduce(|a, b| BertScore {
                    precision: a.precision.max(b.precision),
                    recall: a.recall.max(b.recall),
                    f1: a.f1.max(b.f1),
                });
                self.rescale(best.expect("every prediction has a reference"))
            })
            .collect())
    }

    /// The ids of a text with its special tokens, cut to the encoder's length.
    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.tokenizer.encode(text.trim_matches(is_space), true);
        let mut ids = ids.map_err(of_core)?;
        let most = self.model.config().max_length();
        if ids.len() > most
            && let Some(last) = ids.pop()
        {
            ids.truncate(most - 1);
            ids.push(last);
        }
        Ok(ids)
    }

    fn encode(&self, texts: &[Vec<u32>], idf: Option<&Idf>) -> Result<Vec<Encoded>> {
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let (mut ids, mut segments) = (Vec::new(), Vec::new());
        for text in texts {
            ids.extend(text.iter().map(|id| i64::from(*id)));
            ids.extend(std::iter::repeat_n(0, longest - text.len()));
            segments.extend(std::iter::repeat_n(1i64, text.len()));
            segments.extend(std::iter::repeat_n(0, longest - text.len()));
        }
        let matrix = |values: Vec<i64>| {
            Tensor::<2, Int>::from_data(
                TensorData::new(values, [texts.len(), longest]),
                &self.device,
            )
        };
        let last = self.model.forward(
            self.model.embed(matrix(ids)),
            Pass {
                segment_ids: Some(matrix(segments)),
                layers: Some(self.layers),
                ..Pass::default()
            },
        );
        let norms = last.clone().powi_scalar(2).sum_dim(2).sqrt();
        let unit = last / norms;
        let width = unit.dims()[2];
        Ok(texts
            .iter()
            .enumerate()
            .map(|(row, text)| Encoded {
                weights: text.iter().map(|id| self.weight(*id, idf)).collect(),
                states: unit
                    .clone()
                    .slice([row..row + 1, 0..text.len(), 0..width])
                    .squeeze_dim(0),
                empty: text.len() <= 2,
            })
            .collect())
    }

    fn weight(&self, id: u32, idf: Option<&Idf>) -> f64 {
        match idf {
            Some(idf) => idf.of(id),
            None => f64::from(u8::from(!self.is_end(id))),
        }
    }

    /// Whether a token is at an end of every text.
    fn is_end(&self, id: u32) -> bool {
        let special = self.tokenizer.special_tokens();
        special.iter().any(|(name, token)| {
            ["cls_token", "sep_token"].contains(name)
                && self.tokenizer.token_to_id(token) == Some(id)
        })
    }

    fn rescale(&self, score: BertScore) -> BertScore {
        let Some([p, r, f]) = self.baseline else {
            return score;
        };
        let rescale = |x: f64, baseline: f64| (x - baseline) / (1.0 - baseline);
        BertScore {
            precision: rescale(score.precision, p),
            recall: rescale(score.recall, r),
            f1: rescale(score.f1, f),
        }
    }
}

/// How rare tokens are: the number of texts that contain each.
struct Idf {
    texts: usize,
    having: HashMap<u32, usize>,
}

impl Idf {
    fn new(texts: &[Vec<u32>]) -> Self {
        let mut having = HashMap::new();
        for text in texts {
            for id in text.iter().collect::<HashSet<_>>() {
                *having.entry(*id).or_default() += 1;
            }
        }
        Self {
            texts: texts.len(),
            having,
        }
    }

    fn of(&self, id: u32) -> f64 {
        let having = self.having.get(&id).copied().unwrap_or(0);
        ((self.texts + 1) as f64 / (having + 1) as f64).ln()
    }
}

fn compare(prediction: &Encoded, reference: &Encoded) -> BertScore {
    let similarities = prediction
        .states
        .clone()
        .matmul(reference.states.clone().transpose());
    let [rows, columns] = similarities.dims();
    let numbers = similarities
        .into_data()
        .convert::<f32>()
        .try_to_vec::<f32>()
        .expect("converted to f32");
    let numbers: Vec<f64> = numbers.into_iter().map(f64::from).collect();
    if prediction.empty || reference.empty {
        return BertScore {
            precision: 0.0,
            recall: 0.0,
            f1: 0.0,
        };
    }
    greedy(
        &numbers,
        [rows, columns],
        &prediction.weights,
        &reference.weights,
    )
}

/// The scores of greedy matching. `similarities` has a row for each token of the prediction. F is 0 where it is undefined.
fn greedy(
    similarities: &[f64],
    [rows, columns]: [usize; 2],
    of_rows: &[f64],
    of_columns: &[f64],
) -> BertScore {
    let best_of_row = |row: usize| {
        let row = &similarities[row * columns..(row + 1) * columns];
        row.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    };
    let best_of_column = |column: usize| {
        let column = similarities.iter().skip(column).step_by(columns);
        column.copied().fold(f64::NEG_INFINITY, f64::max)
    };
    let mean = |weights: &[f64], best: &dyn Fn(usize) -> f64| {
        let total: f64 = weights.iter().sum();
        weights
            .iter()
            .enumerate()
            .map(|(i, weight)| weight / total * best(i))
            .sum::<f64>()
    };
    debug_assert_eq!((of_rows.len(), of_columns.len()), (rows, columns));
    let (precision, recall) = (
        mean(of_rows, &best_of_row),
        mean(of_columns, &best_of_column),
    );
    let f1 = 2.0 * precision * recall / (precision + recall);
    BertScore {
        precision,
        recall,
        f1: if f1.is_nan() { 0.0 } else { f1 },
    }
}

fn of_core(error: ft_core::Error) -> Error {
    Error::Model(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_matched_with_the_most_similar() {
        let score = greedy(
            &[0.9, 0.1, 0.3, 0.2, 0.8, 0.5],
            [2, 3],
            &[1.0, 3.0],
            &[0.0, 1.0, 1.0],
        );
        assert!((score.precision - (0.9 + 3.0 * 0.8) / 4.0).abs() < 1e-12);
        assert!((score.recall - (0.8 + 0.5) / 2.0).abs() < 1e-12);
        let f1 = 2.0 * score.precision * score.recall / (score.precision + score.recall);
        assert_eq!(score.f1, f1);
        assert_eq!(greedy(&[0.0], [1, 1], &[1.0], &[1.0]).f1, 0.0);
    }

    #[test]
    fn rare_tokens_have_larger_weights() {
        let idf = Idf::new(&[vec![1, 5, 5], vec![1, 6]]);
        assert_eq!(idf.of(1), 0.0);
        assert_eq!(idf.of(5), (3.0f64 / 2.0).ln());
        assert_eq!(idf.of(9), 3f64.ln());
    }
}
