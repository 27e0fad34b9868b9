//! Search on one bit a dimension, and the best candidates scored again with the whole query.

use rayon::prelude::*;

use super::top::Top;
use super::{Hit, VectorIndex, check_queries};
use crate::quantize::binary;
use crate::{Embeddings, Error, Result};

/// Documents in a thirty-second of the memory: the signs of their numbers.
///
/// Candidates are those with the least Hamming distance to the signs of the query. They are scored again by the product
/// of the whole query with the signs of the document, 1 and −1 (Yamada et al., 2021, arXiv:2106.00882, section 3.2).
#[derive(Clone, Debug)]
pub struct BinaryIndex {
    dims: usize,
    /// Words of 64 bits, each document in whole words.
    words: Vec<u64>,
    oversampling: usize,
}

impl BinaryIndex {
    /// An empty index of documents with so many dimensions. A search for `k` documents scores `oversampling · k` again.
    ///
    /// # Errors
    ///
    /// If one of both is 0.
    pub fn new(dims: usize, oversampling: usize) -> Result<Self> {
        if dims == 0 || oversampling == 0 {
            return Err(Error::Settings(format!(
                "{dims} dimensions and an oversampling of {oversampling}: both must be positive"
            )));
        }
        Ok(Self {
            dims,
            words: Vec::new(),
            oversampling,
        })
    }

    fn width(&self) -> usize {
        self.dims.div_ceil(64)
    }

    fn words_of(&self, embeddings: &Embeddings) -> Vec<u64> {
        let bytes = binary(embeddings);
        let rows = bytes.chunks_exact(self.dims.div_ceil(8));
        let words = rows.flat_map(|row| {
            row.chunks(8).map(|part| {
                let mut word = [0; 8];
                word[..part.len()].copy_from_slice(part);
                u64::from_be_bytes(word)
            })
        });
        words.collect()
    }
}

impl VectorIndex for BinaryIndex {
    fn len(&self) -> usize {
        self.words.len() / self.width()
    }

    fn add(&mut self, documents: &Embeddings) -> Result<()> {
        documents.check_finite()?;
        if documents.dims() != self.dims && !documents.is_empty() {
            return Err(Error::Embeddings(format!(
                "the index has documents of {} dimensions, not {}",
                self.dims,
                documents.dims()
            )));
        }
        let words = self.words_of(documents);
        self.words.extend(words);
        Ok(())
    }

    fn search(&self, queries: &Embeddings, k: usize) -> Result<Vec<Vec<Hit>>> {
        check_queries(queries, self.dims, 1)?;
        if queries.is_empty() {
            return Ok(Vec::new());
        }
        let width = self.width();
        let codes = self.words_of(queries);
        let rows: Vec<_> = queries.rows().zip(codes.chunks_exact(width)).collect();
        Ok(rows
            .par_iter()
            .map(|(query, code)| {
                let mut candidates = Top::new(k.saturating_mul(self.oversampling));
                for (document, words) in self.words.chunks_exact(width).enumerate() {
                    let distance: u32 = (words.iter().zip(*code))
                        .map(|(a, b)| (a ^ b).count_ones())
                        .sum();
                    candidates.push(document, -(distance as f32));
                }
                let mut top = Top::new(k);
                let mut candidates = candidates.sorted();
                candidates.sort_unstable_by_key(|hit| hit.document);
                for Hit { document, .. } in candidates {
                    let words = &self.words[document * width..][..width];
                    let signed = query.iter().enumerate().map(|(i, q)| {
                        match words[i / 64] >> (63 - i % 64) & 1 {
                            1 => *q,
                            _ => -q,
                        }
                    });
                    top.push(document, signed.sum());
                }
                top.sorted()
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_signs_are_found_and_scored_with_the_whole_query() {
        let dims = 70;
        let mut values = vec![-1.0f32; dims * 3];
        values[..dims].fill(1.0);
        values[dims..dims + 35].fill(1.0);
        let documents = Embeddings::new(values, dims).expect("rows");
        let mut index = BinaryIndex::new(dims, 2).expect("positive");
        index.add(&documents).expect("fits");
        let mut query = vec![0.5f32; dims];
        query[69] = -3.0;
        let query = Embeddings::new(query, dims).expect("a row");
        let hits = index.search(&query, 3).expect("searches");
        let scores: Vec<_> = hits[0]
            .iter()
            .map(|hit| (hit.document, hit.score))
            .collect();
        // 69·0.5 − 3; 35·0.5 − 34·0.5 + 3; −69·0.5 + 3
        assert_eq!(scores, [(0, 31.5), (1, 3.5), (2, -31.5)]);
    }
}
