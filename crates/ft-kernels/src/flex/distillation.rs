//! Divergences on slices: a row of the student's logits is replaced by the gradient of its loss in place.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::contiguous;
use super::exp::{exp, max, sum_of_pairs};
use super::head::{Head, capped};
use super::packed::Held;
use super::product::Matrix;
use super::slice;
use crate::LogitOptions;
use crate::distillation::{DistillationOptions, Divergence, LEAST_REST};

/// The teacher's distributions.
#[expect(clippy::large_enum_variant, reason = "there is one for a whole batch")]
pub(crate) enum Rows<'a> {
    Head {
        hidden: FlexTensor,
        head: Head,
        softcap: Option<f64>,
    },
    Top {
        k: usize,
        tokens: &'a [i64],
        logps: &'a [f32],
    },
}

impl Rows<'_> {
    pub(crate) fn head(hidden: FlexTensor, weight: Held, options: LogitOptions) -> Self {
        Self::Head {
            hidden: contiguous(hidden),
            head: Head::new(weight, options),
            softcap: options.softcap,
        }
    }
}

/// Sums over the rows of loss, divergence, cross-entropy and agreement, and the gradients of the loss.
pub(crate) struct Sums {
    pub(crate) sums: [f64; 4],
    pub(crate) gradients: [Option<FlexTensor>; 2],
}

/// `hidden`: `[rows, width]`, `weight`: `[vocab, width]`, `targets`: `[rows]`, all in the vocabulary.
pub(crate) fn distill(
    hidden: FlexTensor,
    weight: Held,
    teacher: &Rows<'_>,
    targets: &[i64],
    options: DistillationOptions,
    chunk: usize,
    wanted: [bool; 2],
) -> Sums {
    let head = Head::new(weight, options.logits);
    let vocab = head.vocab();
    let mut found = vec![[0.0f32; 4]; hidden.shape()[0]];
    let mut others = match teacher {
        Rows::Head { .. } => vec![0.0; chunk.min(found.len()) * vocab],
        Rows::Top { .. } => Vec::new(),
    };
    let tracked = wanted != [false; 2];
    let gradients = head.in_chunks(hidden, chunk, tracked, wanted, |start, logits| {
        let size = logits.len() / vocab;
        let rows = (logits.par_chunks_mut(vocab))
            .zip(&targets[start..])
            .zip(&mut found[start..]);
        match teacher {
            Rows::Head {
                hidden,
                head,
                softcap,
            } => {
                let width = hidden.shape()[1];
                let part = &slice(hidden)[start * width..(start + size) * width];
                let others = &mut others[..size * vocab];
                head.logits(Matrix::new(part, size, width), true, others);
                let softcap = softcap.map(|cap| cap as f32);
                rows.zip(others.par_chunks_mut(vocab))
                    .for_each(|(((z, target), found), t)| {
                        if let Some(cap) = softcap {
                            cap_row(t, cap);
                        }
                        let target = *target as usize;
                        *found = through_cap(z, options, |z| of_row(z, t, target, options));
                    });
            }
            Rows::Top { k, tokens, logps } => {
                let here = start * k..(start + size) * k;
                let outcomes = tokens[here.clone()]
                    .par_chunks(*k)
                    .zip(logps[here].par_chunks(*k));
                rows.zip(outcomes)
                    .for_each(|(((z, target), found), (tokens, logps))| {
                        let target = *target as usize;
                        *found =
                            through_cap(z, options, |z| of_top(z, tokens, logps, target, options));
                    });
            }
        }
    });
    let mut sums = [0.0; 4];
    for row in &found {
        for (sum, number) in sums.iter_mut().zip(row) {
            *sum += f64::from(*number);
        }
    }
    Sums { sums, gradients }
}

/// Applies the student's cap before `row`, and its slope to the gradient after it.
fn through_cap(
    z: &mut [f32],
    options: DistillationOptions,
    row: impl FnOnce(&mut [f32]) -> [f32; 4],
) -> [f32; 4] {
    let Some(cap) = options.logits.softcap else {
        return row(z);
    };
    let mut slopes = vec![0.0; z.len()];
    for (z, slope) in z.iter_mut().zip(&mut slopes) {
        (*z, *slope) = capped(*z, cap as f32);
    }
    let found = row(z);
    for (z, slope) in z.iter_mut().zip(&slopes) {
        *z *= slope;
    }
    found
}

fn cap_row(z: &mut [f32], cap: f32) {
    z.iter_mut().for_each(|z| *z = capped(*z, cap).0);
}

/// The largest number, and `ln Σ e^((z − most) / T)`.
#[inline(always)]
fn log_total(z: &[f32], inverse: f32) -> (f32, f32) {
    let most = max(z);
    // Large vocabularies have millions of small terms: sums of 4096 of them are added in f64.
    let parts = z.chunks(4096).map(|part| {
        let sum = sum_of_pairs(part, part, |z, _| exp((z - most) * inverse));
        f64::from(sum)
    });
    (most, parts.sum::<f64>().ln() as f32)
}

/// `Σ f(zᵢ, tᵢ)`, in parts that are added in f64.
#[inline(always)]
fn sum(z: &[f32], t: &[f32], f: impl Fn(f32, f32) -> f32 + Copy) -> f32 {
    let parts = z.chunks(4096).zip(t.chunks(4096));
    let parts = parts.map(|(z, t)| f64::from(sum_of_pairs(z, t, f)));
    parts.sum::<f64>() as f32
}

/// The numbers of a row. `z` are the student's logits, which its gradient replaces, `t` those of the teacher.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn of_row(z: &mut [f32], t: &[f32], target: usize, options: DistillationOptions) -> [f32; 4] {
    let inverse = (1.0 / options.temperature) as f32;
    let (most, total) = log_total(z, inverse);
    let (most_of_teacher, total_of_teacher) = log_total(t, inverse);
    let best = t.iter().position(|&t| t == most_of_teacher).unwrap_or(0);
    let agreement = f32::from(z[best] == most);
    let (alpha, t_squared) = (
        options.alpha as f32,
        options.temperature as f32 * options.temperature as f32,
    );
    let plain = match options.temperature {
        1.0 => total,
        _ => log_total(z, 1.0).1,
    };
    let cross_entropy = most + plain - z[target];
    let lq = |z: f32| (z - most) * inverse - total;
    let lp = |t: f32| (t - most_of_teacher) * inverse - total_of_teacher;
    let (scale, rest) = (alpha * options.temperature as f32, 1.0 - alpha);
    // The gradient of the cross-entropy, without that of the target.
    let supervised = |z: f32| match rest {
        0.0 => 0.0,
        rest => rest * exp(z - most - plain),
    };
    let divergence = match options.divergence {
        Divergence::Forward => {
            let divergence = sum(z, t, |z, t| exp(lp(t)) * (lp(t) - lq(z)));
            for (z, &t) in z.iter_mut().zip(t) {
                *z = scale * (exp(lq(*z)) - exp(lp(t))) + supervised(*z);
            }
            divergence
        }
        Divergence::Reverse => {
            let divergence = sum(z, t, |z, t| exp(lq(z)) * (lq(z) - lp(t)));
            for (z, &t) in z.iter_mut().zip(t) {
                let lq = lq(*z);
                *z = scale * exp(lq) * (lq - lp(t) - divergence) + supervised(*z);
            }
            divergence
        }
        Divergence::JensenShannon(beta) => {
            let beta = beta as f32;
            let lm = |z: f32, t: f32| {
                (beta * exp(lp(t)) + (1.0 - beta) * exp(lq(z)))
                    .max(f32::MIN_POSITIVE)
                    .ln()
            };
            let of_teacher = sum(z, t, |z, t| exp(lp(t)) * (lp(t) - lm(z, t)));
            let own = sum(z, t, |z, t| exp(lq(z)) * (lq(z) - lm(z, t)));
            for (z, &t) in z.iter_mut().zip(t) {
                let lq = lq(*z);
                let slope = exp(lq) * (1.0 - beta) * (lq - lm(*z, t) - own);
                *z = scale * slope + supervised(*z);
            }
            beta * of_teacher + (1.0 - beta) * own
        }
    };
    z[target] -= rest;
    let loss = alpha * t_squared * divergence + rest * cross_entropy;
    [loss, divergence, cross_entropy, agreement]
}

/// The same with the most likely tokens of the teacher, and all others as one outcome.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn of_top(
    z: &mut [f32],
    tokens: &[i64],
    logps: &[f32],
    target: usize,
    options: DistillationOptions,
) -> [f32; 4] {
    let inverse = (1.0 / options.temperature) as f32;
    let (most, total) = log_total(z, inverse);
    let plain = match options.temperature {
        1.0 => total,
        _ => log_total(z, 1.0).1,
    };
    let cross_entropy = most + plain - z[target];
    let lq = |z: f32| (z - most) * inverse - total;
    // Outcomes: the tokens, then the rest.
    let own = tokens.iter().map(|&token| lq(z[token as usize]));
    let mut outcomes: Vec<(f32, f32)> = own.zip(logps).map(|(lq, &lp)| (lp, lq)).collect();
    let rest = |of: fn(&(f32, f32)) -> f32| {
        let listed: f64 = outcomes.iter().map(|o| f64::from(of(o)).exp()).sum();
        ((1.0 - listed) as f32).max(LEAST_REST).ln()
    };
    let rest = (rest(|outcome| outcome.0), rest(|outcome| outcome.1));
    outcomes.push(rest);
    let (mut divergence, mut mean) = (0.0, 0.0);
    let slopes: Vec<f32> = (outcomes.iter())
        .map(|&(lp, lq)| {
            let (p, q) = (lp.exp(), lq.exp());
            let (value, g) = match options.divergence {
                Divergence::Forward => (p * (lp - lq), -(lp - lq).exp()),
                Divergence::Reverse => (q * (lq - lp), lq - lp),
                Divergence::JensenShannon(beta) => {
                    let beta = beta as f32;
                    let lm = (beta * p + (1.0 - beta) * q).max(f32::MIN_POSITIVE).ln();
                    let value = beta * p * (lp - lm) + (1.0 - beta) * q * (lq - lm);
                    (value, (1.0 - beta) * (lq - lm))
                }
            };
            divergence += value;
            // The slope of the forward divergence is large where q is small: q·g is p.
            mean += match options.divergence {
                Divergence::Forward => -p,
                _ => q * g,
            };
            g
        })
        .collect();
    let best = (0..tokens.len()).reduce(|best, at| match logps[at] > logps[best] {
        true => at,
        false => best,
    });
    let agreement = best.map_or(0.0, |best| f32::from(z[tokens[best] as usize] == most));
    let (alpha, temperature) = (options.alpha as f32, options.temperature as f32);
    let (scale, supervised) = (alpha * temperature, 1.0 - alpha);
    let of_rest = slopes[tokens.len()] - mean;
    let listed: Vec<f32> = (tokens.iter().zip(&slopes).zip(&outcomes))
        .map(|((&token, &g), &(lp, lq))| {
            let z = z[token as usize];
            let slope = match options.divergence {
                // exp(lq)·g without the large g.
                Divergence::Forward => -lp.exp() - lq.exp() * mean,
                _ => lq.exp() * (g - mean),
            };
            scale * slope + supervised * exp(z - most - plain)
        })
        .collect();
    for z in z.iter_mut() {
        let ce = match supervised {
            0.0 => 0.0,
            supervised => supervised * exp(*z - most - plain),
        };
        *z = scale * exp(lq(*z)) * of_rest + ce;
    }
    for (&token, gradient) in tokens.iter().zip(listed) {
        z[token as usize] = gradient;
    }
    z[target] -= supervised;
    let loss = alpha * temperature * temperature * divergence + supervised * cross_entropy;
    [loss, divergence, cross_entropy, agreement]
}
