//! Head and logits on slices: a function replaces the logits of a few hundred rows by their gradient in place, from which
//! the gradients of hidden states and weight are computed.
//!
//! Loss and log-probabilities differ in their function of a row. All code that reads the weight is here.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::exp::exp;
use super::packed::Held;
use super::pieces::zeros;
use super::product::{Matrix, Output, product, threads_for};
use super::{contiguous, slice, tensor};
use crate::LogitOptions;

/// The stored weight `[vocab, width]` of a head, and the factor of its logits.
pub(crate) struct Head {
    weight: Held,
    scale: f32,
}

impl Head {
    /// With a cap `c` the logits are divided by `c`, as [`capped`] requires.
    pub(super) fn new(weight: Held, options: LogitOptions) -> Self {
        Self {
            weight,
            scale: (options.scale / options.softcap.unwrap_or(1.0)) as f32,
        }
    }

    pub(super) fn vocab(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Logits of a part of the rows, `[rows, vocab]`. The rows may be rounded if the weight has few bits.
    pub(super) fn logits(&self, hidden: Matrix<'_>, rounded: bool, out: &mut [f32]) {
        match rounded {
            true => self
                .weight
                .weight()
                .forward_rounded(hidden, self.scale, out),
            false => self.weight.weight().forward(hidden, self.scale, out),
        }
    }

    /// The gradient of hidden states, given that of their logits.
    fn gradient_of_hidden(&self, d_logits: Matrix<'_>, out: &mut [f32]) {
        self.weight.weight().backward(d_logits, self.scale, out);
    }

    /// Adds the gradient of the weight. The weight itself is not needed.
    fn add_gradient_of_weight(&self, d_logits: Matrix<'_>, hidden: Matrix<'_>, out: &mut [f32]) {
        let threads = threads_for(self.vocab(), hidden.cols(), hidden.rows());
        let d_logits = d_logits.t();
        product(d_logits, hidden, self.scale, out, Output::Add, threads);
    }

    /// Calls `rows(start, logits)` with the logits of rows `start..`, at most `chunk` rows at a time.
    ///
    /// If gradients are needed (of the hidden states, of the weight), `rows` replaces the logits by the gradient of the
    /// head's product. `tracked` is whether they are needed now or later.
    pub(super) fn in_chunks(
        &self,
        hidden: FlexTensor,
        chunk: usize,
        tracked: bool,
        [want_hidden, want_weight]: [bool; 2],
        mut rows: impl FnMut(usize, &mut [f32]),
    ) -> [Option<FlexTensor>; 2] {
        let hidden = contiguous(hidden);
        let ([count, width], vocab) = (hidden.shape().dims(), self.vocab());
        let mut d_hidden = zeros(if want_hidden { count * width } else { 0 });
        let mut d_weight = zeros(if want_weight { vocab * width } else { 0 });
        let mut logits = zeros(chunk.min(count) * vocab);
        for start in (0..count).step_by(chunk) {
            let size = chunk.min(count - start);
            let here = start * width..(start + size) * width;
            let part = Matrix::new(&slice(&hidden)[here.clone()], size, width);
            let logits = &mut logits[..size * vocab];
            self.logits(part, !tracked, logits);
            rows(start, logits);
            let gradient = Matrix::new(logits, size, vocab);
            if want_hidden {
                self.gradient_of_hidden(gradient, &mut d_hidden[here]);
            }
            if want_weight {
                self.add_gradient_of_weight(gradient, part, &mut d_weight);
            }
        }
        [
            want_hidden.then(|| tensor(d_hidden, [count, width])),
            want_weight.then(|| tensor(d_weight, [vocab, width])),
        ]
    }
}

/// `z = c·tanh(x)` and its slope `c·(1 − tanh²(x))`, accurate also for large `x`.
///
/// With `e = e^(−2|x|)`: `tanh|x| = (1 − e)/(1 + e)`, and `1 − tanh² = 4e/(1 + e)²`.
#[inline(always)]
pub(super) fn capped(x: f32, cap: f32) -> (f32, f32) {
    let e = exp(-2.0 * x.abs());
    let inverse = 1.0 / (1.0 + e);
    let tanh = ((1.0 - e) * inverse).copysign(x);
    (cap * tanh, cap * 4.0 * e * inverse * inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cap_and_slope_are_those_of_tanh() {
        for i in -4000..=4000 {
            let x = i as f32 * 0.005;
            let (z, slope) = capped(x, 30.0);
            let exact = f64::from(x);
            assert!((f64::from(z) - 30.0 * exact.tanh()).abs() < 1e-5, "{x}");
            // 1 − tanh² = 1 / cosh²
            let expected = 30.0 * exact.cosh().powi(-2);
            assert!((f64::from(slope) / expected - 1.0).abs() < 1e-6, "{x}");
        }
        assert_eq!(capped(f32::INFINITY, 30.0), (30.0, 0.0));
        assert_eq!(capped(-1e30, 30.0), (-30.0, 0.0));
        assert!(capped(f32::NAN, 30.0).0.is_nan());
    }
}
