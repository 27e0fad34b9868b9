//! Every operation in one form, so that one law can be asked of all of them.

use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_kernels::{
    Activation, AttentionMask, Dropout, LowRank, apply_rotary, attention, gated_mlp, layer_norm,
    linear, portable, rms_norm, scale_features,
};

use crate::{assert_close, cpu, device, numbers, read, values, weights};

/// A tensor that a gradient may be asked of, kept flat, so that all ranks fit into one list.
pub(crate) struct Leaf {
    flat: Tensor<1>,
    shape: Vec<usize>,
}

impl Leaf {
    pub(crate) fn tensor<const D: usize>(&self) -> Tensor<D> {
        let shape: [usize; D] = (self.shape.as_slice().try_into()).expect("a tensor of this rank");
        self.flat.clone().reshape(shape)
    }
}

/// What an operation gave: its output and the gradients of its inputs.
pub(crate) struct Found {
    pub(crate) output: TensorData,
    /// `None`: no gradient reached this input.
    pub(crate) gradients: Vec<Option<TensorData>>,
}

/// Runs `f` on a device. `d_output` is the gradient that comes from above; gradients are asked of the inputs that
/// are `tracked`.
pub(crate) fn run<const D: usize>(
    device: &Device,
    inputs: &[TensorData],
    tracked: &[bool],
    d_output: Option<TensorData>,
    f: impl Fn(&[Leaf]) -> Tensor<D>,
) -> Found {
    let leaves: Vec<Leaf> = (inputs.iter().zip(tracked))
        .map(|(data, tracked)| {
            let flat = Tensor::<1>::from_data(values(data).as_slice(), device);
            Leaf {
                flat: if *tracked { flat.require_grad() } else { flat },
                shape: data.shape().to_vec(),
            }
        })
        .collect();
    let y = f(&leaves);
    let output = read(y.clone());
    let gradients = if tracked.contains(&true) {
        let n = output.num_elements();
        let d_output = d_output.unwrap_or_else(|| weights(n));
        let d_output = Tensor::<1>::from_data(values(&d_output).as_slice(), device);
        let grads = (y.reshape([n]) * d_output).sum().backward();
        (leaves.iter())
            .map(|leaf| {
                let gradient = read(leaf.flat.grad(&grads)?);
                Some(TensorData::new(values(&gradient), leaf.shape.clone()))
            })
            .collect()
    } else {
        assert!(!y.is_tracked(), "nothing here has a gradient");
        vec![None; leaves.len()]
    };
    Found { output, gradients }
}

/// The fused operation, or its twin of Burn's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twin {
    Fused,
    Portable,
}

type Function = Box<dyn Fn(Twin, &[Leaf], &Device) -> Tensor<1> + Sync>;

/// An operation of inputs of certain shapes. What has no gradient, such as angles and masks, is inside.
pub(crate) struct Operation {
    pub(crate) name: String,
    pub(crate) inputs: Vec<(&'static str, Vec<usize>)>,
    function: Function,
}

impl Operation {
    pub(crate) fn numbers(&self) -> Vec<TensorData> {
        (self.inputs.iter())
            .map(|(_, shape)| {
                let flat = numbers([shape.iter().product()]);
                TensorData::new(values(&flat), shape.clone())
            })
            .collect()
    }

    pub(crate) fn run(
        &self,
        twin: Twin,
        device: &Device,
        inputs: &[TensorData],
        tracked: &[bool],
    ) -> Found {
        run(device, inputs, tracked, None, |x| {
            (self.function)(twin, x, device)
        })
    }

    /// The fused operation on the device under test gives what the portable one gives on the CPU.
    pub(crate) fn check(&self, tolerance: f32) {
        let inputs = self.numbers();
        let tracked = vec![true; inputs.len()];
        let found = self.run(Twin::Fused, &device(), &inputs, &tracked);
        let expected = self.run(Twin::Portable, &cpu(), &inputs, &tracked);
        assert_close(&self.name, found.output, expected.output, tolerance);
        let gradients = found.gradients.into_iter().zip(expected.gradients);
        for ((input, _), (found, expected)) in self.inputs.iter().zip(gradients) {
            let what = format!("the gradient of {input} of {}", self.name);
            let (found, expected) = (found.expect(&what), expected.expect(&what));
            assert_close(&what, found, expected, tolerance);
        }
    }
}

fn operation(
    name: String,
    inputs: &[(&'static str, &[usize])],
    function: impl Fn(Twin, &[Leaf], &Device) -> Tensor<1> + Sync + 'static,
) -> Operation {
    Operation {
        name,
        inputs: (inputs.iter())
            .map(|(name, shape)| (*name, shape.to_vec()))
            .collect(),
        function: Box::new(function),
    }
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let n = x.shape().num_elements();
    x.reshape([n])
}

pub(crate) fn rms_norm_of(shape: [usize; 3]) -> Operation {
    operation(
        format!("rms_norm {shape:?}"),
        &[("x", &shape), ("weight", &shape[2..])],
        |twin, x, _| {
            let f = match twin {
                Twin::Fused => rms_norm::<3>,
                Twin::Portable => portable::rms_norm::<3>,
            };
            flat(f(x[0].tensor(), x[1].tensor(), 1e-5))
        },
    )
}

pub(crate) fn layer_norm_of(shape: [usize; 3]) -> Operation {
    operation(
        format!("layer_norm {shape:?}"),
        &[
            ("x", &shape),
            ("weight", &shape[2..]),
            ("bias", &shape[2..]),
        ],
        |twin, x, _| {
            let f = match twin {
                Twin::Fused => layer_norm::<3>,
                Twin::Portable => portable::layer_norm::<3>,
            };
            flat(f(x[0].tensor(), x[1].tensor(), x[2].tensor(), 1e-5))
        },
    )
}

pub(crate) fn scale_features_of(shape: [usize; 3]) -> Operation {
    operation(
        format!("scale_features {shape:?}"),
        &[("x", &shape), ("factors", &shape[2..])],
        |twin, x, _| {
            let f = match twin {
                Twin::Fused => scale_features::<3>,
                Twin::Portable => portable::scale_features::<3>,
            };
            flat(f(x[0].tensor(), x[1].tensor()))
        },
    )
}

/// `x` lies in memory as models have it, `[batch, seq, heads, width]`; the angles are of one row for all or of every
/// row for itself.
pub(crate) fn rotary_of(
    [batch, heads, seq, width]: [usize; 4],
    rows_of_angles: usize,
) -> Operation {
    let shape = [rows_of_angles, 1, seq, width / 2];
    let angles = numbers([shape.iter().product()]);
    let angles = TensorData::new(values(&angles), shape);
    operation(
        format!("apply_rotary [{batch}, {heads}, {seq}, {width}]"),
        &[("x", &[batch, seq, heads, width])],
        move |twin, x, device| {
            let f = match twin {
                Twin::Fused => apply_rotary,
                Twin::Portable => portable::apply_rotary,
            };
            let angles = Tensor::<4>::from_data(angles.clone(), device);
            let x = x[0].tensor::<4>().swap_dims(1, 2);
            flat(f(x, &angles.clone().cos(), &angles.sin()))
        },
    )
}

pub(crate) const ACTIVATIONS: [Activation; 4] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
];

pub(crate) fn gated_of(shape: [usize; 2], act: Activation) -> Operation {
    operation(
        format!("gated_mlp {act:?} {shape:?}"),
        &[("gate", &shape), ("up", &shape)],
        move |twin, x, _| {
            let f = match twin {
                Twin::Fused => gated_mlp::<2>,
                Twin::Portable => portable::gated_mlp::<2>,
            };
            flat(f(x[0].tensor::<2>() * 3.0, x[1].tensor(), act))
        },
    )
}

pub(crate) fn activation_of(shape: [usize; 2], act: Activation) -> Operation {
    operation(
        format!("activation {act:?} {shape:?}"),
        &[("x", &shape)],
        move |twin, x, _| {
            let x = x[0].tensor::<2>() * 3.0;
            flat(match twin {
                Twin::Fused => act.forward(x),
                Twin::Portable => act.portable(x),
            })
        },
    )
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) queries: usize,
    pub(crate) past: usize,
    pub(crate) width: usize,
    pub(crate) window: Option<usize>,
    /// Three documents a row, cut elsewhere in every row.
    pub(crate) segments: bool,
}

/// `q`, `k` and `v` lie in memory as projections give them, `[batch, seq, heads, width]`.
pub(crate) fn attention_of(case: Heads) -> Operation {
    let Heads {
        batch,
        heads,
        kv_heads,
        queries,
        past,
        width,
        window,
        segments,
    } = case;
    let keys = past + queries;
    let ids: Vec<i64> = (0..batch * keys)
        .map(|i| ((i % keys) * 3 + i / keys) as i64 / keys as i64)
        .collect();
    operation(
        format!("attention {case:?}"),
        &[
            ("q", &[batch, queries, heads, width]),
            ("k", &[batch, keys, kv_heads, width]),
            ("v", &[batch, keys, kv_heads, width]),
        ],
        move |twin, x, device| {
            let f = match twin {
                Twin::Fused => attention,
                Twin::Portable => portable::attention,
            };
            let ids = TensorData::new(ids.clone(), [batch, keys]);
            let ids = segments.then(|| Tensor::<2, Int>::from_data(ids, device));
            let mask = AttentionMask::new(queries, past, window, ids.as_ref(), device);
            let [q, k, v] = [0, 1, 2].map(|i| x[i].tensor::<4>().swap_dims(1, 2));
            flat(f(q, k, v, 0.3, &mask))
        },
    )
}

const DROPOUT: Dropout = Dropout {
    probability: 0.3,
    seed: 7,
};

/// With an adapter of the given rank, or without.
pub(crate) fn linear_of(
    rows: usize,
    features: usize,
    out: usize,
    rank: Option<usize>,
    dropout: Option<Dropout>,
) -> Operation {
    let mut shapes = vec![("x", vec![rows, features]), ("weight", vec![out, features])];
    if let Some(rank) = rank {
        shapes.extend([("a", vec![rank, features]), ("b", vec![out, rank])]);
    }
    let shapes: Vec<_> = shapes.iter().map(|(n, s)| (*n, s.as_slice())).collect();
    operation(
        format!("linear {rows}x{features} to {out}, rank {rank:?}, {dropout:?}"),
        &shapes,
        move |twin, x, _| {
            let f = match twin {
                Twin::Fused => linear,
                Twin::Portable => portable::linear,
            };
            let adapter = rank.map(|_| LowRank {
                a: x[2].tensor(),
                b: x[3].tensor(),
                scale: 0.7,
                dropout,
            });
            flat(f(x[0].tensor(), x[1].tensor(), adapter))
        },
    )
}

/// One of each, small: for laws that need many runs.
pub(crate) fn all() -> Vec<Operation> {
    let heads = Heads {
        batch: 2,
        heads: 4,
        kv_heads: 2,
        queries: 5,
        past: 0,
        width: 3,
        window: None,
        segments: false,
    };
    let mut all = vec![
        rms_norm_of([2, 3, 7]),
        layer_norm_of([2, 3, 7]),
        scale_features_of([2, 3, 7]),
        rotary_of([2, 3, 5, 4], 2),
        attention_of(heads),
        attention_of(Heads {
            past: 6,
            window: Some(4),
            segments: true,
            ..heads
        }),
        linear_of(5, 7, 3, None, None),
        linear_of(5, 7, 3, Some(2), None),
        linear_of(5, 7, 3, Some(2), Some(DROPOUT)),
    ];
    all.extend(ACTIVATIONS.map(|act| gated_of([3, 5], act)));
    all.extend(ACTIVATIONS.map(|act| activation_of([3, 5], act)));
    all
}
