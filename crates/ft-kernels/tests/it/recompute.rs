use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};
use ft_kernels::{Input, linear, recompute};

use crate::{assert_close, device, gradient, leaf, weighted_sum};

/// A norm, a projection that trains and one that does not.
#[derive(Module, Debug)]
struct Part {
    scale: Param<Tensor<1>>,
    trained: Param<Tensor<2>>,
    frozen: Param<Tensor<2>>,
}

impl Part {
    fn new(device: &Device) -> Self {
        Self {
            scale: Param::from_tensor(leaf([6], device)),
            trained: Param::from_tensor(leaf([6, 6], device)),
            frozen: Param::from_tensor(leaf([6, 6], device)).no_grad(),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let normed = Input::rms_norm(x.clone(), self.scale.val(), 1e-5);
        let y = linear(normed.into_rows(), self.trained.val(), None).tanh();
        let y = linear(y, self.frozen.val(), None);
        x + y.reshape([batch, seq, width])
    }
}

/// Parts in a row, each computed again; how often they ran.
fn through(parts: &[Part], x: Tensor<3>) -> (Tensor<3>, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let y = parts.iter().fold(x, |x, part| {
        let runs = runs.clone();
        recompute(part, x, move |part: &Part, x| {
            runs.fetch_add(1, Ordering::Relaxed);
            part.forward(x)
        })
    });
    (y, runs)
}

#[test]
fn parts_that_run_again_give_the_same_gradients() {
    let plain = device();
    for device in [plain.clone(), plain.gradient_checkpointing()] {
        let parts = [(); 3].map(|()| Part::new(&device));
        for tracked in [true, false] {
            let x = leaf([2, 5, 6], &device);
            let x = x.set_require_grad(tracked);
            let (y, runs) = through(&parts, x.clone());
            assert_eq!(runs.load(Ordering::Relaxed), 3);
            let found = weighted_sum(y.clone()).backward();
            assert_eq!(runs.load(Ordering::Relaxed), 6, "each part ran again");
            let expected = parts.iter().fold(x.clone(), |x, part| part.forward(x));
            assert_close("value", y.into_data(), expected.to_data(), 0.0);
            let expected = weighted_sum(expected).backward();
            if tracked {
                assert_close("dx", gradient(&x, &found), gradient(&x, &expected), 1e-6);
            }
            for part in &parts {
                let (scale, trained) = (part.scale.val(), part.trained.val());
                let pairs = [
                    (gradient(&scale, &found), gradient(&scale, &expected)),
                    (gradient(&trained, &found), gradient(&trained, &expected)),
                ];
                for (found, expected) in pairs {
                    assert_close("parameter", found, expected, 1e-6);
                }
                assert!(part.frozen.val().grad(&found).is_none());
            }
        }
    }
}

#[test]
#[should_panic(expected = "only through its module and its input")]
fn a_captured_tensor_that_trains_is_refused() {
    let device = device();
    let (part, gate) = (Part::new(&device), leaf([1, 2, 6], &device));
    let x = leaf([1, 2, 6], &device);
    recompute(&part, x, move |part: &Part, x| {
        part.forward(x) * gate.clone()
    });
}

#[test]
fn where_nothing_trains_a_part_runs_once() {
    let device = device();
    let parts = [Part::new(&device).no_grad()];
    let x = leaf([1, 2, 6], &device).set_require_grad(false);
    let (_, runs) = through(&parts, x.clone());
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    let (y, _) = through(&parts, x);
    assert!(!y.is_tracked());
}

/// A parameter may be the result of other operations: each part gets its slice of one tensor that trains.
#[test]
fn a_parameter_inside_the_graph_passes_its_gradient_on() {
    let device = device();
    let parts = [(); 2].map(|()| Part::new(&device));
    let all = leaf([2, 6], &device);
    let given = |i: usize| all.clone().tanh().narrow(0, i, 1).reshape([6]);
    let x = leaf([1, 3, 6], &device).set_require_grad(false);
    let forward =
        |part: &Part, given: Tensor<1>, x: Tensor<3>| part.forward(x * given.reshape([1, 1, 6]));
    let found = parts.iter().enumerate().fold(x.clone(), |x, (i, part)| {
        let module = (
            part.clone(),
            vec![Param::initialized(ParamId::new(), given(i))],
        );
        recompute(
            &module,
            x,
            move |(part, given): &(Part, Vec<Param<Tensor<1>>>), x| {
                forward(part, given[0].val(), x)
            },
        )
    });
    let expected = parts
        .iter()
        .enumerate()
        .fold(x, |x, (i, part)| forward(part, given(i), x));
    assert_close("value", found.to_data(), expected.to_data(), 0.0);
    let (found, expected) = (
        weighted_sum(found).backward(),
        weighted_sum(expected).backward(),
    );
    assert_close(
        "inside",
        gradient(&all, &found),
        gradient(&all, &expected),
        1e-6,
    );
    let trained = parts[0].trained.val();
    assert_close(
        "leaf",
        gradient(&trained, &found),
        gradient(&trained, &expected),
        1e-6,
    );
}

/// The gradient of one parameter used by two parts is the sum of both.
#[test]
fn a_shared_parameter_gets_both_gradients() {
    let device = device();
    let part = Part::new(&device);
    let x = leaf([1, 3, 6], &device);
    let (y, _) = through(&[part.clone(), part.clone()], x.clone());
    let found = weighted_sum(y).backward();
    let expected = weighted_sum(part.forward(part.forward(x))).backward();
    let trained = part.trained.val();
    assert_close(
        "twice",
        gradient(&trained, &found),
        gradient(&trained, &expected),
        1e-6,
    );
}
