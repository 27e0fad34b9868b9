//! The losses of [`crate::loss`] by name, on columns of embeddings and labels of rows.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{Tensor, TensorData};
use ft_core::LossSum;

use crate::loss::{
    Directions, Gist, Mining, MultipleNegatives, Partition, angle, contrastive, cosent, cosine,
    gist, margin_mse, mined_triplets, mse, multiple_negatives, online_contrastive, triplet,
};
use crate::{Error, Result};

/// A loss with its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum EmbeddingLoss {
    /// In-batch negatives: pairs, triplets, n-tuples.
    MultipleNegatives(MultipleNegatives),
    /// In-batch negatives that a guide lets through: pairs, triplets.
    Gist(Gist),
    /// Triplets, with a margin.
    Triplet(f64),
    /// Pairs with labels 0 and 1, with a margin.
    Contrastive(f64),
    /// The same on hard pairs.
    OnlineContrastive(f64),
    /// Pairs with similarities.
    Cosine,
    /// Pairs with similarities, of which the order counts; with a scale.
    CoSent(f64),
    /// The same with angles.
    Angle(f64),
    /// Triplets or n-tuples with margins or scores of a teacher.
    MarginMse,
    /// Texts with embeddings of a teacher.
    Mse,
    /// Texts with classes.
    MinedTriplets(Mining),
}

const NAMES: [(&str, EmbeddingLoss); 16] = {
    let plain = MultipleNegatives {
        scale: 20.0,
        directions: Directions::QUERY_TO_DOC,
        partition: Partition::Joint,
        hardness: None,
    };
    let symmetric = MultipleNegatives {
        directions: Directions::SYMMETRIC,
        partition: Partition::PerDirection,
        ..plain
    };
    let all = MultipleNegatives {
        directions: Directions::ALL,
        ..plain
    };
    let guided = Gist {
        temperature: 0.01,
        margin: crate::loss::Margin::Absolute(0.0),
        contrast_anchors: true,
        contrast_positives: true,
    };
    [
        ("mnrl", EmbeddingLoss::MultipleNegatives(plain)),
        (
            "mnrl-symmetric",
            EmbeddingLoss::MultipleNegatives(symmetric),
        ),
        ("mnrl-all", EmbeddingLoss::MultipleNegatives(all)),
        ("gist", EmbeddingLoss::Gist(guided)),
        ("triplet", EmbeddingLoss::Triplet(5.0)),
        ("contrastive", EmbeddingLoss::Contrastive(0.5)),
        ("online-contrastive", EmbeddingLoss::OnlineContrastive(0.5)),
        ("cosine", EmbeddingLoss::Cosine),
        ("cosent", EmbeddingLoss::CoSent(20.0)),
        ("angle", EmbeddingLoss::Angle(20.0)),
        ("margin-mse", EmbeddingLoss::MarginMse),
        ("mse", EmbeddingLoss::Mse),
        (
            "batch-all",
            EmbeddingLoss::MinedTriplets(Mining::All { margin: 5.0 }),
        ),
        (
            "batch-hard",
            EmbeddingLoss::MinedTriplets(Mining::Hard { margin: 5.0 }),
        ),
        (
            "batch-hard-soft",
            EmbeddingLoss::MinedTriplets(Mining::HardSoftMargin),
        ),
        (
            "batch-semi-hard",
            EmbeddingLoss::MinedTriplets(Mining::SemiHard { margin: 5.0 }),
        ),
    ]
};

impl Default for EmbeddingLoss {
    fn default() -> Self {
        NAMES[0].1
    }
}

impl FromStr for EmbeddingLoss {
    type Err = Error;

    /// The loss of a name with the settings of sentence-transformers.
    fn from_str(name: &str) -> Result<Self> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, loss)| *loss)
            .ok_or_else(|| Error::UnknownName {
                kind: "loss",
                name: name.to_string(),
                known: Self::names().join(", "),
            })
    }
}

impl fmt::Display for EmbeddingLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl EmbeddingLoss {
    /// The names of all losses.
    pub fn names() -> Vec<&'static str> {
        NAMES.iter().map(|(name, _)| *name).collect()
    }

    /// Whether the texts of other rows of a batch are taken for negatives, so that a text must not be in it twice.
    pub fn has_in_batch_negatives(&self) -> bool {
        matches!(self, Self::MultipleNegatives(_) | Self::Gist(_))
    }

    /// Checks the settings, and that rows with so many texts and labels are what the loss takes.
    ///
    /// # Errors
    ///
    /// With what the loss takes instead.
    pub fn check(&self, texts: usize, labels: usize) -> Result<()> {
        if let Self::MultipleNegatives(settings) = self {
            settings.validate()?;
        }
        let (fits, wanted) = match self {
            Self::MultipleNegatives(_) => (
                texts >= 2 && labels == 0,
                "two texts or more, anchor, positive, negatives, and no labels",
            ),
            Self::Gist(_) => (
                matches!(texts, 2 | 3) && labels == 0,
                "two or three texts, anchor, positive, negative, and no labels",
            ),
            Self::Triplet(_) => (
                texts == 3 && labels == 0,
                "three texts, anchor, positive, negative, and no labels",
            ),
            Self::Contrastive(_) | Self::OnlineContrastive(_) => (
                texts == 2 && labels == 1,
                "two texts and a label, 1 for alike or 0",
            ),
            Self::Cosine | Self::CoSent(_) | Self::Angle(_) => (
                texts == 2 && labels == 1,
                "two texts and a label, their similarity",
            ),
            Self::MarginMse => (
                texts >= 3 && (labels + 2 == texts || labels + 1 == texts),
                "anchor, positive, negatives, and as labels either a margin for each negative or a score for each text but the anchor",
            ),
            Self::Mse => (
                texts == 1 && labels > 0,
                "one text, and an embedding as labels",
            ),
            Self::MinedTriplets(_) => {
                (texts == 1 && labels == 1, "one text and a label, its class")
            }
        };
        let unlabelled = matches!(
            self,
            Self::MultipleNegatives(_) | Self::Gist(_) | Self::Triplet(_)
        );
        let fix = match unlabelled && labels > 0 {
            true => {
                ": keep only rows whose texts belong together (`TextDataset::positives`), or remove the column if it is no label"
            }
            false => "",
        };
        match fits {
            true => Ok(()),
            false => Err(Error::Settings(format!(
                "rows have {texts} texts and {labels} labels, but the loss takes {wanted}{fix}"
            ))),
        }
    }

    /// Whether labels are similarities of pairs, which measures of similarity compare with.
    pub fn takes_similarities(&self) -> bool {
        matches!(self, Self::Cosine | Self::CoSent(_) | Self::Angle(_))
    }

    /// Whether the first text of a row is a query, and the others are documents. Texts of other losses are of one kind.
    pub(crate) fn has_queries(&self) -> bool {
        matches!(
            self,
            Self::MultipleNegatives(_) | Self::Gist(_) | Self::Triplet(_) | Self::MarginMse
        )
    }

    /// What is wrong with the labels of a row for a model with embeddings of `dims` numbers.
    pub(crate) fn label_mistake(&self, labels: &[f32], dims: usize) -> Option<String> {
        let (fits, wanted): (fn(f32) -> bool, _) = match self {
            Self::Contrastive(_) => (
                |label| (0.0..=1.0).contains(&label),
                "from 0 to 1, 1 for texts that are alike",
            ),
            Self::OnlineContrastive(_) => (
                |label| label == 0.0 || label == 1.0,
                "0 or 1, 1 for texts that are alike",
            ),
            Self::Cosine => (
                |label| (-1.0..=1.0).contains(&label),
                "a cosine, from -1 to 1: divide similarities of 0 to 5 by 5",
            ),
            Self::MinedTriplets(_) => (
                |label| label.fract() == 0.0,
                "the number of a class, which is whole",
            ),
            Self::Mse if labels.len() != dims => {
                return Some(format!(
                    "the teacher's embedding has {} numbers, the model's have {dims}: use a teacher of as many",
                    labels.len()
                ));
            }
            _ => return None,
        };
        let wrong = labels.iter().find(|label| !fits(**label));
        wrong.map(|label| format!("the label {label} must be {wanted}"))
    }

    /// The summed loss of a batch and what it was summed over: its rows, or 1 for losses of a whole batch.
    ///
    /// # Shapes
    ///
    /// - `columns`: each `[n, dims]`; `labels`: `n` rows
    /// - `guide`: for GIST the guide's embeddings of the same columns
    ///
    /// # Panics
    ///
    /// If columns and labels are not what [`check`](Self::check) accepts, or there is no guide for GIST.
    pub fn compute(
        &self,
        columns: &[Tensor<2>],
        labels: &[&[f32]],
        guide: Option<&[Tensor<2>]>,
    ) -> LossSum {
        let column = |number: usize| columns[number].clone();
        let firsts = || -> Vec<f32> { labels.iter().map(|labels| labels[0]).collect() };
        let rows = |losses: Tensor<1>| LossSum {
            count: losses.dims()[0],
            sum: losses.sum(),
        };
        match self {
            Self::MultipleNegatives(settings) => {
                rows(multiple_negatives(column(0), &columns[1..], settings))
            }
            Self::Gist(settings) => {
                let guide = guide.expect("GIST has a guide");
                rows(gist(columns, guide, settings))
            }
            Self::Triplet(margin) => rows(triplet(column(0), column(1), column(2), *margin)),
            Self::Contrastive(margin) => {
                rows(contrastive(column(0), column(1), &firsts(), *margin))
            }
            Self::OnlineContrastive(margin) => {
                rows(online_contrastive(column(0), column(1), &firsts(), *margin))
            }
            Self::Cosine => rows(cosine(column(0), column(1), &firsts())),
            Self::CoSent(scale) => rows(cosent(column(0), column(1), &firsts(), *scale)),
            Self::Angle(scale) => rows(angle(column(0), column(1), &firsts(), *scale)),
            Self::MarginMse => rows(margin_mse(column(0), column(1), &columns[2..], labels)),
            Self::Mse => {
                let [count, dims] = columns[0].dims();
                // Matryoshka losses have fewer dimensions than the teacher.
                let values: Vec<f32> = labels
                    .iter()
                    .flat_map(|row| &row[..dims])
                    .copied()
                    .collect();
                let target = TensorData::new(values, [count, dims]);
                rows(mse(
                    column(0),
                    Tensor::from_data(target, &columns[0].device()),
                ))
            }
            Self::MinedTriplets(mining) => {
                let classes: Vec<i64> = firsts().into_iter().map(|class| class as i64).collect();
                rows(mined_triplets(column(0), &classes, *mining))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_rows_are_checked() {
        for name in EmbeddingLoss::names() {
            assert!(name.parse::<EmbeddingLoss>().is_ok(), "{name}");
        }
        let error = "mnr".parse::<EmbeddingLoss>().expect_err("no such loss");
        assert!(error.to_string().contains("mnrl-symmetric"), "{error}");
        let check = |name: &str, texts, labels| {
            name.parse::<EmbeddingLoss>()
                .expect("a loss")
                .check(texts, labels)
        };
        assert!(check("mnrl", 2, 0).is_ok() && check("mnrl", 5, 0).is_ok());
        assert!(check("margin-mse", 4, 2).is_ok() && check("margin-mse", 4, 3).is_ok());
        let error = check("triplet", 2, 0).expect_err("pairs").to_string();
        assert!(error.contains("three texts"), "{error}");
    }

    /// In-batch negatives pull both texts of a row together, whatever its label is.
    #[test]
    fn losses_with_positives_refuse_labels() {
        for (name, texts) in [
            ("mnrl", 2),
            ("mnrl-symmetric", 3),
            ("gist", 2),
            ("triplet", 3),
        ] {
            let loss: EmbeddingLoss = name.parse().expect("a loss");
            let error = loss.check(texts, 1).expect_err(name).to_string();
            assert!(error.contains("positives"), "{error}");
        }
    }

    #[test]
    fn labels_out_of_range_are_mistakes() {
        let cases: [(&str, &[f32], bool); 12] = [
            ("contrastive", &[-1.0], false),
            ("contrastive", &[0.7], true),
            ("online-contrastive", &[0.7], false),
            ("online-contrastive", &[1.0], true),
            ("cosine", &[3.0], false),
            ("cosine", &[-1.0], true),
            ("cosent", &[3.0], true),
            ("batch-hard", &[0.5], false),
            ("batch-hard", &[7.0], true),
            ("mse", &[0.1, 0.2], false),
            ("mse", &[0.1, 0.2, 0.3], true),
            ("mse", &[0.1; 4], false),
        ];
        for (name, labels, right) in cases {
            let loss: EmbeddingLoss = name.parse().expect("a loss");
            let found = loss.label_mistake(labels, 3);
            assert_eq!(found.is_none(), right, "{name} {labels:?}: {found:?}");
        }
    }
}
