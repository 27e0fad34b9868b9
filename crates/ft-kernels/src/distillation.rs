//! Two heads and the divergence of their distributions in one, a chunk of tokens at a time.
//!
//! The logits of teacher and student are those of a few hundred rows at a time. As in
//! [`cross_entropy_sum`](crate::cross_entropy_sum), the gradient is computed in the forward pass, outside the graph, and only
//! the student has one.

use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::cross_entropy::{check_targets, rows_a_chunk, zero_with_gradient};
use crate::graph::{constant, in_type_of};
use crate::{LogitOptions, Weight};

/// How far the student's distribution `q` is from the teacher's `p`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Divergence {
    /// `KL(p‖q) = Σ p ln(p/q)`: the student puts mass wherever the teacher has some.
    #[default]
    Forward,
    /// `KL(q‖p) = Σ q ln(q/p)`: the student keeps to where the teacher has much.
    Reverse,
    /// `β KL(p‖m) + (1 − β) KL(q‖m)` with `m = βp + (1 − β)q` and `0 < β < 1`: the generalised Jensen-Shannon divergence
    /// of Agarwal et al., 2024 (GKD, arXiv:2306.13649, equation 1).
    JensenShannon(f64),
}

/// The loss of a row: `α T² D(p‖q) + (1 − α) (−ln softmax(z)[target])`, with `p` and `q` the distributions of teacher and
/// student at the temperature `T` and `z` the student's logits (Hinton et al., 2015, arXiv:1503.02531).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistillationOptions {
    /// `D`.
    pub divergence: Divergence,
    /// `T`.
    pub temperature: f64,
    /// `α`, from 0 to 1.
    pub alpha: f64,
    /// What the student does to its logits.
    pub logits: LogitOptions,
}

impl Default for DistillationOptions {
    /// The forward divergence at a temperature of 1, without cross-entropy.
    fn default() -> Self {
        Self {
            divergence: Divergence::Forward,
            temperature: 1.0,
            alpha: 1.0,
            logits: LogitOptions::default(),
        }
    }
}

impl DistillationOptions {
    /// # Panics
    ///
    /// If a number is out of range.
    fn check(self) {
        self.logits.check();
        let Self {
            temperature, alpha, ..
        } = self;
        assert!(
            temperature > 0.0 && temperature.is_finite(),
            "a temperature of {temperature}"
        );
        assert!((0.0..=1.0).contains(&alpha), "an alpha of {alpha}");
        if let Divergence::JensenShannon(beta) = self.divergence {
            assert!(beta > 0.0 && beta < 1.0, "a beta of {beta}");
        }
    }
}

/// The teacher's distributions, one for each row.
#[expect(clippy::large_enum_variant, reason = "there is one for a whole batch")]
#[derive(Clone, Debug)]
pub enum Teacher {
    /// Those of a head.
    Head {
        /// `[rows, width of the teacher]`
        hidden: Tensor<2>,
        /// `[vocab, width of the teacher]`, possibly in 16 bits or in blocks
        weight: Weight,
        /// What the teacher does to its logits.
        logits: LogitOptions,
    },
    /// The most likely tokens at the temperature of the loss. The tokens that are left out count as one outcome, which has
    /// the rest of the probability; so the divergence is at most that of the whole distributions.
    Top {
        /// How many tokens each row has.
        k: usize,
        /// `rows · k` different tokens of each row, row by row.
        tokens: Vec<i64>,
        /// Their log-probabilities.
        logps: Vec<f32>,
    },
}

/// Sums over the rows, tensors of one element.
#[derive(Clone, Debug)]
pub struct Distilled {
    /// The loss, a part of the graph if the student trains.
    pub loss: Tensor<1>,
    /// `D`, a constant.
    pub divergence: Tensor<1>,
    /// The cross-entropy with the targets, a constant.
    pub cross_entropy: Tensor<1>,
    /// Rows in which both have the same most likely token, a constant.
    pub agreement: Tensor<1>,
}

/// Sums of rows outside the graph, and the gradients of the loss.
struct Parts {
    sums: [Tensor<1>; 4],
    gradients: [Option<Tensor<2>>; 2],
}

/// The loss of all rows together.
///
/// # Shapes
///
/// - `hidden`: `[rows, width]`, `weight`: `[vocab, width]`, a tensor or [`Packed`](crate::Packed), those of the student;
///   `targets`: one id a row
///
/// # Panics
///
/// If there are no rows, numbers of rows or vocabularies differ, a target is not in the vocabulary, or an option is out of
/// range.
pub fn distillation_sum<W: Into<Weight>>(
    hidden: Tensor<2>,
    weight: W,
    teacher: &Teacher,
    targets: &[i64],
    options: DistillationOptions,
) -> Distilled {
    let weight = weight.into();
    #[cfg(feature = "cpu")]
    {
        let known = match teacher {
            Teacher::Head { hidden, weight, .. } => {
                crate::flex::takes(hidden) && crate::flex::takes_operand(weight)
            }
            Teacher::Top { .. } => true,
        };
        if known && crate::flex::takes(&hidden) && crate::flex::takes_operand(&weight) {
            let chunk = rows_a_chunk(&weight);
            return in_graph(hidden, weight, teacher, targets, options, chunk, on_flex);
        }
    }
    let weight = weight.dense(&hidden);
    portable(hidden, weight, teacher, targets, options)
}

/// [`distillation_sum`] with Burn's operations.
pub fn portable(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    teacher: &Teacher,
    targets: &[i64],
    options: DistillationOptions,
) -> Distilled {
    let weight = Weight::Dense(in_type_of(weight, &hidden));
    let chunk = rows_a_chunk(&weight);
    in_graph(
        hidden,
        weight,
        teacher,
        targets,
        options,
        chunk,
        of_burn_operations,
    )
}

fn check_teacher(teacher: &Teacher, rows: usize, vocab: usize) {
    match teacher {
        Teacher::Head {
            hidden,
            weight,
            logits,
        } => {
            logits.check();
            assert_eq!(hidden.dims()[0], rows, "a row of the teacher for each row");
            assert_eq!(
                weight.rows(),
                vocab,
                "the vocabulary of the teacher is that of the student"
            );
        }
        Teacher::Top { k, tokens, logps } => {
            assert!((1..vocab).contains(k), "{k} tokens of {vocab}");
            assert_eq!(tokens.len(), rows * k, "tokens of the teacher");
            assert_eq!(logps.len(), rows * k, "log-probabilities of the teacher");
            let bad = tokens.iter().find(|t| !(0..vocab as i64).contains(t));
            assert_eq!(bad, None, "a token of the teacher is in the vocabulary");
        }
    }
}

fn in_graph(
    hidden: Tensor<2>,
    weight: Weight,
    teacher: &Teacher,
    targets: &[i64],
    options: DistillationOptions,
    chunk: usize,
    compute: impl Fn(
        Tensor<2>,
        Weight,
        &Teacher,
        &[i64],
        DistillationOptions,
        usize,
        [bool; 2],
    ) -> Parts,
) -> Distilled {
    options.check();
    check_targets(&hidden, &weight, targets);
    check_teacher(teacher, hidden.dims()[0], weight.rows());
    let wanted = [hidden.is_tracked(), weight.is_tracked()];
    let (inner, own) = (hidden.clone().inner(), weight.clone());
    let parts = compute(inner, own, teacher, targets, options, chunk, wanted);
    let [mut loss, divergence, cross_entropy, agreement] = parts.sums;
    if wanted != [false; 2] {
        loss = constant(loss, &hidden);
        let [d_hidden, d_weight] = parts.gradients;
        if let Some(gradient) = d_hidden {
            loss = loss + zero_with_gradient(hidden, gradient);
        }
        if let (Weight::Dense(weight), Some(gradient)) = (weight, d_weight) {
            loss = loss + zero_with_gradient(weight, gradient);
        }
    }
    Distilled {
        loss,
        divergence,
        cross_entropy,
        agreement,
    }
}

#[cfg(feature = "cpu")]
fn on_flex(
    hidden: Tensor<2>,
    weight: Weight,
    teacher: &Teacher,
    targets: &[i64],
    options: DistillationOptions,
    chunk: usize,
    wanted: [bool; 2],
) -> Parts {
    use crate::flex::distillation::{Rows, distill};
    use crate::flex::packed::Held;
    use burn::backend::Flex;
    let device = hidden.device();
    let primitive = |tensor: Tensor<2>| {
        (tensor.inner().try_into_primitive::<Flex>()).expect("a tensor of Flex, as was checked")
    };
    let rows = match teacher {
        Teacher::Head {
            hidden,
            weight,
            logits,
        } => Rows::head(
            primitive(hidden.clone()),
            Held::outside(weight.clone()),
            *logits,
        ),
        Teacher::Top { k, tokens, logps } => Rows::Top {
            k: *k,
            tokens,
            logps,
        },
    };
    let (hidden, weight) = (primitive(hidden), Held::outside(weight));
    let found = distill(hidden, weight, &rows, targets, options, chunk, wanted);
    Parts {
        sums: (found.sums).map(|sum| Tensor::from_data([sum as f32], &device)),
        gradients: (found.gradients).map(|gradient| gradient.map(Tensor::from_primitive::<Flex>)),
    }
}

fn of_burn_operations(
    h: Tensor<2>,
    weight: Weight,
    teacher: &Teacher,
    targets: &[i64],
    options: DistillationOptions,
    chunk: usize,
    [want_hidden, want_weight]: [bool; 2],
) -> Parts {
    let rows = h.dims()[0];
    let w = weight.dense(&h).inner();
    let device = h.device();
    // Dense and in the type of the states once, not in every chunk.
    let head_of_teacher = match teacher {
        Teacher::Head { hidden, weight, .. } => {
            let hidden = hidden.clone().inner();
            Some(in_type_of(
                weight.clone().dense(&hidden).inner().transpose(),
                &hidden,
            ))
        }
        Teacher::Top { .. } => None,
    };
    let (mut sums, mut hidden_grads) = (Vec::new(), Vec::new());
    let mut weight_grad: Option<Tensor<2>> = None;
    for start in (0..rows).step_by(chunk) {
        let size = chunk.min(rows - start);
        let part = h.clone().narrow(0, start, size);
        let logits = (options.logits).apply(part.clone().matmul(w.clone().transpose()));
        let slope_of_cap = options.logits.slope_of_cap(&logits);
        let targets = Tensor::<1, Int>::from_data(&targets[start..start + size], &device);
        let targets = targets.reshape([size, 1]);
        let of_teacher = match (teacher, &head_of_teacher) {
            (Teacher::Head { hidden, logits, .. }, Some(head)) => {
                let hidden = hidden.clone().inner().narrow(0, start, size);
                Some(logits.apply(hidden.matmul(head.clone())))
            }
            _ => None,
        };
        let outcomes = outcomes(
            teacher,
            of_teacher.clone(),
            &logits,
            start,
            options.temperature,
        );
        let (divergence, slope) = divergence(options.divergence, outcomes);
        let logps = activation::log_softmax(logits.clone(), 1);
        let cross_entropy = -logps.clone().gather(1, targets.clone());
        let t = options.temperature;
        let loss = divergence.clone() * (options.alpha * t * t)
            + cross_entropy.clone() * (1.0 - options.alpha);
        let agreement = match (of_teacher, teacher) {
            (Some(logits), _) => logits.argmax(1),
            (None, Teacher::Top { k, tokens, logps }) => {
                top_one(tokens, logps, *k, start, size, &device)
            }
            (None, Teacher::Head { .. }) => logits.clone().argmax(1),
        };
        let agreement = agreement.equal(logits.clone().argmax(1)).float();
        sums.push([loss, divergence, cross_entropy, agreement].map(Tensor::sum));
        if !(want_hidden || want_weight) {
            continue;
        }
        let one_hot = Tensor::zeros_like(&logits).scatter(
            1,
            targets,
            Tensor::ones([size, 1], &device),
            burn::tensor::IndexingUpdateOp::Add,
        );
        let mut grad =
            slope * (options.alpha * t) + (logps.exp() - one_hot) * (1.0 - options.alpha);
        if let Some(slope) = slope_of_cap {
            grad = grad * slope;
        }
        if want_weight {
            let new = grad.clone().transpose().matmul(part);
            weight_grad = Some(match weight_grad {
                Some(sum) => sum + new,
                None => new,
            });
        }
        if want_hidden {
            hidden_grads.push(grad.matmul(w.clone()));
        }
    }
    let hidden_grad = want_hidden.then(|| Tensor::cat(hidden_grads, 0));
    let total = |column: usize| {
        let all = sums
            .iter()
            .map(|sums: &[Tensor<1>; 4]| sums[column].clone());
        Tensor::cat(all.collect(), 0).sum()
    };
    Parts {
        sums: std::array::from_fn(total),
        gradients: [hidden_grad, weight_grad]
            .map(|gradient| gradient.map(|gradient| options.logits.scaled(gradient))),
    }
}

/// What the divergence of a chunk is computed from.
struct Outcomes {
    /// `ln p` and `ln q` of the outcomes, `[rows, outcomes]`.
    teacher: Tensor<2>,
    student: Tensor<2>,
    /// `q` of all tokens, `[rows, vocab]`.
    probabilities: Tensor<2>,
    /// The tokens that are outcomes of their own, if not all are; the last outcome is that of all others.
    tokens: Option<Tensor<2, Int>>,
}

fn top_one(
    tokens: &[i64],
    logps: &[f32],
    k: usize,
    start: usize,
    size: usize,
    device: &burn::tensor::Device,
) -> Tensor<2, Int> {
    let rows = (start..start + size).map(|row| row * k..(row + 1) * k);
    let best = rows.map(|row| {
        let best = row.reduce(|best, at| match logps[at] > logps[best] {
            true => at,
            false => best,
        });
        tokens[best.unwrap_or(0)]
    });
    let best: Vec<i64> = best.collect();
    Tensor::from_data(TensorData::new(best, [size, 1]), device)
}

fn outcomes(
    teacher: &Teacher,
    of_teacher: Option<Tensor<2>>,
    logits: &Tensor<2>,
    start: usize,
    temperature: f64,
) -> Outcomes {
    let [size, vocab] = logits.dims();
    let student = activation::log_softmax(logits.clone() / temperature, 1);
    let probabilities = student.clone().exp();
    match teacher {
        Teacher::Head { .. } => {
            let none = || Tensor::zeros([size, vocab], &logits.device());
            let logits = of_teacher.unwrap_or_else(none);
            Outcomes {
                teacher: activation::log_softmax(logits / temperature, 1),
                student,
                probabilities,
                tokens: None,
            }
        }
        Teacher::Top { k, tokens, logps } => {
            let device = logits.device();
            let here = start * k..(start + size) * k;
            let tokens = TensorData::new(tokens[here.clone()].to_vec(), [size, *k]);
            let tokens = Tensor::<2, Int>::from_data(tokens, &device);
            let logps = TensorData::new(logps[here].to_vec(), [size, *k]);
            let teacher = Tensor::<2>::from_data(logps, &device);
            let with_rest = |logps: Tensor<2>| {
                let rest = -logps.clone().exp().sum_dim(1) + 1.0;
                Tensor::cat(vec![logps, rest.clamp_min(LEAST_REST).log()], 1)
            };
            Outcomes {
                teacher: with_rest(teacher),
                student: with_rest(student.gather(1, tokens.clone())),
                probabilities,
                tokens: Some(tokens),
            }
        }
    }
}

/// The least probability of the tokens that are left out: less is rounding.
pub(crate) const LEAST_REST: f32 = 1e-7;

/// The divergence of each row, `[rows, 1]`, and `T · ∂D/∂z`, `[rows, vocab]`.
///
/// With `g = ∂D/∂q` of each outcome, the slope of a token with the probability `q` is `q·(g − Σ q g)`, where `g` is that of
/// the token's outcome.
fn divergence(kind: Divergence, outcomes: Outcomes) -> (Tensor<2>, Tensor<2>) {
    let Outcomes {
        teacher: lp,
        student: lq,
        probabilities,
        tokens,
    } = outcomes;
    let (p, q) = (lp.clone().exp(), lq.clone().exp());
    let (divergence, g) = match kind {
        Divergence::Forward => {
            // q·g is p, where g may be too large for a number.
            let value = p.clone() * (lp - lq);
            let total = p.clone().sum_dim(1);
            let slope = match tokens {
                None => q * total - p,
                Some(tokens) => {
                    let [size, outcomes] = p.dims();
                    let part = |x: &Tensor<2>, at, count| x.clone().narrow(1, at, count);
                    let rest = total.clone()
                        - part(&p, outcomes - 1, 1)
                            / part(&q, outcomes - 1, 1).clamp_min(LEAST_REST);
                    let [_, vocab] = probabilities.dims();
                    let all = probabilities * rest.expand([size, vocab]);
                    let listed = part(&q, 0, outcomes - 1) * total - part(&p, 0, outcomes - 1);
                    let old = all.clone().gather(1, tokens.clone());
                    all.scatter(1, tokens, listed - old, burn::tensor::IndexingUpdateOp::Add)
                }
            };
            return (value.sum_dim(1), slope);
        }
        Divergence::Reverse => (q.clone() * (lq.clone() - lp.clone()), lq - lp),
        Divergence::JensenShannon(beta) => {
            let lm = (p.clone() * beta + q.clone() * (1.0 - beta))
                .clamp_min(1.2e-38)
                .log();
            let own = lq - lm.clone();
            let value = p * (lp - lm) * beta + q.clone() * own.clone() * (1.0 - beta);
            (value, own * (1.0 - beta))
        }
    };
    let mean = (q * g.clone()).sum_dim(1);
    let centered = g - mean;
    let of_tokens = match tokens {
        None => centered,
        Some(tokens) => {
            let [size, outcomes] = centered.dims();
            let rest = centered.clone().narrow(1, outcomes - 1, 1);
            let listed = centered.narrow(1, 0, outcomes - 1) - rest.clone();
            let all = rest.expand([size, probabilities.dims()[1]]);
            all.scatter(1, tokens, listed, burn::tensor::IndexingUpdateOp::Add)
        }
    };
    (divergence.sum_dim(1), probabilities * of_tokens)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;

    fn numbers(rows: usize, columns: usize, step: f32, scale: f32) -> Tensor<2> {
        let numbers = (1..=rows * columns).map(|i| scale * (step * i as f32).sin());
        let data = TensorData::new(numbers.collect::<Vec<f32>>(), [rows, columns]);
        Tensor::from_data(data, &Device::default().autodiff())
    }

    /// Also with logits so far apart that probabilities underflow.
    #[test]
    fn the_size_of_chunks_does_not_change_the_result() {
        for scale in [1.0, 60.0] {
            let (rows, vocab, k) = (7, 5, 2);
            let hidden = numbers(rows, 3, 1.3, scale).require_grad();
            let weight = numbers(vocab, 3, 0.7, 1.0).require_grad();
            let teachers = [
                Teacher::Head {
                    hidden: numbers(rows, 2, 0.9, scale),
                    weight: numbers(vocab, 2, 1.9, 1.0).into(),
                    logits: LogitOptions::default(),
                },
                Teacher::Top {
                    k,
                    tokens: (0..rows * k)
                        .map(|i| ((i * 3 + i / 2) % vocab) as i64)
                        .collect(),
                    logps: (0..rows * k).map(|i| [-0.4, -1.9][i % k]).collect(),
                },
            ];
            for (teacher, divergence) in teachers.iter().flat_map(|teacher| {
                let kinds = [
                    Divergence::Forward,
                    Divergence::Reverse,
                    Divergence::JensenShannon(0.3),
                ];
                kinds.map(|kind| (teacher, kind))
            }) {
                let options = DistillationOptions {
                    divergence,
                    temperature: 1.5,
                    alpha: 0.8,
                    ..DistillationOptions::default()
                };
                let run = |kernel: bool, chunk: usize| {
                    let (h, w) = (hidden.clone(), Weight::Dense(weight.clone()));
                    let targets = [0, 4, 2, 2, 1, 3, 0];
                    let found = match kernel {
                        true => in_graph(h, w, teacher, &targets, options, chunk, on_flex),
                        false => {
                            in_graph(h, w, teacher, &targets, options, chunk, of_burn_operations)
                        }
                    };
                    let grads = found.loss.backward();
                    let of = |x: &Tensor<2>| x.grad(&grads).expect("a gradient").into_data();
                    let sums = [found.loss.clone(), found.divergence, found.agreement];
                    (sums.map(Tensor::into_data), [of(&hidden), of(&weight)])
                };
                let (sums, gradients) = run(true, rows);
                for (kernel, chunk) in [(true, 1), (true, 3), (false, 3), (false, rows)] {
                    let (found, slopes) = run(kernel, chunk);
                    let tolerance = Tolerance::rel_abs(1e-4, 1e-4 * scale);
                    let all = found
                        .iter()
                        .chain(&slopes)
                        .zip(sums.iter().chain(&gradients));
                    for (found, expected) in all {
                        found.assert_approx_eq::<f32>(expected, tolerance);
                    }
                }
            }
        }
    }
}
