//! Gradients against the slopes of the outputs themselves.
//!
//! For a loss `L` and a direction `u` of numbers 1 and −1, `(L(x + hu) − L(x − hu)) / 2h` is `⟨∇L, u⟩` up to
//! `h²/6` times a third derivative, and up to the rounding of `L` over `h`. In `f32`, where a number is off by
//! 6e-8 of itself, both are about alike at `h ≈ ∛(6e-8) ≈ 2⁻⁸`, some 1e-5 each. `L` is summed in `f64`.
//!
//! Differences are measured by `‖∇L‖`, the usual size of `⟨∇L, u⟩`. The largest found is 1.2e-4 (attention, of
//! the steepest softmax); four times that is allowed. A wrong sign or a forgotten term of a single number
//! among a hundred gives 0.1.

use burn::tensor::TensorData;

use crate::operations::{Operation, Twin, all};
use crate::{device, numbers, values, weights};

const STEP: f32 = 1.0 / 256.0;
const TOLERANCE: f64 = 5e-4;
const DIRECTIONS: usize = 4;

/// `L`: the outputs times [`weights`], which `Operation::run` takes for the gradient from above.
fn loss(operation: &Operation, inputs: &[TensorData]) -> f64 {
    let untracked = vec![false; inputs.len()];
    let output = operation
        .run(Twin::Fused, &device(), inputs, &untracked)
        .output;
    let weights = values(&weights(output.num_elements()));
    (values(&output).iter().zip(weights))
        .map(|(y, w)| f64::from(*y) * f64::from(w))
        .sum()
}

/// `inputs` with the one at `place` moved along `direction`.
fn moved(inputs: &[TensorData], place: usize, direction: &[f32], step: f32) -> Vec<TensorData> {
    let mut inputs = inputs.to_vec();
    let x = values(&inputs[place]);
    let x: Vec<f32> = x.iter().zip(direction).map(|(x, u)| x + step * u).collect();
    inputs[place] = TensorData::new(x, inputs[place].shape().clone());
    inputs
}

#[test]
fn gradients_are_the_slopes_of_the_outputs() {
    for operation in all() {
        // Not near 0, where the slope of ReLU jumps.
        let inputs: Vec<TensorData> = (operation.numbers().iter())
            .map(|data| {
                let away = values(data)
                    .iter()
                    .map(|x| x + 0.1f32.copysign(*x))
                    .collect();
                TensorData::new::<f32, _>(away, data.shape().clone())
            })
            .collect();
        let tracked = vec![true; inputs.len()];
        let found = operation.run(Twin::Fused, &device(), &inputs, &tracked);
        for (place, gradient) in found.gradients.iter().enumerate() {
            let gradient = values(gradient.as_ref().expect("a gradient"));
            let norm = gradient
                .iter()
                .map(|g| f64::from(*g).powi(2))
                .sum::<f64>()
                .sqrt();
            for _ in 0..DIRECTIONS {
                let direction: Vec<f32> = (values(&numbers([gradient.len()])).iter())
                    .map(|x| 1f32.copysign(*x))
                    .collect();
                let along = |step| loss(&operation, &moved(&inputs, place, &direction, step));
                let slope = (along(STEP) - along(-STEP)) / f64::from(2.0 * STEP);
                let expected: f64 = (gradient.iter().zip(&direction))
                    .map(|(g, u)| f64::from(g * u))
                    .sum();
                assert!(
                    (slope - expected).abs() <= TOLERANCE * norm,
                    "{} of {}: the outputs say {slope}, the gradient {expected}, of norm {norm}",
                    operation.inputs[place].0,
                    operation.name,
                );
            }
        }
    }
}
