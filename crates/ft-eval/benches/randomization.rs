//! Fisher's randomization test, timed.
//!
//! `cargo bench -p ft-eval --bench randomization` times synthetic scores of 1,000 items. Given a file and a number
//! of permutations it times that file (two lists of scores in JSON) and prints one line, seconds and p-value, which
//! is how `randomization.py` compares with SciPy and ranx.

use std::time::Instant;

use ft_eval::significance::{Randomization, randomization_test};

const RUNS: usize = 20;

fn main() {
    // Cargo adds `--bench`.
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if let [path, permutations] = &args[..] {
        let text = std::fs::read_to_string(path).expect("a readable file");
        let (a, b): (Vec<f64>, Vec<f64>) = serde_json::from_str(&text).expect("two lists");
        let (seconds, p) = time(&a, &b, permutations.parse().expect("a number"));
        println!("{seconds:e} {p}");
        return;
    }
    let score = |i: u32, m: u32| f64::from(i * m % 997) / 997.0;
    let a: Vec<f64> = (0..1_000).map(|i| score(i, 331)).collect();
    let b: Vec<f64> = (0..1_000).map(|i| score(i, 547) + 0.01).collect();
    for permutations in [1_000, 10_000, 100_000] {
        let (seconds, p) = time(&a, &b, permutations);
        println!(
            "1000 items, {permutations} permutations: {:.3} ms, p {p}",
            1e3 * seconds
        );
    }
}

/// Median seconds of a test, and its p-value.
fn time(a: &[f64], b: &[f64], permutations: usize) -> (f64, f64) {
    let settings = Randomization {
        permutations,
        ..Default::default()
    };
    let run = |_| {
        let start = Instant::now();
        let test = randomization_test(a, b, &settings).expect("lists of equal length");
        (start.elapsed().as_secs_f64(), test.p_value)
    };
    let mut runs: Vec<(f64, f64)> = (0..RUNS).map(run).collect();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    runs[RUNS / 2]
}
