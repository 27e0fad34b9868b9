//! Search on one byte a dimension.

use rayon::prelude::*;

use super::top::Top;
use super::{Hit, VectorIndex, check_queries};
use crate::quantize::Ranges;
use crate::{Embeddings, Error, Result};

/// Documents in a quarter of the memory: [`Ranges::int8`]. Scores are the products of the query, whole, with what the codes
/// stand for.
#[derive(Clone, Debug)]
pub struct Int8Index {
    ranges: Ranges,
    codes: Vec<i8>,
}

impl Int8Index {
    /// An empty index whose codes are those of these ranges.
    pub fn new(ranges: Ranges) -> Self {
        Self {
            ranges,
            codes: Vec::new(),
        }
    }

    fn dims(&self) -> usize {
        self.ranges.min.len()
    }
}

impl VectorIndex for Int8Index {
    fn len(&self) -> usize {
        self.codes.len() / self.dims().max(1)
    }

    fn add(&mut self, documents: &Embeddings) -> Result<()> {
        documents.check_finite()?;
        self.codes.extend(self.ranges.int8(documents)?);
        Ok(())
    }

    fn search(&self, queries: &Embeddings, k: usize) -> Result<Vec<Vec<Hit>>> {
        check_queries(queries, self.dims(), 1)?;
        if queries.is_empty() {
            return Ok(Vec::new());
        }
        let dims = self.dims();
        let one = vec![-128i8; dims];
        let lowest = self.ranges.restore(&one);
        let two: Vec<i8> = one.iter().map(|code| code + 1).collect();
        let steps: Vec<f32> = (self.ranges.restore(&two).iter().zip(&lowest))
            .map(|(next, low)| next - low)
            .collect();
        let rows: Vec<&[f32]> = queries.rows().collect();
        Ok(rows
            .par_iter()
            .map(|query| {
                // q·(min + step·(code + 128)) = Σ q·(min + 128·step) + Σ (q·step)·code
                let scaled: Vec<f32> = query.iter().zip(&steps).map(|(q, step)| q * step).collect();
                let base: f32 = (query.iter().zip(&lowest))
                    .zip(&scaled)
                    .map(|((q, low), scaled)| q * low + 128.0 * scaled)
                    .sum();
                let mut top = Top::new(k);
                for (document, codes) in self.codes.chunks_exact(dims).enumerate() {
                    top.push(document, base + product(&scaled, codes));
                }
                top.sorted()
            })
            .collect())
    }
}

fn product(query: &[f32], codes: &[i8]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (parts, rest) = query.as_chunks::<16>();
    let (codes, codes_rest) = codes.as_chunks::<16>();
    for (query, codes) in parts.iter().zip(codes) {
        for i in 0..16 {
            sums[i] += query[i] * f32::from(codes[i]);
        }
    }
    let rest = rest
        .iter()
        .zip(codes_rest)
        .map(|(q, code)| q * f32::from(*code));
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

impl TryFrom<&Embeddings> for Int8Index {
    type Error = Error;

    /// The index of documents, with their own ranges.
    fn try_from(documents: &Embeddings) -> Result<Self> {
        let mut index = Self::new(Ranges::of(documents)?);
        index.add(documents)?;
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_what_the_codes_stand_for() {
        let dims = 19;
        let values = (0..dims * 7).map(|i| ((i * 37 % 100) as f32 - 50.0) / 50.0);
        let documents = Embeddings::new(values.collect(), dims).expect("rows");
        let index = Int8Index::try_from(&documents).expect("two rows or more");
        let query = documents.select(&[3]);
        let hits = index.search(&query, 7).expect("searches");
        assert_eq!((hits[0].len(), hits[0][0].document), (7, 3));
        for hit in &hits[0] {
            let codes = &index.codes[hit.document * dims..][..dims];
            let restored = index.ranges.restore(codes);
            let expected: f32 = restored.iter().zip(query.row(0)).map(|(a, b)| a * b).sum();
            assert!((hit.score - expected).abs() < 1e-4, "{hit:?} {expected}");
        }
    }
}
