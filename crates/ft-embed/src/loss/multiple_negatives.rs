//! In-batch negatives: InfoNCE, or multiple negatives ranking (van den Oord et al., 2018, arXiv:1807.03748, equation 4;
//! Henderson et al., 2017, arXiv:1705.00652, section 4).

use burn::tensor::Tensor;

use crate::loss::similarity::{cosine_matrix, diagonal, log_sum_exp, mask};
use crate::{Error, Result};

/// Which similarities stand in the denominators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directions {
    /// Query against the other queries.
    pub query_to_query: bool,
    /// Positive document against all queries.
    pub doc_to_query: bool,
    /// Positive document against the documents of other queries.
    pub doc_to_doc: bool,
}

impl Directions {
    /// Queries against all documents alone, which are always there.
    pub const QUERY_TO_DOC: Self = Self {
        query_to_query: false,
        doc_to_query: false,
        doc_to_doc: false,
    };
    /// Queries against documents and the other way round.
    pub const SYMMETRIC: Self = Self {
        doc_to_query: true,
        ..Self::QUERY_TO_DOC
    };
    /// All of them (Li et al., 2023, arXiv:2308.03281, section 3.3).
    pub const ALL: Self = Self {
        query_to_query: true,
        doc_to_query: true,
        doc_to_doc: true,
    };
}

/// How several directions are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partition {
    /// One softmax over all of them.
    #[default]
    Joint,
    /// A softmax for each, and the mean of their logarithms.
    PerDirection,
}

/// Which negatives weigh more the more similar they are: `strength · cos`, without a gradient, is added to their logits
/// (Lan et al., 2025, arXiv:2503.04812, equation 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardness {
    /// Documents of other queries.
    InBatchNegatives,
    /// The query's own negatives.
    HardNegatives,
    /// Both.
    AllNegatives,
}

/// The settings of [`multiple_negatives`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MultipleNegatives {
    /// What cosines are multiplied by: the inverse of a temperature.
    pub scale: f64,
    /// Which similarities count.
    pub directions: Directions,
    /// How directions are put together.
    pub partition: Partition,
    /// Which negatives weigh more, and how much.
    pub hardness: Option<(Hardness, f64)>,
}

impl Default for MultipleNegatives {
    /// A scale of 20, from queries to documents.
    fn default() -> Self {
        Self {
            scale: 20.0,
            directions: Directions::QUERY_TO_DOC,
            partition: Partition::Joint,
            hardness: None,
        }
    }
}

impl MultipleNegatives {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// If the scale is not positive, the strength is negative, or a softmax would have no positive.
    pub fn validate(&self) -> Result<()> {
        if !(self.scale.is_finite() && self.scale > 0.0) {
            return Err(Error::Settings(format!(
                "scale is {}: it must be positive",
                self.scale
            )));
        }
        if let Some((_, strength)) = self.hardness
            && !(strength.is_finite() && strength >= 0.0)
        {
            return Err(Error::Settings(format!(
                "hardness strength is {strength}: it must be 0 or more"
            )));
        }
        let Directions {
            query_to_query,
            doc_to_doc,
            ..
        } = self.directions;
        if self.partition == Partition::PerDirection && (query_to_query || doc_to_doc) {
            return Err(Error::Settings(
                "a softmax per direction needs the positive in each: query_to_query and doc_to_doc have none; use one joint softmax"
                    .into(),
            ));
        }
        Ok(())
    }
}

/// `−(s·cos(qᵢ, dᵢ) − ln Σ exp(logits of row i))`: the positive against all other documents of the batch, and what else
/// the directions name.
///
/// # Shapes
///
/// - `queries`: `[n, dims]`
/// - `documents`: the positives and then columns of negatives, each `[n, dims]`
/// - output: `[n]`
///
/// # Panics
///
/// If there are no positives, or columns are of different sizes.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use ft_embed::loss::{MultipleNegatives, multiple_negatives};
///
/// let device = Device::default();
/// let queries = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 2.0]], &device);
/// let settings = MultipleNegatives { scale: 1.0, ..MultipleNegatives::default() };
/// let loss = multiple_negatives(queries.clone(), &[queries], &settings);
/// // Cosines of 1 and 0: ln(e + 1) − 1
/// assert!((loss.into_data().try_to_vec::<f32>().unwrap()[0] - 0.313_26).abs() < 1e-4);
/// ```
pub fn multiple_negatives(
    queries: Tensor<2>,
    documents: &[Tensor<2>],
    settings: &MultipleNegatives,
) -> Tensor<1> {
    let rows = queries.dims()[0];
    let device = queries.device();
    let Some(positives) = documents.first().cloned() else {
        panic!("there are no documents");
    };
    for column in documents {
        assert_eq!(column.dims()[0], rows, "as many documents as queries");
    }
    let all = Tensor::cat(documents.to_vec(), 0);
    let count = documents.len();
    let own = |row: usize, column: usize| column % rows == row;
    let to_docs = cosine_matrix(queries.clone(), all.clone());
    let mut logits = to_docs.clone() * settings.scale;
    if let Some((kind, strength)) = settings.hardness {
        let harder = mask([rows, rows * count], &device, |row, column| match kind {
            Hardness::InBatchNegatives => !own(row, column),
            Hardness::HardNegatives => own(row, column) && column >= rows,
            Hardness::AllNegatives => !own(row, column) || column >= rows,
        });
        logits = logits + to_docs.detach() * strength * harder.float();
    }
    let positive = diagonal(logits.clone());
    let mut parts = vec![logits];
    let negative = f32::NEG_INFINITY;
    if settings.directions.query_to_query {
        let logits = cosine_matrix(queries.clone(), queries.clone()) * settings.scale;
        parts.push(logits.mask_fill(mask([rows, rows], &device, own), negative));
    }
    if settings.directions.doc_to_query {
        parts.push(cosine_matrix(positives.clone(), queries) * settings.scale);
    }
    if settings.directions.doc_to_doc {
        let logits = cosine_matrix(positives, all) * settings.scale;
        parts.push(logits.mask_fill(mask([rows, rows * count], &device, own), negative));
    }
    let log_sum = match settings.partition {
        Partition::Joint => log_sum_exp(Tensor::cat(parts, 1)),
        Partition::PerDirection => {
            let directions = parts.len() as f64;
            let sums = parts.into_iter().map(log_sum_exp);
            let sum = sums
                .reduce(|a, b| a + b)
                .expect("there is one direction at least");
            sum / directions
        }
    };
    log_sum - positive
}
