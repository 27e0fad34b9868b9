//! Products with packed weights, for few rows as in decoding and for many as in a prompt; prints a JSON line for each format.
//!
//! With few rows the weights come from memory: there are 128 MiB of them, more than a cache. `gb_per_s` is the speed at which
//! they are read, `gmac_per_s` that of multiplications. Times are medians after one run to warm up.
//!
//! ```sh
//! cargo bench --bench packed -- [FORMAT ...] [--cpu-time] [--gradient] [ROWS ...]
//! ```
//!
//! With `--gradient` the product is one of training: forward, and backward to the input, which are two products.

use std::time::Instant;

use burn::tensor::{Bytes, DType, Device, Distribution, Tensor};
use ft_kernels::{Packed, PackedFormat, Weight, linear};

fn seconds_now() -> f64 {
    if std::env::args().any(|arg| arg == "--cpu-time") {
        return cpu_seconds();
    }
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed().as_secs_f64()
}

/// The time that the threads of this process ran, in seconds, on Linux: on a machine with other work it says more than that of
/// a clock.
fn cpu_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return f64::NAN;
    };
    let nanoseconds = tasks.flatten().filter_map(|task| {
        let line = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        line.split(' ').next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() as f64 * 1e-9
}

/// `[out, in]`, those of the feed-forward layers of a model of 135 million parameters, with blocks of 256 numbers.
const SHAPES: [[usize; 2]; 2] = [[1536, 512], [576, 1536]];
const ROWS: [usize; 6] = [1, 4, 8, 16, 64, 512];
const THREADS: usize = 2;
const LAPS: usize = 5;

fn main() {
    let arguments = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"));
    let (rows, names): (Vec<String>, Vec<String>) =
        arguments.partition(|arg| arg.parse::<usize>().is_ok());
    let mut rows: Vec<usize> = rows.iter().flat_map(|rows| rows.parse()).collect();
    if rows.is_empty() {
        rows = ROWS.to_vec();
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS);
    // As `ft::compute_threads`: this thread is in the pool.
    pool.use_current_thread()
        .build_global()
        .expect("the first pool");
    let device = device();
    let dense = |[out, features]: [usize; 2]| -> Tensor<2> {
        Tensor::random([out, features], Distribution::Normal(0.0, 0.02), &device)
    };
    let wanted =
        |name: &str| names.is_empty() || names.iter().any(|n| n.eq_ignore_ascii_case(name));
    for shape in SHAPES {
        if wanted("F32") {
            let weight = dense(shape);
            measure("F32", shape, shape[0] * shape[1] * 4, &rows, || {
                // A copy in memory of its own.
                Weight::Dense(weight.clone() + 0.0)
            });
        }
        if wanted("F16") {
            let weight = dense(shape).cast(DType::F16);
            measure("F16", shape, shape[0] * shape[1] * 2, &rows, || {
                // A copy in memory of its own.
                Weight::Dense(weight.clone() + 0.0)
            });
        }
        for &format in PackedFormat::ALL {
            if !wanted(format.name()) {
                continue;
            }
            let numbers = dense(shape).into_data().try_to_vec::<f32>().expect("f32");
            let (cols, size) = (shape[1], format.bytes_of(shape[1]));
            let mut bytes = vec![0; shape[0] * size];
            let start = seconds_now();
            for (row, bytes) in numbers.chunks_exact(cols).zip(bytes.chunks_exact_mut(size)) {
                format.encode(row, bytes).expect("finite numbers");
            }
            let encode = numbers.len() as f64 / (seconds_now() - start) / 1e6;
            let start = seconds_now();
            let mut decoded = vec![0.0; numbers.len()];
            for (bytes, row) in bytes.chunks_exact(size).zip(decoded.chunks_exact_mut(cols)) {
                format.decode(bytes, row);
            }
            let decode = numbers.len() as f64 / (seconds_now() - start) / 1e6;
            println!(
                r#"{{"format":"{format}","encode_million_per_s":{encode:.1},"decode_million_per_s":{decode:.0}}}"#
            );
            measure(format.name(), shape, bytes.len(), &rows, || {
                let bytes = Bytes::from_bytes_vec(bytes.clone());
                Packed::from_bytes(format, bytes, shape, &device).into()
            });
        }
    }
}

fn has_gradient() -> bool {
    std::env::args().any(|arg| arg == "--gradient")
}

fn device() -> Device {
    match has_gradient() {
        true => Device::flex().autodiff(),
        false => Device::flex(),
    }
}

fn measure(name: &str, shape: [usize; 2], bytes: usize, rows: &[usize], make: impl Fn() -> Weight) {
    let device = device();
    let products = if has_gradient() { 2 } else { 1 };
    let weights: Vec<Weight> = (0..(128 << 20) / bytes).map(|_| make()).collect();
    let mut line = format!(
        r#"{{"format":"{name}","out":{},"in":{}"#,
        shape[0], shape[1]
    );
    for &rows in rows {
        let x = Tensor::<2>::random([rows, shape[1]], Distribution::Normal(0.0, 1.0), &device);
        let x = if has_gradient() { x.require_grad() } else { x };
        let count = (weights.len() / rows).clamp(1, weights.len());
        let mut seconds: Vec<f64> = (0..=LAPS)
            .map(|_| {
                let start = seconds_now();
                for weight in &weights[..count] {
                    let y = linear(x.clone(), weight.clone(), None);
                    match has_gradient() {
                        true => drop(std::hint::black_box(y.sum().backward())),
                        false => drop(std::hint::black_box(y)),
                    }
                }
                (seconds_now() - start) / count as f64
            })
            .skip(1)
            .collect();
        seconds.sort_by(f64::total_cmp);
        let seconds = seconds[LAPS / 2];
        if rows == 1 {
            line += &format!(r#","gb_per_s":{:.1}"#, bytes as f64 / seconds / 1e9);
        }
        let products = (products * rows * shape[0] * shape[1]) as f64;
        line += &format!(r#","gmac_per_s_{rows}":{:.1}"#, products / seconds / 1e9);
    }
    println!("{line}}}");
}
