//! What the processor allows: multiplications in registers, reading memory, and products; prints one JSON line.
//!
//! `peak` counts fused multiply-adds of `f32` in registers on all threads at once, without any memory. `read` sums 512 MiB. Products
//! are those of ft (`linear`, of 1,024 tokens with a layer of SmolLM2-135M, the same in `bf16`) and of `gemm` through Burn (2,048 cubed). Each is the best of
//! `--laps`, since other programs only make it slower.
//!
//! ```sh
//! cargo bench --bench roofline
//! ```

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use ft::burn::tensor::{Device, Distribution, Tensor};
use ft::kernels::{Precision, linear, set_precision};
use serde_json::json;

#[path = "shared/sum.rs"]
mod sum;
use sum::sum;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 9)]
    laps: usize,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ft::compute_threads(Some(args.threads));
    let best = |run: &dyn Fn()| {
        let times = (0..args.laps.max(1)).map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        });
        times.fold(f64::INFINITY, f64::min)
    };
    let on_all = |work: &(dyn Fn(usize) -> f32 + Sync)| {
        thread::scope(|scope| {
            for part in 0..args.threads {
                scope.spawn(move || black_box(work(part)));
            }
        });
    };

    let peak = multiply_adds(1).map(|_| {
        let rounds = 50_000_000;
        let seconds = best(&|| on_all(&|_| multiply_adds(rounds).unwrap_or_default()));
        (args.threads * rounds * IN_A_ROUND) as f64 / seconds * 1e-9
    });
    let numbers = vec![1.0f32; 1 << 27];
    let part = numbers.len().div_ceil(args.threads);
    let seconds = best(&|| on_all(&|i| sum(numbers.chunks(part).nth(i).unwrap_or_default())));
    let read = size_of_val(&numbers[..]) as f64 / seconds * 1e-9;
    drop(numbers);

    let device = Device::default();
    let random = |rows: usize, cols: usize| -> Tensor<2> {
        Tensor::random([rows, cols], Distribution::Uniform(-1.0, 1.0), &device)
    };
    let rate = |[m, n, k]: [usize; 3], seconds: f64| (m * n * k) as f64 / seconds * 1e-9;
    let (x, w) = (random(1024, 576), random(1536, 576));
    let layer = best(&|| drop(linear(x.clone(), w.clone(), None).into_data()));
    let rounded = set_precision(Precision::Bf16)
        .then(|| best(&|| drop(linear(x.clone(), w.clone(), None).into_data())));
    set_precision(Precision::F32);
    let (a, b) = (random(2048, 2048), random(2048, 2048));
    let square = best(&|| drop(a.clone().matmul(b.clone()).into_data()));
    let round = |number: f64| (number * 10.0).round() / 10.0;
    let line = json!({
        "threads": args.threads,
        "peak_gmac_per_s": peak.map(round),
        "read_gb_per_s": round(read),
        "linear_gmac_per_s": round(rate([1024, 1536, 576], layer)),
        "linear_bf16_gmac_per_s": rounded.map(|seconds| round(rate([1024, 1536, 576], seconds))),
        "gemm_gmac_per_s": round(rate([2048; 3], square)),
    });
    println!("{line}");
    Ok(())
}

/// Multiply-adds of a round: twelve registers of eight numbers.
const IN_A_ROUND: usize = 12 * 8;

/// Multiplies and adds in registers; none on processors for which no loop is written here.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "a loop with instructions of the processor")]
fn multiply_adds(rounds: usize) -> Option<f32> {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    fn run(rounds: usize) -> f32 {
        let (factor, summand) = (_mm256_set1_ps(0.999), _mm256_set1_ps(0.001));
        let mut sums = [_mm256_setzero_ps(); IN_A_ROUND / 8];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, summand);
            }
        }
        let all = sums.into_iter().reduce(|a, b| _mm256_add_ps(a, b));
        all.map_or(0.0, |all| _mm256_cvtss_f32(all))
    }

    let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    // SAFETY: the processor has the instructions.
    has.then(|| unsafe { run(black_box(rounds)) })
}

#[cfg(not(target_arch = "x86_64"))]
fn multiply_adds(_: usize) -> Option<f32> {
    None
}
