//! In-batch negatives without those that a guide finds more similar than the positive (Solatorio, 2024, arXiv:2402.16829,
//! section 3.2).

use burn::tensor::{Bool, Tensor};

use crate::loss::similarity::{cosine_matrix, diagonal, log_sum_exp, mask};

/// How far below the positive a negative must be in the eyes of the guide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Margin {
    /// By this much.
    Absolute(f64),
    /// By this part of the positive's similarity.
    Relative(f64),
}

/// The settings of [`gist`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gist {
    /// What cosines are divided by.
    pub temperature: f64,
    /// Which negatives are left out.
    pub margin: Margin,
    /// Whether anchors are negatives of each other.
    pub contrast_anchors: bool,
    /// Whether positives are negatives of each other.
    pub contrast_positives: bool,
}

impl Default for Gist {
    fn default() -> Self {
        Self {
            temperature: 0.01,
            margin: Margin::Absolute(0.0),
            contrast_anchors: true,
            contrast_positives: true,
        }
    }
}

/// `−ln softmax` of the positive among positives, anchors, positives against positives, and negatives, where those are left
/// out whose guided similarity is above that of anchor and positive, less the margin.
///
/// # Shapes
///
/// - `columns`: anchors, positives and perhaps negatives, each `[n, dims]`
/// - `guide`: the guide's embeddings of the same texts, each `[n, guide dims]`; they get no gradient
/// - output: `[n]`
///
/// # Panics
///
/// If there are not two or three columns, or not as many of the guide.
pub fn gist(columns: &[Tensor<2>], guide: &[Tensor<2>], settings: &Gist) -> Tensor<1> {
    assert!(
        matches!(columns.len(), 2 | 3) && guide.len() == columns.len(),
        "anchors, positives and perhaps negatives, of the model and of its guide"
    );
    let rows = columns[0].dims()[0];
    let guided = |a: usize, b: usize| cosine_matrix(guide[a].clone(), guide[b].clone()).detach();
    let own = diagonal(guided(0, 1));
    let limit = match settings.margin {
        Margin::Absolute(margin) => own - margin,
        Margin::Relative(margin) => own.clone() - own.abs() * margin,
    };
    let limit = limit.unsqueeze_dim::<2>(1).expand([rows, rows]);
    let part = |a: usize, b: usize, keep: Option<Tensor<2, Bool>>| {
        let mut false_negative = guided(a, b).greater(limit.clone());
        if let Some(keep) = keep {
            false_negative = false_negative.bool_and(keep.bool_not());
        }
        cosine_matrix(columns[a].clone(), columns[b].clone())
            .mask_fill(false_negative, f32::NEG_INFINITY)
    };
    let device = columns[0].device();
    let positives = mask([rows, rows], &device, |row, column| row == column);
    let mut parts = vec![part(0, 1, Some(positives))];
    if settings.contrast_anchors {
        parts.push(part(0, 0, None));
    }
    if settings.contrast_positives {
        parts.push(part(1, 1, None));
    }
    if columns.len() == 3 {
        parts.push(part(0, 2, None));
    }
    let logits = Tensor::cat(parts, 1) / settings.temperature;
    log_sum_exp(logits.clone()) - diagonal(logits)
}
