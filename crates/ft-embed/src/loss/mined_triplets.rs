//! Triplets that are found in a batch of texts with labels (Hermans et al., 2017, arXiv:1703.07737; Schroff et al., 2015,
//! arXiv:1503.03832, section 3.2).

use burn::tensor::{Device, Int, Tensor, TensorData, activation::relu, activation::softplus};

use crate::loss::similarity::{check_labels, mask, numbers};

/// Which triplets count. Distances `d` are Euclidean; a positive has the anchor's label, a negative another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mining {
    /// All of them: the mean of `max(0, d(a,p) − d(a,n) + margin)` over those where it is positive.
    All {
        /// The margin.
        margin: f64,
    },
    /// For each anchor the farthest positive and the nearest negative.
    Hard {
        /// The margin.
        margin: f64,
    },
    /// The same with `ln(1 + exp(d(a,p) − d(a,n)))`.
    HardSoftMargin,
    /// For each anchor and positive the nearest negative that is farther than the positive, or the farthest one.
    SemiHard {
        /// The margin.
        margin: f64,
    },
}

/// The loss of the triplets of a batch, as one number.
///
/// # Shapes
///
/// - `embeddings`: `[n, dims]`; `labels`: `n`
/// - output: `[1]`
///
/// # Panics
///
/// If there are not as many labels as rows.
pub fn mined_triplets(embeddings: Tensor<2>, labels: &[i64], mining: Mining) -> Tensor<1> {
    let rows = embeddings.dims()[0];
    check_labels(labels.len(), rows);
    let device = embeddings.device();
    let distances = distances(embeddings);
    let alike = |a: usize, b: usize| labels[a] == labels[b];
    let positive = |a: usize, b: usize| a != b && alike(a, b);
    match mining {
        Mining::All { margin } => all(distances, labels, margin),
        Mining::Hard { margin } => relu(hardest(distances, positive, alike) + margin).mean(),
        Mining::HardSoftMargin => softplus(hardest(distances, positive, alike), 1.0).mean(),
        Mining::SemiHard { margin } => {
            let nearest = nearest_beyond(&distances, labels);
            let negatives = distances.clone().gather(1, nearest);
            let pairs = mask([rows, rows], &device, positive).float();
            let count = numbers(&pairs.clone().sum())[0].max(1e-16);
            relu((distances - negatives + margin) * pairs).sum() / count
        }
    }
}

/// `‖xᵢ − xⱼ‖`, zero on the diagonal and where it would not be differentiable.
fn distances(x: Tensor<2>) -> Tensor<2> {
    let rows = x.dims()[0];
    let products = x.clone().matmul(x.transpose());
    let shape = [rows, rows];
    let diagonal = mask(shape, &products.device(), |a, b| a == b).float();
    let squares: Tensor<2> = (products.clone() * diagonal).sum_dim(1);
    let squares =
        squares.clone().transpose().expand(shape) - products * 2.0 + squares.expand(shape);
    let zero = squares.clone().lower_equal_scalar(0.0);
    let kept = zero.clone().bool_not().float();
    squares.mask_fill(zero, 1e-16).sqrt() * kept
}

/// The farthest positive less the nearest negative of each anchor, `[n]`.
fn hardest(
    distances: Tensor<2>,
    positive: impl Fn(usize, usize) -> bool,
    alike: impl Fn(usize, usize) -> bool,
) -> Tensor<1> {
    let [rows, _] = distances.dims();
    let shape = [rows, rows];
    let device = distances.device();
    let farthest = (distances.clone() * mask(shape, &device, positive).float()).max_dim(1);
    let most = distances.clone().max_dim(1);
    let others = distances + most.expand(shape) * mask(shape, &device, alike).float();
    (farthest - others.min_dim(1)).squeeze_dim(1)
}

fn all(distances: Tensor<2>, labels: &[i64], margin: f64) -> Tensor<1> {
    let rows = labels.len();
    let device = distances.device();
    let pairs: Vec<(usize, usize)> = (0..rows)
        .flat_map(|a| (0..rows).map(move |b| (a, b)))
        .filter(|&(a, b)| a != b && labels[a] == labels[b])
        .collect();
    if pairs.is_empty() {
        return distances.sum() * 0.0;
    }
    let anchors = select(pairs.iter().map(|pair| pair.0), &device);
    let positives = select(pairs.iter().map(|pair| pair.1), &device);
    let to_others = distances.select(0, anchors);
    let to_positive = to_others.clone().gather(1, positives.unsqueeze_dim(1));
    let shape = to_others.dims();
    let negative = mask(shape, &device, |pair, other| {
        labels[pairs[pair].0] != labels[other]
    });
    let losses = (to_positive.expand(shape) - to_others + margin) * negative.float();
    let losses = relu(losses);
    let count = numbers(&losses)
        .into_iter()
        .filter(|&loss| loss > 1e-16)
        .count();
    losses.sum() / (count as f64 + 1e-16)
}

fn select(places: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let places: Vec<i64> = places.map(|place| place as i64).collect();
    let count = places.len();
    Tensor::from_data(TensorData::new(places, [count]), device)
}

/// For each anchor and other row the negative of the anchor that is the nearest one farther than that row; without any the
/// farthest negative, and without a negative the anchor's nearest row: `[n, n]`.
fn nearest_beyond(distances: &Tensor<2>, labels: &[i64]) -> Tensor<2, Int> {
    let rows = labels.len();
    let values = numbers(distances);
    let mut places = Vec::with_capacity(rows * rows);
    for (anchor, row) in values.chunks_exact(rows.max(1)).enumerate() {
        let mut negatives: Vec<usize> = (0..rows)
            .filter(|&other| labels[other] != labels[anchor])
            .collect();
        negatives.sort_by(|&a, &b| row[a].total_cmp(&row[b]));
        let nearest = (0..rows).min_by(|&a, &b| row[a].total_cmp(&row[b]));
        for &distance in row {
            let beyond = negatives.partition_point(|&other| row[other] <= distance);
            let place = negatives.get(beyond).or(negatives.last()).copied();
            places.push(place.or(nearest).unwrap_or(0) as i64);
        }
    }
    Tensor::from_data(TensorData::new(places, [rows, rows]), &distances.device())
}
