//! Embeddings in fewer bits: one byte or one bit a dimension, with the codes of sentence-transformers.
//!
//! `int8`: dimension `d` has the code `clip(⌊(x − min_d) / ((max_d − min_d) / 255)⌋, 0, 255) − 128`. Ranges are those of a
//! set of embeddings, and have to be kept for embeddings that come later. `binary`: a bit for `x > 0`, the first dimension
//! in the highest bit of the first byte. What is lost is mostly regained by searching for more documents than are
//! needed and scoring these again, see [`Int8Index`](crate::Int8Index) and [`BinaryIndex`](crate::BinaryIndex).

use serde::{Deserialize, Serialize};

use crate::{Embeddings, Error, Result};

/// The range of each dimension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ranges {
    /// The least number of each dimension.
    pub min: Vec<f32>,
    /// The greatest.
    pub max: Vec<f32>,
}

impl Ranges {
    /// The ranges of a set of embeddings.
    ///
    /// # Errors
    ///
    /// If there are fewer than two of them, or a number is not finite.
    pub fn of(embeddings: &Embeddings) -> Result<Self> {
        embeddings.check_finite()?;
        if embeddings.len() < 2 {
            return Err(Error::Embeddings(format!(
                "ranges need at least 2 embeddings, not {}: take them from a set of typical ones",
                embeddings.len()
            )));
        }
        let mut min = vec![f32::INFINITY; embeddings.dims()];
        let mut max = vec![f32::NEG_INFINITY; embeddings.dims()];
        for row in embeddings.rows() {
            for ((min, max), &x) in min.iter_mut().zip(&mut max).zip(row) {
                *min = min.min(x);
                *max = max.max(x);
            }
        }
        Ok(Self { min, max })
    }

    /// The width of a code.
    fn step(&self, dim: usize) -> f32 {
        match (self.max[dim] - self.min[dim]) / 255.0 {
            0.0 => 1.0,
            step => step,
        }
    }

    /// The codes of embeddings, row by row.
    ///
    /// # Errors
    ///
    /// If they have another number of dimensions.
    pub fn int8(&self, embeddings: &Embeddings) -> Result<Vec<i8>> {
        if embeddings.dims() != self.min.len() {
            return Err(Error::Embeddings(format!(
                "the ranges are of {} dimensions, the embeddings have {}",
                self.min.len(),
                embeddings.dims()
            )));
        }
        let steps: Vec<f32> = (0..self.min.len()).map(|dim| self.step(dim)).collect();
        let code = |(dim, &x): (usize, &f32)| {
            let place = ((x - self.min[dim]) / steps[dim]).floor().clamp(0.0, 255.0);
            (place as i32 - 128) as i8
        };
        Ok(embeddings
            .rows()
            .flat_map(|row| row.iter().enumerate().map(code))
            .collect())
    }

    /// What the codes of one embedding stand for: the lower end of each code's range.
    pub fn restore(&self, codes: &[i8]) -> Vec<f32> {
        let codes = codes.iter().enumerate();
        codes
            .map(|(dim, &code)| (f32::from(code) + 128.0) * self.step(dim) + self.min[dim])
            .collect()
    }
}

/// The signs of embeddings, a bit a dimension, each row in whole bytes (`ubinary` in sentence-transformers).
pub fn binary(embeddings: &Embeddings) -> Vec<u8> {
    let bytes = |row: &[f32]| -> Vec<u8> {
        let bytes = row.chunks(8).map(|part| {
            let bits = part.iter().enumerate();
            bits.fold(0u8, |byte, (i, &x)| byte | (u8::from(x > 0.0) << (7 - i)))
        });
        bytes.collect()
    };
    embeddings.rows().flat_map(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_by_hand() {
        let some = Embeddings::new(vec![0.0, 5.0, 2.55, 5.0, 1.0, 5.0], 2).expect("rows");
        let ranges = Ranges::of(&some).expect("three rows");
        // steps of 0.01; 1.0 / 0.01 is just below 100 or 100 in f32
        let codes = ranges.int8(&some).expect("fits");
        assert_eq!((codes[0], codes[2]), (-128, 127));
        assert!((-29..=-28).contains(&codes[4]), "{codes:?}");
        // A dimension without a range has a step of 1.
        assert_eq!((codes[1], codes[3], codes[5]), (-128, -128, -128));
        assert_eq!(ranges.restore(&[-128, -128]), [0.0, 5.0]);
        let beyond = Embeddings::new(vec![-9.0, 900.0], 2).expect("rows");
        assert_eq!(ranges.int8(&beyond).expect("fits"), [-128, 127]);
    }

    #[test]
    fn bits_begin_with_the_highest() {
        let row = vec![1.0, -1.0, 0.0, 2.0, -3.0, 4.0, 5.0, -0.1, 7.0];
        let row = Embeddings::new(row, 9).expect("a row");
        assert_eq!(binary(&row), [0b1001_0110, 0b1000_0000]);
    }

    #[test]
    fn one_embedding_has_no_ranges() {
        assert!(Ranges::of(&Embeddings::new(vec![1.0], 1).expect("a row")).is_err());
    }
}
