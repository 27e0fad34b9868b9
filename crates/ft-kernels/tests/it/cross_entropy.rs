use burn::tensor::{Tensor, TensorData};
use ft_kernels::{cross_entropy_sum, portable};

use crate::{assert_close, device, gradient, leaf};

type Operation = fn(Tensor<2>, Tensor<2>, &[i64]) -> Tensor<1>;

fn run(f: Operation, hidden: &Tensor<2>, weight: &Tensor<2>, targets: &[i64]) -> [TensorData; 3] {
    let loss = f(hidden.clone(), weight.clone(), targets);
    // A factor after the loss must reach the gradients, which were computed before it.
    let grads = (loss.clone() * 1.5).backward();
    [
        loss.into_data(),
        gradient(hidden, &grads),
        gradient(weight, &grads),
    ]
}

#[test]
fn loss_and_both_gradients() {
    let device = device();
    for (rows, width, vocab) in [(1, 1, 1), (1, 3, 2), (5, 4, 7), (67, 33, 1009)] {
        let hidden = leaf([rows, width], &device);
        let weight = leaf([vocab, width], &device);
        let targets: Vec<i64> = (0..rows).map(|i| (i * 5 % vocab) as i64).collect();
        let found = run(cross_entropy_sum, &hidden, &weight, &targets);
        let expected = run(portable::cross_entropy_sum, &hidden, &weight, &targets);
        for (f, e) in found.into_iter().zip(expected) {
            assert_close("loss and gradients", f, e, 1e-5);
        }
    }
}

#[test]
fn logits_in_the_hundreds_do_not_overflow() {
    let device = device();
    let hidden = Tensor::<2>::from_data([[300.0], [-300.0]], &device).require_grad();
    let weight = Tensor::<2>::from_data([[1.0], [-1.0], [0.5]], &device);
    let loss = cross_entropy_sum(hidden.clone(), weight, &[0, 0]);
    // 300 − 300 and 300 − (−300)
    assert_eq!(loss.to_data().try_to_vec::<f32>().expect("f32"), [600.0]);
    let slopes = gradient(&hidden, &loss.backward());
    assert_eq!(slopes.try_to_vec::<f32>().expect("f32"), [0.0, -2.0]);
}

#[test]
#[should_panic(expected = "label 7 is not in the vocabulary of 7 tokens")]
fn a_label_outside_the_vocabulary() {
    let device = device();
    cross_entropy_sum(leaf([1, 2], &device), leaf([7, 2], &device), &[7]);
}

#[test]
#[should_panic(expected = "a loss of no rows")]
fn no_rows() {
    let device = device();
    cross_entropy_sum(leaf([0, 2], &device), leaf([7, 2], &device), &[]);
}
