//! A loss on the first dimensions of embeddings as well as on all of them (Kusupati et al., 2022, arXiv:2205.13147,
//! equation 1).

use burn::tensor::Tensor;

use crate::{Error, Result, unit};

/// The dimensions, and how much each of them counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Matryoshka {
    dims: Vec<(usize, f64)>,
}

impl Matryoshka {
    /// These numbers of dimensions, all with a weight of 1.
    ///
    /// # Errors
    ///
    /// As [`weighted`](Self::weighted).
    pub fn new(dims: &[usize], model_dims: usize) -> Result<Self> {
        Self::weighted(dims.iter().map(|&dims| (dims, 1.0)).collect(), model_dims)
    }

    /// Numbers of dimensions with their weights, for a model of `model_dims` dimensions.
    ///
    /// # Errors
    ///
    /// If there are none, one of them is 0 or more than the model has, or a weight is negative.
    pub fn weighted(mut dims: Vec<(usize, f64)>, model_dims: usize) -> Result<Self> {
        let unfit = dims.iter().find(|(dims, weight)| {
            *dims == 0 || *dims > model_dims || weight.is_nan() || *weight < 0.0
        });
        if let Some((dims, weight)) = unfit {
            return Err(Error::Settings(format!(
                "{dims} dimensions with a weight of {weight}: dimensions must be in 1..={model_dims}, and weights 0 or more"
            )));
        }
        if dims.is_empty() {
            return Err(Error::Settings(
                "a Matryoshka loss needs at least one number of dimensions".into(),
            ));
        }
        dims.sort_by_key(|(dims, _)| std::cmp::Reverse(*dims));
        Ok(Self { dims })
    }

    /// The dimensions and weights, the most dimensions first.
    pub fn dims(&self) -> &[(usize, f64)] {
        &self.dims
    }

    /// The same on some of the dimensions: `chosen` of them, drawn by `seed`.
    #[must_use]
    pub fn sample(&self, chosen: usize, seed: u64) -> Self {
        let places = sample(self.dims.len(), chosen, seed);
        Self {
            dims: places.into_iter().map(|place| self.dims[place]).collect(),
        }
    }
}

/// `chosen` of the numbers below `count`, in order.
pub(crate) fn sample(count: usize, chosen: usize, seed: u64) -> Vec<usize> {
    use rand::SeedableRng;
    use rand::seq::index;
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let mut places = index::sample(&mut rng, count, chosen.min(count)).into_vec();
    places.sort_unstable();
    places
}

/// `Σ w·loss(the first dimensions of all columns, normalized)`.
///
/// # Shapes
///
/// - `columns`: each `[n, dims]`; `loss` gets the same columns with fewer dimensions
/// - output: that of `loss`
pub fn matryoshka(
    columns: &[Tensor<2>],
    settings: &Matryoshka,
    mut loss: impl FnMut(&[Tensor<2>]) -> Tensor<1>,
) -> Tensor<1> {
    let terms = settings.dims.iter().map(|&(dims, weight)| {
        let cut = columns.iter().map(|column| {
            let all = column.dims()[1];
            match dims < all {
                true => unit(column.clone().narrow(1, 0, dims)),
                false => unit(column.clone()),
            }
        });
        loss(&cut.collect::<Vec<_>>()) * weight
    });
    terms
        .reduce(|a, b| a + b)
        .expect("there is one number of dimensions at least")
}
