//! Which inputs a gradient reaches.

use crate::operations::{Twin, all};
use crate::{assert_close, device};

/// Whichever of its inputs are trained: those get the gradient that they get when all are, the others none.
#[test]
fn the_gradient_reaches_what_is_trained_and_nothing_else() {
    let device = device();
    for operation in all() {
        let inputs = operation.numbers();
        let n = inputs.len();
        let of_all = operation.run(Twin::Fused, &device, &inputs, &vec![true; n]);
        for subset in 0..1 << n {
            let tracked: Vec<bool> = (0..n).map(|i| subset >> i & 1 == 1).collect();
            let found = operation.run(Twin::Fused, &device, &inputs, &tracked);
            let name = &operation.name;
            assert_close(name, found.output, of_all.output.clone(), 1e-6);
            let gradients = found.gradients.into_iter().zip(&of_all.gradients);
            for (i, (found, expected)) in gradients.enumerate() {
                let what = format!(
                    "{} of {name} where {tracked:?} are trained",
                    operation.inputs[i].0
                );
                assert_eq!(found.is_some(), tracked[i], "{what}");
                if let (Some(found), Some(expected)) = (found, expected) {
                    assert_close(&what, found, expected.clone(), 1e-6);
                }
            }
        }
    }
}
