//! Gradients, losses and metrics of several batches as if they were one.
//!
//! The loss of a window of batches is `Σᵢ sᵢ / Σᵢ nᵢ`, with `sᵢ` the summed loss of batch `i` and `nᵢ`
//! how many labels it was summed over. So sums are backpropagated and added, and the division by
//! `Σ nᵢ` happens once, at the end. A mean of the batches' means, which is what many loops take,
//! weighs a label in a batch of few labels more than one in a batch of many.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;

use crate::metric::MetricSums;
use crate::{Error, Metrics, Result, StepOutput};

/// Adds up what the steps of a window of batches return, and their gradients.
///
/// ```no_run
/// # fn demo<M: burn::module::Module>(model: &M, outputs: Vec<ft_train::StepOutput>) -> ft_train::Result<()> {
/// let mut accumulator = ft_train::Accumulator::new();
/// for output in outputs {
///     accumulator.add(model, output)?;
/// }
/// let window = accumulator.finish();
/// println!("loss {}", window.mean_loss());
/// # Ok(())
/// # }
/// ```
pub struct Accumulator<M> {
    gradients: GradientsAccumulator<M>,
    sums: Vec<Tensor<1>>,
    counts: Vec<usize>,
    tokens: usize,
    metrics: MetricSums,
}

impl<M: Module> Default for Accumulator<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Module> Accumulator<M> {
    /// An empty window.
    pub fn new() -> Self {
        Self {
            gradients: GradientsAccumulator::new(),
            sums: Vec::new(),
            counts: Vec::new(),
            tokens: 0,
            metrics: MetricSums::default(),
        }
    }

    /// Backpropagates the summed loss of one batch and adds its gradients. A batch without labels
    /// adds no gradient.
    ///
    /// # Errors
    ///
    /// [`Error::NoGradient`] if the loss does not depend on a parameter that requires gradients.
    pub fn add(&mut self, model: &M, output: impl Into<StepOutput>) -> Result<()> {
        let output = output.into();
        let (sum, count) = (output.loss.sum, output.loss.count);
        self.tokens += output.tokens.unwrap_or(count);
        self.metrics.add(output.metrics);
        self.counts.push(count);
        self.sums.push(sum.clone().inner());
        if count == 0 {
            return Ok(());
        }
        if !sum.is_tracked() {
            return Err(Error::NoGradient);
        }
        let gradients = GradientsParams::from_grads(sum.backward(), model);
        self.gradients.accumulate(model, gradients);
        Ok(())
    }

    /// Reads losses and metrics from the device, all at once, and hands over the gradients.
    pub fn finish(mut self) -> Window {
        let sums = match self.sums.is_empty() {
            true => Vec::new(),
            false => Tensor::cat(self.sums, 0)
                .into_data()
                .iter::<f64>()
                .collect(),
        };
        Window {
            gradients: self.gradients.grads(),
            sums,
            counts: self.counts,
            tokens: self.tokens,
            metrics: self.metrics.reduce(),
        }
    }
}

/// What a window of batches came to.
#[derive(Debug)]
pub struct Window {
    /// Gradients of the summed loss, not yet divided by [`count`](Self::count).
    pub gradients: GradientsParams,
    /// The summed loss of each batch.
    pub sums: Vec<f64>,
    /// Over how many labels each batch was summed.
    pub counts: Vec<usize>,
    /// Tokens of all batches.
    pub tokens: usize,
    /// Metrics over all batches.
    pub metrics: Metrics,
}

impl Window {
    /// Over how many labels the window was summed.
    pub fn count(&self) -> usize {
        self.counts.iter().sum()
    }

    /// The mean loss of a label.
    pub fn mean_loss(&self) -> f64 {
        self.labelled().map(|(_, sum)| sum).sum::<f64>() / self.count() as f64
    }

    /// The first batch whose loss is not finite, and its mean loss.
    pub fn non_finite(&self) -> Option<(usize, f64)> {
        self.labelled()
            .find(|(_, sum)| !sum.is_finite())
            .map(|(place, sum)| (place, sum / self.counts[place] as f64))
    }

    /// Place and sum of the batches that have labels.
    fn labelled(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        (self.sums.iter().copied().enumerate()).filter(|(place, _)| self.counts[*place] > 0)
    }
}
