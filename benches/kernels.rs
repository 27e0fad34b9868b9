//! Every kernel compared with Burn's operations, forward and backward; prints a JSON line for each.
//!
//! Sizes are those of a 135M-parameter model on 4 × 256 tokens. The two are measured alternately; times are medians
//! of `--laps` after one to warm up.
//!
//! ```sh
//! cargo bench --bench kernels
//! ```

use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use ft::burn::tensor::{DType, Device, Distribution, Tensor};
use ft::kernels::{
    Activation, AdamWStep, AttentionMask, LogitOptions, LossOptions, LowRank, adamw, apply_rotary,
    attention, cross_entropy_sum, gated_mlp, layer_norm, linear, portable, rms_norm, token_logps,
};
use serde_json::json;

const BATCH: usize = 4;
const SEQ: usize = 256;
const ROWS: usize = BATCH * SEQ;
const WIDTH: usize = 576;
const INNER: usize = 1536;
const VOCAB: usize = 49152;
/// Of the optimizer's step.
const PARAMETERS: usize = 10_000_000;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 7)]
    laps: usize,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ft::compute_threads(Some(args.threads));
    let device = Device::default().autodiff();
    let laps = args.laps;

    let x = leaf([ROWS, WIDTH], &device);
    let (w, b) = (leaf([WIDTH], &device), leaf([WIDTH], &device));
    compare(
        "rms_norm",
        laps,
        [&|| rms_norm(x.clone(), w.clone(), 1e-5).sum(), &|| {
            portable::rms_norm(x.clone(), w.clone(), 1e-5).sum()
        }],
    );
    compare(
        "layer_norm",
        laps,
        [
            &|| layer_norm(x.clone(), w.clone(), b.clone(), 1e-5).sum(),
            &|| portable::layer_norm(x.clone(), w.clone(), b.clone(), 1e-5).sum(),
        ],
    );

    let [gate, up] = [(); 2].map(|()| leaf([ROWS, INNER], &device));
    for (name, act) in [
        ("gated_mlp silu", Activation::Silu),
        ("gated_mlp gelu", Activation::Gelu),
        ("gated_mlp gelu_new", Activation::GeluTanh),
    ] {
        compare(
            name,
            laps,
            [&|| gated_mlp(gate.clone(), up.clone(), act).sum(), &|| {
                portable::gated_mlp(gate.clone(), up.clone(), act).sum()
            }],
        );
    }

    let [q, k, v] = [9, 3, 3].map(|heads| leaf([BATCH, heads, SEQ, 64], &device));
    let angles = Tensor::<4>::random([1, 1, SEQ, 32], Distribution::Default, &device);
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    compare(
        "apply_rotary",
        laps,
        [&|| apply_rotary(q.clone(), &cos, &sin).sum(), &|| {
            portable::apply_rotary(q.clone(), &cos, &sin).sum()
        }],
    );
    let mask = AttentionMask::new(SEQ, 0, None, None, &device);
    compare(
        "attention",
        laps,
        [
            &|| attention(q.clone(), k.clone(), v.clone(), 0.125, &mask).sum(),
            &|| portable::attention(q.clone(), k.clone(), v.clone(), 0.125, &mask).sum(),
        ],
    );

    let frozen = Tensor::<2>::random([INNER, WIDTH], Distribution::Default, &device);
    let adapter = LowRank {
        a: leaf([16, WIDTH], &device),
        b: leaf([INNER, 16], &device),
        scale: 2.0,
        dropout: None,
    };
    let adapter = || Some(adapter.clone());
    compare(
        "linear with adapter",
        laps,
        [
            &|| linear(x.clone(), frozen.clone(), adapter()).sum(),
            &|| portable::linear(x.clone(), frozen.clone(), adapter()).sum(),
        ],
    );
    let narrow = frozen.clone().cast(DType::BF16);
    compare(
        "linear with adapter, bf16",
        laps,
        [
            &|| linear(x.clone(), narrow.clone(), adapter()).sum(),
            &|| portable::linear(x.clone(), narrow.clone(), adapter()).sum(),
        ],
    );

    let head = Tensor::<2>::random([VOCAB, WIDTH], Distribution::Default, &device);
    let targets: Vec<i64> = (0..ROWS as i64).map(|i| i * 37 % VOCAB as i64).collect();
    let (loss, logits) = (LossOptions::default(), LogitOptions::default());
    compare(
        "cross_entropy_sum",
        laps,
        [
            &|| cross_entropy_sum(x.clone(), head.clone(), &targets, loss),
            &|| portable::cross_entropy_sum(x.clone(), head.clone(), &targets, loss),
        ],
    );
    compare(
        "token_logps",
        laps,
        [
            &|| token_logps(x.clone(), head.clone(), &targets, logits).sum(),
            &|| portable::token_logps(x.clone(), head.clone(), &targets, logits).sum(),
        ],
    );

    // The optimizer's step has no gradient.
    let [param, gradient] = [(); 2].map(|()| leaf([PARAMETERS], &device).inner());
    let zeros = || [(); 2].map(|()| param.zeros_like());
    let step = AdamWStep {
        number: 1,
        learning_rate: 1e-4,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: 0.01,
        scale: 1.0,
    };
    compare_calls(
        "adamw",
        laps,
        [
            &|| drop(adamw(param.clone(), gradient.clone(), zeros(), &step)),
            &|| {
                drop(portable::adamw(
                    param.clone(),
                    gradient.clone(),
                    zeros(),
                    &step,
                ))
            },
        ],
    );
    Ok(())
}

fn leaf<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 0.5), device).require_grad()
}

/// Times the two alternately, from the inputs to the gradients, and prints a line.
fn compare(name: &str, laps: usize, run: [&dyn Fn() -> Tensor<1>; 2]) {
    let [kernel, twin] = run;
    compare_calls(
        name,
        laps,
        [&|| drop(kernel().backward()), &|| drop(twin().backward())],
    );
}

fn compare_calls(name: &str, laps: usize, run: [&dyn Fn(); 2]) {
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..=laps {
        for (run, times) in run.iter().zip(&mut times) {
            let start = Instant::now();
            run();
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let [ms, portable_ms] = times.map(|mut times| {
        let timed = &mut times[1..];
        timed.sort_by(f64::total_cmp);
        timed[timed.len() / 2]
    });
    let round = |x: f64| (x * 100.0).round() / 100.0;
    let line = json!({
        "kernel": name,
        "ms": round(ms),
        "portable_ms": round(portable_ms),
        "ratio": round(portable_ms / ms),
    });
    println!("{line}");
}
