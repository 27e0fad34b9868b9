//! Matrix products whose factors are rounded to `bf16` and whose sums are in `f32`, by the processor's instruction for them (AVX-512
//! BF16), which multiplies twice as many numbers in a cycle as that of `f32`.
//!
//! The order of sums depends on the number of terms only, so results do not depend on the number of threads. Small products stay
//! in `f32`.

mod pack;
mod some_rows;
mod tile;

use std::cell::Cell;
use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

use super::product::{Matrix, Output};
use super::switched_off;
use crate::precision::{Precision, is_in_f32, precision};
use pack::pack_rows;
pub(super) use pack::{Number, Terms, pack_columns, round};
pub(super) use some_rows::SideBySide;
use tile::{COLS, LANES, Out, ROWS, tiles};

/// Products with fewer rows, columns or terms are not faster, since rounding takes as long.
const LEAST: usize = 16;
/// Terms that are summed in registers, at most.
const DEPTH: usize = 384;
/// Columns that are packed at the same time: 2.25 MiB.
const WIDTH: usize = 64 * COLS;
/// Rows that a task multiplies, at most: 96 KiB of a second-level cache.
const TASK: usize = 128;
/// About so many tasks for each thread, if there are as many rows.
const TASKS: usize = 3;

/// Whether products of this thread are rounded, which was asked for. The processor has the instructions then.
pub(super) fn is_on() -> bool {
    precision() == Precision::Bf16 && !is_in_f32()
}

/// Whether a product is rounded. Small ones would not be faster.
pub(super) fn rounds(rows: usize, cols: usize, terms: usize) -> bool {
    rows.min(cols).min(terms) >= LEAST && is_on()
}

/// Whether the processor has the instructions, and these kernels are used.
pub(crate) fn supported() -> bool {
    !switched_off()
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("f16c")
}

/// What packs some columns, some of their terms.
type Pack<'a> = dyn Fn(Range<usize>, Range<usize>, &mut [u32]) + Sync + 'a;

/// The right factor, which is packed part by part: how many columns it has, and what packs some of them.
pub(super) struct Factor<'a> {
    pub(super) count: usize,
    pub(super) pack: &'a Pack<'a>,
}

/// [`product_with`] with the columns of `b`.
///
/// # Panics
///
/// As there.
pub(super) fn product(
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    out: &mut [f32],
    row_stride: usize,
    mode: Output,
    parallelism: Parallelism,
) {
    assert_eq!(a.cols(), b.rows(), "inner sizes differ");
    let b = b.in_lines();
    let b = b.matrix();
    let lines = Terms::of_rows(b.t());
    let columns = Factor {
        count: b.cols(),
        pack: &|columns, terms, to| pack_columns(lines, columns, terms, to),
    };
    product_with(a, columns, scale, out, row_stride, mode, parallelism);
}

/// `out = scale·a·b`, or `out += scale·a·b`, into the first `b.count` numbers of every row of `out`, whose rows begin `row_stride` apart.
///
/// # Panics
///
/// If the sizes do not match, or the processor has no such instructions, see [`supported`].
pub(super) fn product_with(
    a: Matrix<'_>,
    b: Factor<'_>,
    scale: f32,
    out: &mut [f32],
    row_stride: usize,
    mode: Output,
    parallelism: Parallelism,
) {
    assert!(supported(), "see `supported`");
    let (m, n, k) = (a.rows(), b.count, a.cols());
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        n <= row_stride && (m - 1) * row_stride + n <= out.len(),
        "the output has another size"
    );
    if k == 0 {
        if mode == Output::Overwrite {
            out.chunks_mut(row_stride)
                .take(m)
                .for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    let a = a.in_lines();
    let a = Terms::of_rows(a.matrix());
    let threads = match parallelism {
        Parallelism::None => 1,
        _ => rayon::current_num_threads(),
    };
    let depth = k.div_ceil(k.div_ceil(DEPTH)).next_multiple_of(2);
    let rows = m.div_ceil(TASKS * threads).next_multiple_of(ROWS).min(TASK);
    for start in (0..k).step_by(depth) {
        let terms = start..k.min(start + depth);
        let pairs = terms.len().div_ceil(2);
        let add = start > 0 || mode == Output::Add;
        for first in (0..n).step_by(WIDTH) {
            let cols = first..n.min(first + WIDTH);
            let words = cols.len().next_multiple_of(LANES) * pairs;
            with_scratch(&COLUMNS, words, |columns| {
                in_chunks(columns, COLS * pairs, threads, |i, to| {
                    let first = cols.start + i * COLS;
                    (b.pack)(first..cols.end.min(first + COLS), terms.clone(), to);
                });
                in_chunks(out, rows * row_stride, threads, |i, out| {
                    let lines = (i * rows).min(m)..m.min((i + 1) * rows);
                    let words = lines.len().next_multiple_of(ROWS) * pairs;
                    with_scratch(&LINES, words, |packed| {
                        pack_rows(a, lines.clone(), terms.clone(), packed);
                        let skipped = cols.start.min(out.len());
                        let numbers = &mut out[skipped..];
                        let out = Out {
                            numbers,
                            row_stride,
                            scale,
                            add,
                        };
                        tiles(packed, columns, pairs, [lines.len(), cols.len()], out);
                    });
                });
            });
        }
    }
}

/// Calls `f` with every chunk, on one thread or on all.
fn in_chunks<T: Send>(
    all: &mut [T],
    size: usize,
    threads: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    match threads {
        1 => (all.chunks_mut(size).enumerate()).for_each(|(i, chunk)| f(i, chunk)),
        _ => (all.par_chunks_mut(size).enumerate()).for_each(|(i, chunk)| f(i, chunk)),
    }
}

thread_local! {
    /// Memory for packed columns.
    static COLUMNS: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
    /// Memory for packed rows.
    static LINES: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with so many words of the thread's memory. It is taken meanwhile, since a thread that waits for others may begin another
/// product.
fn with_scratch(
    memory: &'static std::thread::LocalKey<Cell<Vec<u32>>>,
    words: usize,
    f: impl FnOnce(&mut [u32]),
) {
    let mut words_of_thread = memory.take();
    if words_of_thread.len() < words {
        words_of_thread = vec![0; words];
    }
    f(&mut words_of_thread[..words]);
    memory.set(words_of_thread);
}

#[cfg(test)]
mod tests {
    use burn::tensor::bf16;

    use super::*;

    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let numbers = (0..count).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        });
        numbers.collect()
    }

    /// Rows, columns and terms: whole tiles and parts, several parts of the terms and of the columns.
    const SIZES: [[usize; 3]; 9] = [
        [1, 1, 1],
        [8, 48, 16],
        [7, 47, 15],
        [9, 49, 17],
        [33, 16, 600],
        [150, 33, 64],
        [16, 3100, 3],
        [5, 31, 1537],
        [300, 80, 40],
    ];

    #[test]
    fn products_of_rounded_factors() {
        if !supported() {
            return eprintln!("skipped: the processor has no instructions for bf16");
        }
        for (i, [m, n, k]) in SIZES.into_iter().enumerate() {
            let (a, b) = (noise(m * k, i as u32), noise(k * n, 100 + i as u32));
            let round = |x: &f32| f64::from(bf16::from_f32(*x).to_f32());
            let rounded = [&a, &b].map(|x| x.iter().map(round).collect::<Vec<_>>());
            for (a_along, b_along) in [(true, true), (true, false), (false, true), (false, false)] {
                // The same numbers, row by row or column by column.
                let of = |along: bool, numbers: &[f32], rows: usize, cols: usize| match along {
                    true => numbers.to_vec(),
                    false => (0..rows * cols)
                        .map(|i| numbers[i % rows * cols + i / rows])
                        .collect(),
                };
                let (in_a, in_b) = (of(a_along, &a, m, k), of(b_along, &b, k, n));
                let matrix = |along, numbers, rows, cols| match along {
                    true => Matrix::new(numbers, rows, cols),
                    false => Matrix::strided(numbers, rows, cols, 1, rows),
                };
                let (left, right) = (matrix(a_along, &in_a, m, k), matrix(b_along, &in_b, k, n));
                for (mode, parallelism) in [
                    (Output::Overwrite, Parallelism::Rayon(0)),
                    (Output::Add, Parallelism::None),
                ] {
                    let stride = n + 3;
                    let mut out = vec![7.0; (m - 1) * stride + n];
                    product(left, right, 0.5, &mut out, stride, mode, parallelism);
                    for (place, found) in out.iter().enumerate() {
                        let (row, col) = (place / stride, place % stride);
                        let mut expected = 7.0;
                        if col < n {
                            let sum: f64 = (0..k)
                                .map(|t| rounded[0][row * k + t] * rounded[1][t * n + col])
                                .sum();
                            expected = 0.5 * sum + if mode == Output::Add { 7.0 } else { 0.0 };
                        }
                        let difference = (f64::from(*found) - expected).abs();
                        assert!(
                            difference < 1e-5 * (k as f64).sqrt().max(1.0),
                            "{m} {n} {k} {place}: {found} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_threads() {
        if !supported() {
            return eprintln!("skipped: the processor has no instructions for bf16");
        }
        let [m, n, k] = [300, 100, 700];
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
        let run = |parallelism| {
            let mut out = vec![0.0; m * n];
            product(a, b, 1.0, &mut out, n, Output::Overwrite, parallelism);
            out
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build();
        let by_three = pool.expect("a pool").install(|| run(Parallelism::Rayon(0)));
        assert_eq!(by_three, run(Parallelism::None));
    }

    #[test]
    fn what_is_no_number_stays_so() {
        if !supported() {
            return eprintln!("skipped: the processor has no instructions for bf16");
        }
        let (mut a, b) = (vec![1.0; 4 * 6], vec![1.0; 6 * 2]);
        (a[7], a[13]) = (f32::NAN, f32::INFINITY);
        let mut out = [0.0; 8];
        let (a, b) = (Matrix::new(&a, 4, 6), Matrix::new(&b, 6, 2));
        product(a, b, 1.0, &mut out, 2, Output::Overwrite, Parallelism::None);
        assert_eq!([out[0], out[6]], [6.0, 6.0]);
        assert!(out[2].is_nan() && out[3].is_nan());
        assert_eq!([out[4], out[5]], [f32::INFINITY; 2]);
    }

    #[test]
    #[should_panic(expected = "another size")]
    fn a_product_stays_in_its_output() {
        assert!(supported(), "another size: not tested on this processor");
        let numbers = [1.0; 40];
        let (a, b) = (Matrix::new(&numbers, 4, 10), Matrix::new(&numbers, 10, 4));
        product(
            a,
            b,
            1.0,
            &mut [0.0; 15],
            4,
            Output::Overwrite,
            Parallelism::None,
        );
    }
}
