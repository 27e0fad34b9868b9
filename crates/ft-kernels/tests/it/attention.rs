use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_kernels::{AttentionMask, EVERY_SEGMENT, Scores, attention, branch, portable};

use crate::{assert_close, cpu, device, gradient, leaf, numbers, on_the_cpu, weighted_sum};

struct Case {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    past: usize,
    width: usize,
    window: Option<usize>,
    segments: bool,
    /// How many documents a row has, if it has segments.
    documents: usize,
    /// The second of the three documents of a row is a branch of the first.
    branches: bool,
    softcap: Option<f64>,
    bidirectional: bool,
}

const PLAIN: Case = Case {
    batch: 1,
    heads: 1,
    kv_heads: 1,
    queries: 1,
    past: 0,
    width: 4,
    window: None,
    segments: false,
    documents: 3,
    branches: false,
    softcap: None,
    bidirectional: false,
};

fn check(case: Case) {
    let Case {
        batch,
        heads,
        kv_heads,
        queries,
        past,
        width,
        ..
    } = case;
    let keys = past + queries;
    // In memory `[batch, seq, heads, width]`, as projections give it.
    let inputs = [
        numbers([batch, queries, heads, width]),
        numbers([batch, keys, kv_heads, width]),
        numbers([batch, keys, kv_heads, width]),
    ];
    // Documents are cut elsewhere in every row.
    let ids: Vec<i64> = (0..batch * keys)
        .map(|i| ((i % keys) * case.documents + i / keys) as i64 / keys as i64)
        .map(|document| match document {
            1 if case.branches => branch(0, 1),
            other => other,
        })
        .collect();
    let ids = TensorData::new(ids, [batch, keys]);
    type Operation = fn(Tensor<4>, Tensor<4>, Tensor<4>, Scores, &AttentionMask) -> Tensor<4>;
    let all = |f: Operation, device: &Device| {
        let segments = (case.segments).then(|| Tensor::<2, Int>::from_data(ids.clone(), device));
        let mask = match case.bidirectional {
            true => match case.window {
                None => AttentionMask::bidirectional(queries, segments.as_ref(), device),
                Some(window) => {
                    AttentionMask::bidirectional_within(queries, window, segments.as_ref(), device)
                }
            },
            false => AttentionMask::new(queries, past, case.window, segments.as_ref(), device),
        };
        let leaf = |data: TensorData| Tensor::<4>::from_data(data, device).require_grad();
        let leaves = inputs.clone().map(leaf);
        let [q, k, v] = leaves.clone().map(|x| x.swap_dims(1, 2));
        let scores = Scores {
            scale: 0.3,
            softcap: case.softcap,
        };
        let y = f(q, k, v, scores, &mask);
        let grads = weighted_sum(y.clone()).backward();
        let [dq, dk, dv] = leaves.map(|x| gradient(&x, &grads));
        [y.into_data(), dq, dk, dv]
    };
    let found = all(attention, &device());
    let expected = all(portable::attention, &cpu());
    for (name, (found, expected)) in ["out", "dq", "dk", "dv"]
        .iter()
        .zip(found.into_iter().zip(expected))
    {
        let what = format!("{name} of {batch}x{heads}/{kv_heads}x{queries}+{past}");
        assert_close(&what, found, expected, 1e-5);
    }
}

/// Tiles of queries end where documents do, or hold several short ones.
#[test]
fn many_documents_in_a_row() {
    for documents in [5, 7, 23, 150] {
        for (bidirectional, window) in [
            (false, None),
            (false, Some(9)),
            (true, None),
            (true, Some(9)),
        ] {
            check(Case {
                batch: 2,
                heads: 2,
                kv_heads: 1,
                queries: 300,
                past: 0,
                width: 4,
                window,
                segments: true,
                documents,
                bidirectional,
                ..PLAIN
            });
        }
    }
}

#[test]
fn windows_on_both_sides() {
    for (queries, window) in [(1, 1), (7, 1), (40, 5), (300, 17), (300, 200), (300, 301)] {
        check(Case {
            heads: 2,
            queries,
            window: Some(window),
            bidirectional: true,
            ..PLAIN
        });
    }
}

#[test]
fn one_token() {
    check(PLAIN);
}

#[test]
fn grouped_heads_of_prime_sizes() {
    check(Case {
        batch: 2,
        heads: 6,
        kv_heads: 2,
        queries: 13,
        width: 5,
        ..PLAIN
    });
    check(Case {
        batch: 3,
        heads: 9,
        kv_heads: 3,
        queries: 31,
        width: 64,
        ..PLAIN
    });
}

#[test]
fn several_tiles_of_queries_and_keys() {
    check(Case {
        batch: 1,
        heads: 2,
        queries: 401,
        width: 8,
        ..PLAIN
    });
}

#[test]
fn keys_of_a_cache_come_before() {
    check(Case {
        batch: 2,
        heads: 4,
        kv_heads: 2,
        queries: 7,
        past: 300,
        width: 8,
        ..PLAIN
    });
    check(Case {
        heads: 4,
        kv_heads: 2,
        queries: 1,
        past: 530,
        width: 8,
        ..PLAIN
    });
}

#[test]
fn a_sliding_window() {
    for window in [1, 2, 100, 256, 400] {
        check(Case {
            heads: 2,
            queries: 300,
            width: 4,
            window: Some(window),
            ..PLAIN
        });
        check(Case {
            heads: 2,
            queries: 5,
            past: 290,
            width: 4,
            window: Some(window),
            ..PLAIN
        });
    }
}

#[test]
fn capped_scores() {
    for segments in [false, true] {
        check(Case {
            batch: 2,
            heads: 4,
            kv_heads: 2,
            queries: 301,
            width: 6,
            softcap: Some(0.8),
            segments,
            ..PLAIN
        });
    }
}

/// Empty outputs, whichever size is 0: keys and values that nobody looks at get a gradient of zeros.
#[test]
fn sizes_of_zero() {
    if !on_the_cpu("CubeCL's backends have no empty tensors") {
        return;
    }
    let all = |size: &dyn Fn(Case) -> Case| {
        for segments in [false, true] {
            for bidirectional in [false, true] {
                check(size(Case {
                    batch: 2,
                    heads: 4,
                    kv_heads: 2,
                    queries: 3,
                    segments,
                    bidirectional,
                    ..PLAIN
                }));
            }
        }
    };
    all(&|case| Case { batch: 0, ..case });
    all(&|case| Case { heads: 0, ..case });
    all(&|case| Case { width: 0, ..case });
    all(&|case| Case { queries: 0, ..case });
    for window in [None, Some(3)] {
        check(Case {
            batch: 2,
            heads: 4,
            kv_heads: 2,
            queries: 0,
            past: 5,
            window,
            ..PLAIN
        });
        check(Case {
            batch: 0,
            heads: 4,
            kv_heads: 2,
            past: 5,
            window,
            ..PLAIN
        });
    }
}

#[test]
fn packed_documents() {
    check(Case {
        batch: 3,
        heads: 2,
        queries: 157,
        width: 8,
        segments: true,
        ..PLAIN
    });
    check(Case {
        batch: 2,
        heads: 2,
        queries: 300,
        width: 4,
        segments: true,
        window: Some(70),
        ..PLAIN
    });
    check(Case {
        batch: 2,
        heads: 2,
        queries: 3,
        past: 20,
        segments: true,
        ..PLAIN
    });
}

#[test]
fn packed_branches() {
    check(Case {
        batch: 3,
        heads: 4,
        kv_heads: 2,
        queries: 457,
        width: 8,
        segments: true,
        branches: true,
        ..PLAIN
    });
    check(Case {
        batch: 2,
        heads: 2,
        queries: 3,
        past: 20,
        segments: true,
        branches: true,
        ..PLAIN
    });
}

/// Every branch of a row sees its segment, as if it stood alone after it; so do the gradients.
#[test]
fn branches_stand_alone_after_their_segment() {
    let [other, prompt, first, second] = [140, 9, 160, 30];
    let keys = other + prompt + first + second;
    let inputs = [4, 2, 2].map(|heads| leaf([1, heads, keys, 8], &device()));
    let run = |segments: &[i64], parts: &[(usize, usize)]| {
        let leaves = inputs.clone().map(|x| {
            let parts = parts
                .iter()
                .map(|(from, len)| x.clone().narrow(2, *from, *len));
            Tensor::cat(parts.collect(), 2).detach().require_grad()
        });
        let data = TensorData::new(segments.to_vec(), [1, segments.len()]);
        let ids = Tensor::<2, Int>::from_data(data, &device());
        let mask = AttentionMask::new(segments.len(), 0, None, Some(&ids), &device());
        let [q, k, v] = leaves.clone();
        // The last branch.
        let y = attention(q, k, v, 0.3, &mask).narrow(2, segments.len() - second, second);
        let grads = weighted_sum(y.clone()).backward();
        (
            y.into_data(),
            leaves.map(|x| x.grad(&grads).expect("a gradient")),
        )
    };
    let packed = [
        vec![7; other],
        vec![1; prompt],
        vec![branch(1, 1); first],
        vec![branch(1, 2); second],
    ]
    .concat();
    let (found, gradients) = run(&packed, &[(0, keys)]);
    let alone = [vec![1; prompt], vec![branch(1, 2); second]].concat();
    let (expected, expected_gradients) =
        run(&alone, &[(other, prompt), (other + prompt + first, second)]);
    assert_close("outputs", found, expected, 1e-6);
    for (found, expected) in gradients.into_iter().zip(expected_gradients) {
        let part = |from: usize, len: usize| found.clone().narrow(2, from, len);
        let seen = Tensor::cat(
            vec![part(other, prompt), part(other + prompt + first, second)],
            2,
        );
        assert_close("gradients", seen.into_data(), expected.into_data(), 1e-6);
        for (from, len) in [(0, other), (other + prompt, first)] {
            let largest: f32 = part(from, len).abs().max().into_scalar();
            assert_eq!(largest, 0.0, "a gradient of what is not seen");
        }
    }
}

/// Every document of a row sees the tokens that all of them share, as if it stood alone after them.
#[test]
fn tokens_of_every_segment_are_seen_by_all_documents() {
    let (shared, first, second) = (3, 20, 30);
    let keys = shared + first + second;
    let [q, k, v] = [4, 2, 2].map(|heads| leaf([1, heads, keys, 8], &device()));
    let run = |segments: &[i64], parts: &[(usize, usize)]| {
        let part = |x: &Tensor<4>| {
            let parts = parts
                .iter()
                .map(|(from, len)| x.clone().narrow(2, *from, *len));
            Tensor::cat(parts.collect(), 2)
        };
        let data = TensorData::new(segments.to_vec(), [1, segments.len()]);
        let ids = Tensor::<2, Int>::from_data(data, &device());
        let mask = AttentionMask::new(segments.len(), 0, None, Some(&ids), &device());
        (
            attention(part(&q), part(&k), part(&v), 0.3, &mask),
            portable::attention(part(&q), part(&k), part(&v), 0.3, &mask),
        )
    };
    let segments = [vec![EVERY_SEGMENT; shared], vec![1; first], vec![2; second]].concat();
    let (packed, plain) = run(&segments, &[(0, keys)]);
    assert_close(
        "the portable one",
        packed.clone().into_data(),
        plain.into_data(),
        1e-5,
    );
    let alone = [vec![EVERY_SEGMENT; shared], vec![2; second]].concat();
    let (alone, _) = run(&alone, &[(0, shared), (shared + first, second)]);
    let found = packed.narrow(2, shared + first, second);
    let expected = alone.narrow(2, shared, second);
    assert_close(
        "second document",
        found.into_data(),
        expected.into_data(),
        1e-6,
    );
}

/// A query sees nothing of another document: with that document's keys and values changed, not a bit differs.
#[test]
fn documents_do_not_leak() {
    let device = device();
    let [q, k, v] = [(); 3].map(|()| leaf([1, 2, 40, 8], &device));
    let ids: Vec<i64> = (0..40).map(|i| i64::from(i >= 25)).collect();
    let segments = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, 40]), &device);
    let mask = AttentionMask::new(40, 0, None, Some(&segments), &device);
    let other = |x: &Tensor<4>| {
        let first = x.clone().narrow(2, 0, 25) * 100.0;
        Tensor::cat(vec![first, x.clone().narrow(2, 25, 15)], 2)
    };
    let one = attention(q.clone(), k.clone(), v.clone(), 0.3, &mask).narrow(2, 25, 15);
    let two = attention(q, other(&k), other(&v), 0.3, &mask).narrow(2, 25, 15);
    assert_close("second document", two.into_data(), one.into_data(), 0.0);
}

/// Neither the values nor the gradients depend on how many threads there are.
#[test]
fn threads_change_nothing() {
    if !on_the_cpu("it has no threads to choose") {
        return;
    }
    let device = device();
    let [q, k, v] = [6, 2, 2].map(|heads| leaf([2, heads, 301, 16], &device));
    let mask = AttentionMask::new(301, 0, None, None, &device);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a pool").install(|| {
            let y = attention(q.clone(), k.clone(), v.clone(), 0.3, &mask);
            let grads = weighted_sum(y.clone()).backward();
            [
                y.into_data(),
                gradient(&q, &grads),
                gradient(&k, &grads),
                gradient(&v, &grads),
            ]
        })
    };
    for (one, three) in run(1).into_iter().zip(run(3)) {
        assert_close("one thread and three", three, one, 1e-6);
    }
}

/// Burn's recomputation of element-wise operations leaves the fused ones as they are.
#[test]
fn with_burns_checkpointing_the_gradient_is_the_same() {
    let plain = device();
    let balanced = plain.clone().gradient_checkpointing();
    let numbers = leaf([1, 2, 9, 4], &plain).into_data();
    let run = |device: &Device| {
        let q = Tensor::<4>::from_data(numbers.clone(), device).require_grad();
        let mask = AttentionMask::new(9, 0, None, None, device);
        let y = attention(q.clone() * 2.0, q.clone().tanh(), q.clone(), 0.3, &mask);
        gradient(&q, &weighted_sum(y).backward())
    };
    assert_close("recomputed", run(&balanced), run(&plain), 1e-6);
}

#[test]
#[should_panic(expected = "other numbers of queries and keys")]
fn a_mask_for_another_length() {
    let device = device();
    let [q, k, v] = [(); 3].map(|()| leaf([1, 1, 4, 2], &device));
    attention(q, k, v, 1.0, &AttentionMask::new(5, 0, None, None, &device));
}

#[test]
#[should_panic(expected = "cannot share")]
fn heads_that_do_not_divide() {
    let device = device();
    let [q, k, v] = [5, 2, 2].map(|heads| leaf([1, heads, 4, 2], &device));
    attention(q, k, v, 1.0, &AttentionMask::new(4, 0, None, None, &device));
}

/// As views of larger tensors they would be read beyond their ends.
#[test]
#[should_panic(expected = "the same batch")]
fn keys_of_another_batch() {
    let device = device();
    let q = leaf([2, 1, 4, 2], &device);
    let [k, v] = [(); 2].map(|()| leaf([3, 1, 4, 2], &device).narrow(0, 0, 1));
    attention(q, k, v, 1.0, &AttentionMask::new(4, 0, None, None, &device));
}

#[test]
fn encoders_attend_to_later_tokens() {
    for queries in [1, 3, 130, 300] {
        for segments in [false, true] {
            check(Case {
                batch: 2,
                heads: 4,
                kv_heads: 4,
                queries,
                width: 5,
                segments,
                bidirectional: true,
                ..PLAIN
            });
        }
    }
}

/// Without a mask at all, by the formula.
#[test]
fn encoders_attend_to_everything() {
    let device = device();
    let numbers = |seed: f32| {
        let numbers: Vec<f32> = (0..12).map(|i| (seed * (i + 1) as f32).sin()).collect();
        Tensor::<4>::from_data(TensorData::new(numbers, [1, 2, 3, 2]), &device)
    };
    let [q, k, v] = [1.3, 0.7, 0.9].map(numbers);
    let mask = AttentionMask::bidirectional(3, None, &device);
    let expected = burn::tensor::activation::softmax(q.clone().matmul(k.clone().transpose()), 3);
    let expected = expected.matmul(v.clone());
    let found = attention(q, k, v, 1.0, &mask);
    assert_close("out", found.into_data(), expected.into_data(), 1e-6);
}
