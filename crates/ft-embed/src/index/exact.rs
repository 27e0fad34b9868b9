//! Every product of queries and documents, by the matrix product of ft-kernels.

use burn::tensor::{Device, Tensor, TensorData};
use ft_kernels::{in_f32, linear};
use rayon::prelude::*;

use super::top::Top;
use super::{Hit, VectorIndex, check_queries};
use crate::{Embeddings, Error, Result};

/// Documents of a block: their products with a block of queries stay in the cache.
pub(super) const DOCUMENTS: usize = 4096;
/// Queries of a block.
pub(super) const QUERIES: usize = 128;

/// Exact search by dot product.
///
/// ```
/// use ft_embed::{Embeddings, ExactIndex, VectorIndex};
///
/// let mut index = ExactIndex::default();
/// index.add(&Embeddings::new(vec![1.0, 0.0, 0.0, 1.0, 0.6, 0.8], 2)?)?;
/// let hits = index.search(&Embeddings::new(vec![0.0, 2.0], 2)?, 2)?;
/// assert_eq!((hits[0][0].document, hits[0][0].score), (1, 2.0));
/// assert_eq!((hits[0][1].document, hits[0][1].score), (2, 1.6));
/// # Ok::<(), ft_embed::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct ExactIndex {
    /// Blocks of `[documents, dims]`, all but the last one full.
    blocks: Vec<Tensor<2>>,
    /// Documents that do not fill a block yet.
    rest: Embeddings,
    dims: usize,
}

impl ExactIndex {
    /// The index of these documents.
    ///
    /// # Errors
    ///
    /// If a number is not finite.
    pub fn new(documents: &Embeddings) -> Result<Self> {
        let mut index = Self::default();
        index.add(documents)?;
        Ok(index)
    }
}

fn matrix(values: &[f32], dims: usize) -> Tensor<2> {
    let rows = values.len().checked_div(dims).unwrap_or(0);
    let data = TensorData::new(values.to_vec(), [rows, dims]);
    Tensor::from_data(data, &Device::default())
}

impl VectorIndex for ExactIndex {
    fn len(&self) -> usize {
        self.blocks.len() * DOCUMENTS + self.rest.len()
    }

    fn add(&mut self, documents: &Embeddings) -> Result<()> {
        documents.check_finite()?;
        if documents.is_empty() {
            return Ok(());
        }
        if !self.is_empty() && documents.dims() != self.dims {
            return Err(Error::Embeddings(format!(
                "the index has documents of {} dimensions, not {}",
                self.dims,
                documents.dims()
            )));
        }
        self.dims = documents.dims();
        self.rest.extend(documents)?;
        let full = self.rest.len() / DOCUMENTS * DOCUMENTS * self.dims;
        let (full, rest) = self.rest.values().split_at(full);
        let blocks = full.chunks_exact(DOCUMENTS * self.dims);
        self.blocks
            .extend(blocks.map(|block| matrix(block, self.dims)));
        self.rest = Embeddings::new(rest.to_vec(), self.dims)?;
        Ok(())
    }

    fn search(&self, queries: &Embeddings, k: usize) -> Result<Vec<Vec<Hit>>> {
        check_queries(queries, self.dims, self.len())?;
        if self.is_empty() || queries.is_empty() {
            return Ok(vec![Vec::new(); queries.len()]);
        }
        let rest = (!self.rest.is_empty()).then(|| matrix(self.rest.values(), self.dims));
        let blocks: Vec<&Tensor<2>> = self.blocks.iter().chain(&rest).collect();
        let parts: Vec<Vec<Vec<Hit>>> = queries
            .values()
            .chunks(QUERIES * self.dims)
            .map(|part| {
                let part = matrix(part, self.dims);
                let mut best: Vec<Top> = (0..part.dims()[0]).map(|_| Top::new(k)).collect();
                for (number, block) in blocks.iter().enumerate() {
                    let scores = in_f32(|| linear(part.clone(), (*block).clone(), None));
                    let width = scores.dims()[1];
                    let scores = scores.into_data();
                    let scores = scores.as_slice::<f32>().unwrap_or(&[]);
                    best.par_iter_mut()
                        .zip(scores.par_chunks_exact(width))
                        .for_each(|(best, scores)| best.push_all(number * DOCUMENTS, scores));
                }
                best.into_par_iter().map(Top::sorted).collect()
            })
            .collect();
        Ok(parts.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(rows: usize, dims: usize, seed: u64) -> Embeddings {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let values = (0..rows * dims).map(|_| next()).collect();
        Embeddings::new(values, dims).expect("rows")
    }

    #[test]
    fn all_blocks_are_searched_and_the_best_come_first() {
        let documents = some(2 * DOCUMENTS + 100, 8, 1);
        let queries = some(QUERIES + 3, 8, 2);
        let mut index =
            ExactIndex::new(&documents.select(&(0..50).collect::<Vec<_>>())).expect("adds");
        let others: Vec<usize> = (50..documents.len()).collect();
        index.add(&documents.select(&others)).expect("adds");
        assert_eq!(index.len(), documents.len());
        let found = index.search(&queries, 5).expect("searches");
        assert_eq!(found.len(), queries.len());
        for (query, found) in [0, 1, QUERIES + 2].map(|i| (queries.row(i), &found[i])) {
            let mut all: Vec<(usize, f32)> = (documents.rows().enumerate())
                .map(|(i, row)| (i, row.iter().zip(query).map(|(a, b)| a * b).sum()))
                .collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            for (hit, (document, score)) in found.iter().zip(all) {
                assert_eq!(hit.document, document);
                assert!((hit.score - score).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let mut index = ExactIndex::new(&some(3, 4, 1)).expect("adds");
        assert!(index.add(&some(1, 5, 1)).is_err());
        assert!(index.search(&some(1, 5, 1), 1).is_err());
        let nan = Embeddings::new(vec![f32::NAN; 4], 4).expect("a row");
        assert!(index.add(&nan).is_err() && index.search(&nan, 1).is_err());
        assert_eq!(
            index.search(&some(1, 4, 1), 9).expect("searches")[0].len(),
            3
        );
        let none = ExactIndex::default().search(&some(2, 4, 1), 9);
        assert_eq!(none.expect("searches"), [vec![], vec![]]);
    }
}
