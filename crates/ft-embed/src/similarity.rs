//! How embeddings are compared, and how well that agrees with given similarities.

use ft_eval::regression::spearman;
use serde::{Deserialize, Serialize};

use crate::{EmbeddingModel, Embeddings, EncodeOptions, Error, Result, TextRow};

/// How embeddings are compared: `similarity_fn_name` of sentence-transformers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// The cosine.
    #[default]
    Cosine,
    /// The dot product.
    Dot,
    /// The negative Euclidean distance.
    Euclidean,
    /// The negative sum of absolute differences.
    Manhattan,
}

impl Similarity {
    /// The similarity of two vectors of the same length. The cosine of a vector of zeros is 0.
    ///
    /// ```
    /// use ft_embed::Similarity;
    ///
    /// let (a, b) = ([3.0, 4.0], [6.0, 8.0]);
    /// assert_eq!(Similarity::Cosine.of(&a, &b), 1.0);
    /// assert_eq!(Similarity::Dot.of(&a, &b), 50.0);
    /// assert_eq!(Similarity::Euclidean.of(&a, &b), -5.0);
    /// assert_eq!(Similarity::Manhattan.of(&a, &b), -7.0);
    /// ```
    pub fn of(self, a: &[f32], b: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let differences = a.iter().zip(b).map(|(a, b)| a - b);
        match self {
            Self::Cosine => {
                let lengths = (dot(a, a) * dot(b, b)).sqrt();
                if lengths > 0.0 {
                    dot(a, b) / lengths
                } else {
                    0.0
                }
            }
            Self::Dot => dot(a, b),
            Self::Euclidean => -differences.map(|x| x * x).sum::<f32>().sqrt(),
            Self::Manhattan => -differences.map(f32::abs).sum::<f32>(),
        }
    }

    /// Embeddings whose dot products are the similarities, as an index compares them: those of a cosine are normalized.
    ///
    /// # Errors
    ///
    /// If it is a distance, for which there is no index.
    pub fn for_index(self, embeddings: Embeddings) -> Result<Embeddings> {
        match self {
            Self::Cosine => Ok(embeddings.normalized()),
            Self::Dot => Ok(embeddings),
            Self::Euclidean | Self::Manhattan => Err(Error::Settings(format!(
                "there is no index for the similarity {self:?}: set similarity_fn_name to cosine or dot in \
                 config_sentence_transformers.json"
            ))),
        }
    }
}

/// Spearman's correlation of the similarities of pairs with their labels, with embeddings cut to each of `dims` dimensions. NaN if
/// all labels, or all similarities, are equal.
///
/// # Errors
///
/// If a row is not two texts with a label, or the model cannot encode a text.
pub fn similarity_spearman(
    model: &EmbeddingModel,
    rows: &[TextRow],
    dims: &[usize],
) -> Result<Vec<f64>> {
    let mut columns: [Vec<&str>; 2] = [Vec::new(), Vec::new()];
    let mut labels = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        let ([first, second], [label]) = (row.texts.as_slice(), row.labels.as_slice()) else {
            return Err(Error::Settings(format!(
                "row {} is not two texts with their similarity",
                number + 1
            )));
        };
        columns[0].push(first);
        columns[1].push(second);
        labels.push(f64::from(*label));
    }
    let options = EncodeOptions {
        dims: Some(model.dims()),
        ..EncodeOptions::default()
    };
    let [first, second] = columns.map(|texts| model.encode_with(&texts, &options, &mut |_, _| {}));
    let (first, second) = (first?, second?);
    let correlation = |&dims: &usize| -> Result<f64> {
        let (first, second) = (first.truncated(dims)?, second.truncated(dims)?);
        let pairs = first.rows().zip(second.rows());
        let found: Vec<f64> = pairs
            .map(|(a, b)| f64::from(model.similarity().of(a, b)))
            .collect();
        let value =
            spearman(&found, &labels).map_err(|error| Error::Settings(error.to_string()))?;
        Ok(value.unwrap_or(f64::NAN))
    };
    dims.iter().map(correlation).collect()
}
