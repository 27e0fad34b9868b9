//! Moments of the inputs of a layer, `mean x·xᵀ`, `mean |x|`, `mean x²` and `max |x|` over tokens, batch by batch.

use burn::tensor::{Device, Tensor};

use crate::cholesky::numbers;

/// Columns that are multiplied at the same time. Only the part of `x·xᵀ` above the diagonal of these blocks is computed.
const BLOCK: usize = 192;

/// Which moments are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// `mean x²` only.
    Squares,
    /// All of them.
    Second,
}

/// Sums over the tokens of inputs with `cols` features.
#[derive(Debug)]
pub(crate) struct Sums {
    /// `x[:, ..end]ᵀ·x[:, start..end]` for each block of columns.
    blocks: Vec<Tensor<2>>,
    squares: Option<Tensor<2>>,
    magnitudes: Option<Tensor<2>>,
    largest: Option<Tensor<2>>,
    tokens: usize,
    cols: usize,
    order: Order,
}

/// What is known of a layer's inputs.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    /// `mean x·xᵀ`, `[cols, cols]`; empty if only squares were summed.
    pub(crate) hessian: Vec<f32>,
    /// `mean |x|`, `[cols]`; empty if only squares were summed.
    pub(crate) mean_abs: Vec<f32>,
    /// `max |x|`, `[cols]`; empty if only squares were summed.
    pub(crate) max_abs: Vec<f32>,
    /// `mean x²`, `[cols]`.
    pub(crate) mean_squares: Vec<f32>,
}

impl Sums {
    pub(crate) fn new(cols: usize, order: Order) -> Self {
        Self {
            blocks: Vec::new(),
            squares: None,
            magnitudes: None,
            largest: None,
            tokens: 0,
            cols,
            order,
        }
    }

    /// Adds the tokens of `x`, `[tokens, cols]`.
    pub(crate) fn add(&mut self, x: &Tensor<2>) {
        let [tokens, cols] = x.dims();
        assert_eq!(cols, self.cols, "features of the input");
        self.tokens += tokens;
        let x = x.clone();
        if self.order == Order::Squares {
            plus(&mut self.squares, (x.clone() * x).sum_dim(0));
            return;
        }
        let magnitudes = x.clone().abs();
        let largest = magnitudes.clone().max_dim(0);
        self.largest = Some(match self.largest.take() {
            Some(most) => most.max_pair(largest),
            None => largest,
        });
        plus(&mut self.magnitudes, magnitudes.sum_dim(0));
        for (i, start) in (0..cols).step_by(BLOCK).enumerate() {
            let end = (start + BLOCK).min(cols);
            let above = x.clone().narrow(1, 0, end).transpose();
            let product = above.matmul(x.clone().narrow(1, start, end - start));
            match self.blocks.get_mut(i) {
                Some(sum) => *sum = sum.clone() + product,
                None => self.blocks.push(product),
            }
        }
    }

    /// The means.
    pub(crate) fn means(self) -> Moments {
        let tokens = self.tokens.max(1) as f32;
        let row = |sum: Option<Tensor<2>>| sum.map(|sum| numbers(sum / tokens)).unwrap_or_default();
        let max_abs = self.largest.map(numbers).unwrap_or_default();
        let mut moments = Moments {
            hessian: Vec::new(),
            mean_abs: row(self.magnitudes),
            max_abs,
            mean_squares: row(self.squares),
        };
        if self.order == Order::Squares {
            return moments;
        }
        let cols = self.cols;
        let mut hessian = vec![0.0; cols * cols];
        for (i, block) in self.blocks.into_iter().enumerate() {
            let [end, size] = block.dims();
            let start = i * BLOCK;
            for (row, part) in numbers(block / tokens).chunks_exact(size).enumerate() {
                hessian[row * cols + start..row * cols + end].copy_from_slice(part);
                for (col, number) in (start..end).zip(part) {
                    hessian[col * cols + row] = *number;
                }
            }
        }
        moments.mean_squares = (0..cols).map(|col| hessian[col * cols + col]).collect();
        moments.hessian = hessian;
        moments
    }
}

fn plus(sum: &mut Option<Tensor<2>>, more: Tensor<2>) {
    *sum = Some(match sum.take() {
        Some(sum) => sum + more,
        None => more,
    });
}

/// A matrix as a tensor.
pub(crate) fn tensor(numbers: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(burn::tensor::TensorData::new(numbers, shape), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_parts_are_those_of_the_whole() {
        let (rows, cols) = (7, BLOCK + 5);
        let x: Vec<f32> = (0..rows * cols)
            .map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0)
            .collect();
        let device = Device::default();
        let whole = tensor(x.clone(), [rows, cols], &device);
        let mut sums = Sums::new(cols, Order::Second);
        sums.add(&whole.clone().narrow(0, 0, 3));
        sums.add(&whole.clone().narrow(0, 3, 4));
        let moments = sums.means();
        for i in 0..cols {
            for j in [0, i, BLOCK, cols - 1] {
                let mean = (0..rows)
                    .map(|row| x[row * cols + i] * x[row * cols + j])
                    .sum::<f32>()
                    / rows as f32;
                assert!(
                    (moments.hessian[i * cols + j] - mean).abs() < 1e-5,
                    "{i} {j}"
                );
            }
            let mean = (0..rows).map(|row| x[row * cols + i].abs()).sum::<f32>() / rows as f32;
            assert!((moments.mean_abs[i] - mean).abs() < 1e-5, "{i}");
            let most = (0..rows).fold(0.0f32, |most, row| most.max(x[row * cols + i].abs()));
            assert_eq!(moments.max_abs[i], most);
        }
        let mut squares = Sums::new(cols, Order::Squares);
        squares.add(&whole);
        let squares = squares.means().mean_squares;
        for (a, b) in squares.iter().zip(&moments.mean_squares) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}
