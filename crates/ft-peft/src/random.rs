//! Random numbers for new tensors, drawn on the host so that they are the same on every device.

use burn::tensor::{Tensor, TensorData};
use rand::Rng;

use crate::method::Draw;

/// No tensor of a file has more rows or columns. With it sizes do not overflow.
const LONGEST: usize = 1 << 31;

impl Draw<'_> {
    /// Zeros that take no memory, in place of numbers that a file will replace: a size that the settings of a broken file
    /// give is compared with that of its tensors before anything is allocated.
    fn unread<const D: usize>(&self, shape: [usize; D]) -> Option<Tensor<D>> {
        self.stored?;
        let shape = shape.map(|size| size.min(LONGEST));
        Some(match shape.contains(&0) {
            true => Tensor::<D>::zeros(shape, &self.device),
            false => Tensor::<D>::zeros([1; D], &self.device).expand(shape),
        })
    }

    /// Numbers of a uniform distribution over `±bound`.
    pub fn uniform<const D: usize>(&mut self, shape: [usize; D], bound: f64) -> Tensor<D> {
        if let Some(unread) = self.unread(shape) {
            return unread;
        }
        let bound = bound as f32;
        let count = shape.iter().product::<usize>();
        let numbers = (0..count).map(|_| match bound > 0.0 {
            true => self.rng.random_range(-bound..bound),
            false => 0.0,
        });
        let numbers: Vec<f32> = numbers.collect();
        self.tensor(numbers, shape)
    }

    /// Numbers of a normal distribution with mean 0.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], std: f64) -> Tensor<D> {
        if let Some(unread) = self.unread(shape) {
            return unread;
        }
        let count = shape.iter().product::<usize>();
        let numbers = (0..count).map(|_| normal(self.rng) * std as f32).collect();
        self.tensor(numbers, shape)
    }

    /// Numbers of a normal distribution with mean 0, of at most two deviations.
    pub fn truncated_normal<const D: usize>(&mut self, shape: [usize; D], std: f64) -> Tensor<D> {
        if let Some(unread) = self.unread(shape) {
            return unread;
        }
        let count = shape.iter().product::<usize>();
        let draws = std::iter::repeat_with(|| normal(self.rng)).filter(|x| x.abs() <= 2.0);
        let numbers = draws.take(count).map(|x| x * std as f32).collect();
        self.tensor(numbers, shape)
    }

    /// These numbers.
    pub fn tensor<const D: usize>(&self, numbers: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(numbers, shape), &self.device)
    }

    /// Zeros.
    pub fn zeros<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        (self.unread(shape)).unwrap_or_else(|| Tensor::zeros(shape, &self.device))
    }

    /// Ones.
    pub fn ones<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        (self.unread(shape)).unwrap_or_else(|| Tensor::ones(shape, &self.device))
    }
}

/// A standard normal number, by the method of Box and Muller.
pub(crate) fn normal(rng: &mut impl Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    radius * (std::f32::consts::TAU * rng.random::<f32>()).cos()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let mut rng = StdRng::seed_from_u64(1);
        let numbers: Vec<f32> = (0..20_000).map(|_| normal(&mut rng)).collect();
        let mean = numbers.iter().sum::<f32>() / 20_000.0;
        let square = numbers.iter().map(|x| x * x).sum::<f32>() / 20_000.0;
        // standard deviations: 1/√20000 = 0.007, √(2/20000) = 0.01
        assert!(
            mean.abs() < 0.03 && (square - 1.0).abs() < 0.04,
            "{mean} {square}"
        );
    }
}
