//! Search on one byte a dimension.

use burn::tensor::{Device, Tensor, TensorData};
use ft_kernels::{in_f32, linear};
use rayon::prelude::*;

use super::exact::{DOCUMENTS, QUERIES};
use super::top::Top;
use super::{Hit, VectorIndex, check_queries};
use crate::quantize::Ranges;
use crate::{Embeddings, Error, Result};

/// From so many queries on, codes become numbers, which are multiplied with all queries.
const MANY: usize = 8;

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
        // q·(min + step·(code + 128)) = Σ q·(min + 128·step) + Σ (q·step)·code
        let scale = |query: &[f32]| -> Vec<f32> {
            query.iter().zip(&steps).map(|(q, step)| q * step).collect()
        };
        let base = |query: &[f32], scaled: &[f32]| -> f32 {
            (query.iter().zip(&lowest))
                .zip(scaled)
                .map(|((q, low), scaled)| q * low + 128.0 * scaled)
                .sum()
        };
        let scaled: Vec<Vec<f32>> = queries.rows().map(scale).collect();
        let bases: Vec<f32> = (queries.rows().zip(&scaled))
            .map(|(query, scaled)| base(query, scaled))
            .collect();
        let mut best: Vec<Top> = bases.iter().map(|_| Top::new(k)).collect();
        if queries.len() < MANY {
            for ((best, scaled), base) in best.iter_mut().zip(&scaled).zip(&bases) {
                self.scan(scaled, *base, best);
            }
        } else {
            self.scan_all(&scaled.concat(), &bases, &mut best);
        }
        Ok(best.into_par_iter().map(Top::sorted).collect())
    }
}

impl Int8Index {
    /// Looks at all documents for one query, from the codes as they are.
    fn scan(&self, scaled: &[f32], base: f32, best: &mut Top) {
        let dims = self.dims();
        let blocks = self.codes.par_chunks(DOCUMENTS * dims);
        let scores: Vec<Vec<f32>> = blocks
            .map(|codes| {
                let codes = codes.chunks_exact(dims);
                codes.map(|codes| base + product(scaled, codes)).collect()
            })
            .collect();
        for (number, scores) in scores.iter().enumerate() {
            best.push_all(number * DOCUMENTS, scores);
        }
    }

    /// The same for many queries `[queries, dims]`: a block of codes becomes numbers once, and is multiplied with all of them.
    fn scan_all(&self, scaled: &[f32], bases: &[f32], best: &mut [Top]) {
        let dims = self.dims();
        let matrix = |values: Vec<f32>| {
            let rows = values.len() / dims;
            Tensor::<2>::from_data(TensorData::new(values, [rows, dims]), &Device::default())
        };
        let parts: Vec<Tensor<2>> = (scaled.chunks(QUERIES * dims))
            .map(|part| matrix(part.to_vec()))
            .collect();
        for (number, codes) in self.codes.chunks(DOCUMENTS * dims).enumerate() {
            let wide: Vec<f32> = codes.par_iter().map(|&code| f32::from(code)).collect();
            let block = matrix(wide);
            let ends = best.chunks_mut(QUERIES).zip(bases.chunks(QUERIES));
            for (part, (best, bases)) in parts.iter().zip(ends) {
                let scores = in_f32(|| linear(part.clone(), block.clone(), None));
                let width = scores.dims()[1];
                let bases = Tensor::<1>::from_data(bases, &Device::default());
                let scores = (scores + bases.unsqueeze_dim::<2>(1)).into_data();
                let scores = scores.as_slice::<f32>().unwrap_or(&[]);
                best.par_iter_mut()
                    .zip(scores.par_chunks_exact(width))
                    .for_each(|(best, scores)| best.push_all(number * DOCUMENTS, scores));
            }
        }
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
    fn many_queries_find_what_each_finds_alone() {
        let dims = 24;
        let some = |rows: usize, salt: usize| {
            let values = (0..rows * dims).map(|i| ((i * 37 + i / 7 * salt) % 101) as f32 - 50.0);
            Embeddings::new(values.collect(), dims).expect("rows")
        };
        let (documents, queries) = (some(DOCUMENTS + 300, 13), some(QUERIES + 5, 29));
        let index = Int8Index::try_from(&documents).expect("two rows or more");
        let together = index.search(&queries, 3).expect("searches");
        for (row, found) in together.iter().enumerate() {
            let alone = index.search(&queries.select(&[row]), 3).expect("searches");
            for (a, b) in found.iter().zip(&alone[0]) {
                assert!(
                    (a.score - b.score).abs() < 1e-3 * b.score.abs(),
                    "{a:?} {b:?}"
                );
            }
        }
    }

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
