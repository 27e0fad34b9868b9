//! The losses of cross-encoders by name, on the scores of the pairs of rows.

use std::str::FromStr;

use burn::tensor::{Tensor, TensorData, activation};
use ft_core::LossSum;

use crate::loss::{
    binary_cross_entropy, cross_entropy, lambda, list_mle, list_net, position_list_mle, rank_net,
};
use crate::{Error, Result};

/// A loss of a cross-encoder. A row is a query and one or more documents, whose scores are compared with the row's labels.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum CrossEncoderLoss {
    /// Pairs with labels from 0 to 1; positives weigh so much.
    Binary(f64),
    /// Pairs with classes.
    CrossEntropy,
    /// Pairs with the scores of a teacher.
    Mse,
    /// A query, a positive and negatives, with the margins of a teacher between the positive and each negative.
    MarginMse,
    /// A query, a positive and perhaps negatives: `−ln softmax(10·σ(s))` of the positive among these and so many documents of
    /// other rows.
    MultipleNegatives(usize),
    /// Lists of documents with degrees of relevance: LambdaLoss.
    Lambda,
    /// RankNet.
    RankNet,
    /// ListNet.
    ListNet,
    /// ListMLE. Documents are in the order of their labels, the most relevant one first.
    ListMle,
    /// ListMLE with weights of positions, on documents in the same order.
    PositionListMle,
}

/// How much the scores of [`CrossEncoderLoss::MultipleNegatives`] are multiplied by.
const SCALE: f64 = 10.0;

const NAMES: [(&str, CrossEncoderLoss); 10] = [
    ("binary", CrossEncoderLoss::Binary(1.0)),
    ("cross-entropy", CrossEncoderLoss::CrossEntropy),
    ("mse", CrossEncoderLoss::Mse),
    ("margin-mse", CrossEncoderLoss::MarginMse),
    ("mnrl", CrossEncoderLoss::MultipleNegatives(4)),
    ("lambda", CrossEncoderLoss::Lambda),
    ("ranknet", CrossEncoderLoss::RankNet),
    ("listnet", CrossEncoderLoss::ListNet),
    ("listmle", CrossEncoderLoss::ListMle),
    ("plistmle", CrossEncoderLoss::PositionListMle),
];

impl FromStr for CrossEncoderLoss {
    type Err = Error;

    /// The loss of a name with the settings of sentence-transformers.
    fn from_str(name: &str) -> Result<Self> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, loss)| *loss)
            .ok_or_else(|| Error::UnknownName {
                kind: "loss of cross-encoders",
                name: name.to_string(),
                known: Self::names().join(", "),
            })
    }
}

impl CrossEncoderLoss {
    /// The names of all losses.
    pub fn names() -> Vec<&'static str> {
        NAMES.iter().map(|(name, _)| *name).collect()
    }

    /// How many documents of other rows belong to each row.
    pub(crate) fn random_negatives(self) -> usize {
        match self {
            Self::MultipleNegatives(count) => count,
            _ => 0,
        }
    }

    /// Checks that rows with so many texts and labels, and a model of so many scores, are what the loss takes.
    ///
    /// # Errors
    ///
    /// With what the loss takes.
    pub fn check(self, texts: usize, labels: usize, num_labels: usize) -> Result<()> {
        let documents = texts.saturating_sub(1);
        let (fits, what) = match self {
            Self::Binary(_) | Self::Mse => (
                documents == 1 && labels == 1,
                "pairs with one label, by a model of one score",
            ),
            Self::CrossEntropy => (
                documents == 1 && labels == 1,
                "pairs with a class, by a model of a score for each class",
            ),
            Self::MarginMse => (
                documents > 1 && labels + 1 == documents,
                "a query, a positive and negatives, with a margin for each negative, by a model of one score",
            ),
            Self::MultipleNegatives(_) => (
                documents > 0 && labels == 0,
                "a query, a positive and perhaps negatives, without labels, by a model of one score",
            ),
            _ => (
                documents > 1 && labels == documents,
                "a query and two documents or more, with a label for each, by a model of one score",
            ),
        };
        let scores = match self {
            Self::CrossEntropy => num_labels > 1,
            _ => num_labels == 1,
        };
        match fits && scores {
            true => Ok(()),
            false => Err(Error::Settings(format!(
                "the loss takes {what}; the rows have {texts} texts and {labels} labels, the model gives {num_labels} scores"
            ))),
        }
    }

    /// What is wrong with the labels of a row for a model of `num_labels` scores.
    pub(crate) fn label_mistake(self, labels: &[f32], num_labels: usize) -> Option<String> {
        let falls = || labels.windows(2).all(|two| two[0] >= two[1]);
        let all = |fits: &dyn Fn(f32) -> bool| labels.iter().all(|label| fits(*label));
        let (right, wanted) = match self {
            Self::Binary(_) => (
                all(&|label| (0.0..=1.0).contains(&label)),
                "from 0 to 1".to_string(),
            ),
            Self::CrossEntropy => (
                all(&|label| label.fract() == 0.0 && (0.0..num_labels as f32).contains(&label)),
                format!("a class from 0 to {}", num_labels - 1),
            ),
            Self::Lambda => (
                all(&|label| label >= 0.0),
                "a degree of relevance, 0 or more".to_string(),
            ),
            Self::ListMle | Self::PositionListMle => (
                falls(),
                "sorted: the loss takes the order of a row's documents, the most relevant one first".to_string(),
            ),
            _ => return None,
        };
        (!right).then(|| format!("the labels {labels:?} must be {wanted}"))
    }

    /// The sum of the losses of rows. `logits` are those of the pairs, row by row, `[rows · documents, num_labels]`.
    ///
    /// # Panics
    ///
    /// If [`check`](Self::check) would fail, or a class is not among the scores.
    pub fn compute(self, logits: Tensor<2>, labels: &[&[f32]]) -> LossSum {
        let rows = labels.len();
        let device = logits.device();
        let numbers = || labels.concat();
        let each = |count: usize, sum: Tensor<1>| LossSum { sum, count };
        let [pairs, _] = logits.dims();
        let documents = pairs / rows.max(1);
        if self == Self::CrossEntropy {
            let classes: Vec<i64> = numbers().iter().map(|&class| class as i64).collect();
            return each(rows, cross_entropy(logits, &classes).sum());
        }
        let scores = logits.reshape([rows, documents]);
        match self {
            Self::Binary(weight) => {
                let scores = scores.reshape([rows]);
                each(rows, binary_cross_entropy(scores, &numbers(), weight).sum())
            }
            Self::Mse | Self::MarginMse => {
                let found = match self {
                    Self::Mse => scores,
                    _ => {
                        let others = scores.clone().narrow(1, 1, documents - 1);
                        scores.narrow(1, 0, 1) - others
                    }
                };
                let shape = found.dims();
                let labels = Tensor::<2>::from_data(TensorData::new(numbers(), shape), &device);
                let squares = (found - labels).powi_scalar(2);
                each(shape[0] * shape[1], squares.sum())
            }
            Self::MultipleNegatives(_) => {
                let scores = activation::sigmoid(scores) * SCALE;
                each(rows, cross_entropy(scores, &vec![0; rows]).sum())
            }
            _ => {
                let lists: Vec<(Tensor<1>, &[f32])> = (labels.iter().enumerate())
                    .map(|(row, labels)| (scores.clone().narrow(0, row, 1).squeeze_dim(0), *labels))
                    .collect();
                let loss = match self {
                    Self::RankNet => rank_net(&lists),
                    Self::ListNet => list_net(&lists),
                    Self::ListMle => list_mle(&lists),
                    Self::PositionListMle => position_list_mle(&lists),
                    _ => lambda(&lists),
                };
                match self {
                    Self::Lambda | Self::RankNet => each(rows, loss * rows as f64),
                    _ => each(rows, loss.sum()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn loss(loss: CrossEncoderLoss, scores: &[f32], labels: &[&[f32]]) -> f32 {
        let data = TensorData::new(scores.to_vec(), [scores.len(), 1]);
        let found = loss.compute(Tensor::from_data(data, &Device::default()), labels);
        found.sum.into_scalar::<f32>() / found.count as f32
    }

    /// `ln(1 + e⁻ˣ)` of ±1, mean squares, and `−ln softmax` of `10·σ`.
    #[test]
    fn losses_are_means_over_rows() {
        let close = |found: f32, expected: f32| assert!((found - expected).abs() < 1e-5, "{found}");
        let one: [&[f32]; 2] = [&[1.0], &[0.0]];
        close(
            loss(CrossEncoderLoss::Binary(1.0), &[1.0, -1.0], &one),
            0.313_262,
        );
        close(loss(CrossEncoderLoss::Mse, &[3.0, 1.0], &one), 2.5);
        // Margins 2 − 1 and 2 − 4, labels 0 and 1.
        let margins: [&[f32]; 1] = [&[0.0, 1.0]];
        close(
            loss(CrossEncoderLoss::MarginMse, &[2.0, 1.0, 4.0], &margins),
            5.0,
        );
        let none: [&[f32]; 1] = [&[]];
        // 10·σ(0) = 5 for both.
        close(
            loss(CrossEncoderLoss::MultipleNegatives(0), &[0.0, 0.0], &none),
            2f32.ln(),
        );
        // The entropy of two equal scores against softmax(0, ln 3) = 1/4, 3/4.
        let lists: [&[f32]; 1] = [&[0.0, 1.098_612_3]];
        close(
            loss(CrossEncoderLoss::ListNet, &[0.5, 0.5], &lists),
            2f32.ln(),
        );
    }

    #[test]
    fn labels_that_make_no_sense_are_mistakes() {
        let cases: [(&str, &[f32], bool); 9] = [
            ("binary", &[4.2], false),
            ("binary", &[0.5], true),
            ("cross-entropy", &[3.0], false),
            ("cross-entropy", &[0.5], false),
            ("cross-entropy", &[2.0], true),
            ("lambda", &[1.0, -1.0], false),
            ("listmle", &[1.0, 2.0], false),
            ("plistmle", &[2.0, 1.0, 1.0], true),
            ("listnet", &[1.0, 2.0], true),
        ];
        for (name, labels, right) in cases {
            let loss: CrossEncoderLoss = name.parse().expect("a loss");
            let found = loss.label_mistake(labels, 3);
            assert_eq!(found.is_none(), right, "{name} {labels:?}: {found:?}");
        }
    }

    #[test]
    fn rows_that_do_not_fit_are_errors() {
        for (name, loss) in NAMES {
            assert_eq!(name.parse::<CrossEncoderLoss>().ok(), Some(loss));
        }
        assert!(CrossEncoderLoss::Lambda.check(4, 3, 1).is_ok());
        let error = CrossEncoderLoss::Lambda.check(2, 1, 1).expect_err("a pair");
        assert!(
            error.to_string().contains("2 texts and 1 labels"),
            "{error}"
        );
        assert!(CrossEncoderLoss::CrossEntropy.check(2, 1, 1).is_err());
        assert!("bce".parse::<CrossEncoderLoss>().is_err());
    }
}
