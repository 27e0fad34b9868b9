//! Distillation of a language model's head from that of another, without whole logits.

use burn::tensor::Tensor;
use ft_kernels::{DistillationOptions, Distilled, Teacher, Weight, distillation_sum};

use crate::loss::linear_cross_entropy::{Counted, next_labels};
use crate::{Error, Head, Result};

/// A teacher's output for the positions of a batch.
#[derive(Clone, Copy, Debug)]
pub enum TeacherStates<'a> {
    /// Its hidden states, `[batch, seq, width]`, and its head.
    Head(&'a Tensor<3>, Head<'a>),
    /// Its likeliest tokens at every position whose next token has a label, in order, at the temperature of the loss.
    Top {
        /// How many tokens a position has.
        k: usize,
        /// `positions · k` tokens.
        tokens: &'a [i64],
        /// Their log-probabilities.
        logps: &'a [f32],
    },
}

/// The loss of a student at every position whose next token has a label, summed; see [`DistillationOptions`]. Also how many
/// positions these are; without any there is no result.
///
/// `options.logits` is ignored: the options of the logits are those of the head.
///
/// # Shapes
///
/// - `hidden`: `[batch, seq, width]`, those of the student
/// - `labels`: `batch · seq` numbers, row by row, aligned with the input ids
///
/// # Errors
///
/// If a head is more than a matrix (it has a bias, or an adapter), the vocabularies differ, or there are not as many tokens
/// of the teacher as positions.
///
/// # Panics
///
/// If there are not as many labels as positions, or an option is out of range.
pub fn distillation_loss(
    hidden: Tensor<3>,
    head: Head<'_>,
    teacher: TeacherStates<'_>,
    labels: &[i64],
    options: DistillationOptions,
) -> Result<Option<(Distilled, usize)>> {
    let [batch, seq, width] = hidden.dims();
    let next = next_labels(labels, batch, seq);
    let counted = Counted::new(&next, head.vocab_size());
    let count = counted.targets.len();
    if count == 0 {
        return Ok(None);
    }
    let rows = |hidden: Tensor<3>, width: usize| {
        let rows = hidden
            .narrow(1, 0, seq - 1)
            .reshape([batch * (seq - 1), width]);
        counted.select(rows)
    };
    let weight = matrix(head, "student")?;
    let teacher = match teacher {
        TeacherStates::Head(hidden, of) => {
            let (own, other) = (head.vocab_size(), of.vocab_size());
            if own != other {
                return Err(Error::Settings(format!(
                    "the student has {own} tokens in its vocabulary and the teacher {other}: distillation of logits needs the \
                     same tokenizer"
                )));
            }
            let width = hidden.dims()[2];
            Teacher::Head {
                hidden: rows(hidden.clone(), width),
                weight: matrix(of, "teacher")?,
                logits: of.logits,
            }
        }
        TeacherStates::Top { k, tokens, logps } => {
            if tokens.len() != count * k {
                return Err(Error::Settings(format!(
                    "the teacher has {} tokens for {count} positions with {k} each: its file belongs to other rows",
                    tokens.len()
                )));
            }
            Teacher::Top {
                k,
                tokens: tokens.to_vec(),
                logps: logps.to_vec(),
            }
        }
    };
    let options = DistillationOptions {
        logits: head.logits,
        ..options
    };
    let hidden = rows(hidden, width);
    let found = distillation_sum(hidden, weight, &teacher, &counted.targets, options);
    Ok(Some((found, count)))
}

/// Checks that an output layer is one that [`distillation_loss`] takes. `whose` is said in the error.
///
/// # Errors
///
/// If it has a bias or an adapter.
pub fn check_distillation_head(head: Head<'_>, whose: &str) -> Result<()> {
    matrix(head, whose).map(drop)
}

fn matrix(head: Head<'_>, whose: &str) -> Result<Weight> {
    head.matrix().ok_or_else(|| {
        Error::Settings(format!(
            "the output layer of the {whose} has a bias or an adapter, which distillation does not support: merge the adapter, or \
             take the output layer out of its targets"
        ))
    })
}
