//! Sequences that begin alike, such as answers to one prompt, as a batch that has each beginning once.
//!
//! A group is a segment, its beginning, and a branch of the segment for the
//! rest of each sequence ([`ft_core::branch`]): every token sees what it would see in a row of its own, at the same
//! positions, so that the results are those of separate rows.

use ft_core::{IGNORE_INDEX, Predicted, branch};

use crate::{Batch, Tokenized, collate_padded};

/// Sequences as a batch, and where their tokens are predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branches {
    /// What the model reads. The labels are left out.
    pub batch: Batch,
    /// The tokens with a label of each sequence, group by group.
    pub completions: Vec<Vec<Predicted>>,
    /// The tokens of each sequence before its first label, group by group; the first of a sequence has no prediction.
    pub prompts: Vec<Vec<Predicted>>,
}

/// Puts groups of sequences into rows, `groups_per_row` into each, padded on the right. The sequences of a group share the
/// tokens that they have in common before their first labels.
///
/// One row for all has no padding, and costs nothing where attention passes over what a token does not see, as on the CPU.
/// Elsewhere attention computes a row's tokens against all others, so that a row for each group is cheaper.
///
/// # Panics
///
/// If `groups_per_row` is 0, or a row has more than 32766 groups or a group as many sequences.
pub fn collate_branches(groups: &[Vec<&Tokenized>], groups_per_row: usize) -> Branches {
    let (mut completions, mut prompts) = (Vec::new(), Vec::new());
    let mut rows = Vec::new();
    for groups in groups.chunks(groups_per_row) {
        let mut row = Row::default();
        for (group, segment) in groups.iter().zip(1..) {
            for (sequence, place) in row.push_group(group, segment) {
                let [prompt, completion] = predicted(sequence, place);
                prompts.push((rows.len(), prompt));
                completions.push((rows.len(), completion));
            }
        }
        rows.push(row);
    }
    let lengths = rows.iter().map(|row| row.input_ids.len());
    let seq = lengths.clone().max().unwrap_or(0);
    let shifted = |(row, mut tokens): (usize, Vec<Predicted>)| {
        (tokens.iter_mut()).for_each(|token| token.position += row * seq);
        tokens
    };
    let padded = |values: fn(&Row) -> &[i64]| {
        let padded = rows.iter().flat_map(|row| {
            let values = values(row);
            let padding = std::iter::repeat_n(0, seq - values.len());
            values.iter().copied().chain(padding)
        });
        padded.collect::<Vec<i64>>()
    };
    Branches {
        batch: Batch {
            input_ids: padded(|row| &row.input_ids),
            labels: vec![IGNORE_INDEX; rows.len() * seq],
            position_ids: Some(padded(|row| &row.position_ids)),
            segment_ids: Some(padded(|row| &row.segment_ids)),
            batch: rows.len(),
            seq,
            lengths: lengths.collect(),
        },
        completions: completions.into_iter().map(shifted).collect(),
        prompts: prompts.into_iter().map(shifted).collect(),
    }
}

/// The same with a row for each sequence, padded on the right, for models whose attention does not reach over a row of
/// branches.
pub fn collate_rows(groups: &[Vec<&Tokenized>], pad_id: u32) -> Branches {
    let rows = groups.concat();
    let batch = collate_padded(&rows, 1, pad_id);
    let (mut completions, mut prompts) = (Vec::new(), Vec::new());
    for (row, sequence) in rows.iter().enumerate() {
        let [prompt, completion] = predicted(sequence, |token| row * batch.seq + token);
        prompts.push(prompt);
        completions.push(completion);
    }
    Branches {
        batch: Batch {
            labels: vec![IGNORE_INDEX; batch.labels.len()],
            ..batch
        },
        completions,
        prompts,
    }
}

#[derive(Default)]
struct Row {
    input_ids: Vec<i64>,
    position_ids: Vec<i64>,
    segment_ids: Vec<i64>,
}

impl Row {
    /// Appends a group; returns each sequence with the place of its tokens in the row.
    fn push_group<'a>(
        &mut self,
        group: &[&'a Tokenized],
        segment: i64,
    ) -> Vec<(&'a Tokenized, impl Fn(usize) -> usize + use<>)> {
        let common = common_prompt(group);
        let start = self.input_ids.len();
        if let Some(first) = group.first() {
            self.push(&first.input_ids[..common], 0, segment);
        }
        let mut places = Vec::with_capacity(group.len());
        for (&sequence, number) in group.iter().zip(1..) {
            let rest = self.input_ids.len();
            let tokens = &sequence.input_ids[common..];
            self.push(tokens, common, branch(segment, number));
            places.push((sequence, move |token: usize| match token < common {
                true => start + token,
                false => rest + token - common,
            }));
        }
        places
    }

    /// Appends tokens whose first stands at `position` of its sequence.
    fn push(&mut self, tokens: &[u32], position: usize, segment: i64) {
        self.input_ids
            .extend(tokens.iter().map(|&id| i64::from(id)));
        let positions = position as i64..;
        self.position_ids.extend(positions.take(tokens.len()));
        self.segment_ids.resize(self.input_ids.len(), segment);
    }
}

/// How many tokens all sequences have in common before their first labels.
fn common_prompt(group: &[&Tokenized]) -> usize {
    let Some(first) = group.first() else {
        return 0;
    };
    let unlabelled = |sequence: &Tokenized| {
        let mut labels = sequence.labels.iter();
        let first = labels.position(|&label| label != IGNORE_INDEX);
        first.unwrap_or(sequence.len())
    };
    let most = group.iter().map(|sequence| unlabelled(sequence)).min();
    let alike = |at: &usize| {
        group
            .iter()
            .all(|other| other.input_ids[*at] == first.input_ids[*at])
    };
    (0..most.unwrap_or(0)).take_while(alike).count()
}

/// The tokens before the first label, and those with a label, where `place` says at which position a token stands.
fn predicted(sequence: &Tokenized, place: impl Fn(usize) -> usize) -> [Vec<Predicted>; 2] {
    let (mut prompt, mut completion) = (Vec::new(), Vec::new());
    for at in 1..sequence.len() {
        let position = place(at - 1);
        if sequence.labels[at] != IGNORE_INDEX {
            let token = sequence.labels[at];
            completion.push(Predicted { position, token });
        } else if completion.is_empty() && sequence.labels[0] == IGNORE_INDEX {
            let token = i64::from(sequence.input_ids[at]);
            prompt.push(Predicted { position, token });
        }
    }
    [prompt, completion]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenized(input_ids: &[u32], prompt: usize) -> Tokenized {
        let labels = input_ids.iter().enumerate();
        Tokenized {
            input_ids: input_ids.to_vec(),
            labels: labels
                .map(|(at, &id)| {
                    if at < prompt {
                        IGNORE_INDEX
                    } else {
                        i64::from(id)
                    }
                })
                .collect(),
        }
    }

    fn at(position: usize, token: i64) -> Predicted {
        Predicted { position, token }
    }

    #[test]
    fn a_common_beginning_stands_once() {
        // Both begin with 1 2, the second answer also begins as the first one does.
        let chosen = tokenized(&[1, 2, 3, 4], 2);
        let rejected = tokenized(&[1, 2, 3], 2);
        let other = tokenized(&[5, 6], 1);
        let groups = [vec![&chosen, &rejected], vec![&other]];
        let found = collate_branches(&groups, 2);
        assert_eq!(found.batch.input_ids, [1, 2, 3, 4, 3, 5, 6]);
        assert_eq!(
            found.batch.position_ids.as_deref(),
            Some(&[0, 1, 2, 3, 2, 0, 1][..])
        );
        let (a, b) = (branch(1, 1), branch(1, 2));
        assert_eq!(
            found.batch.segment_ids.as_deref(),
            Some(&[1, 1, a, a, b, 2, branch(2, 1)][..])
        );
        assert_eq!(
            found.completions,
            [vec![at(1, 3), at(2, 4)], vec![at(1, 3)], vec![at(5, 6)]]
        );
        assert_eq!(found.prompts, [vec![at(0, 2)], vec![at(0, 2)], vec![]]);

        let apart = collate_branches(&groups, 1);
        assert_eq!(apart.batch.input_ids, [1, 2, 3, 4, 3, 5, 6, 0, 0, 0]);
        assert_eq!(
            apart.batch.segment_ids.as_deref().map(|ids| &ids[5..]),
            Some(&[1, branch(1, 1), 0, 0, 0][..])
        );
        assert_eq!(apart.completions[2], [at(5, 6)]);
        assert_eq!(
            (
                apart.batch.batch,
                apart.batch.seq,
                apart.batch.token_count()
            ),
            (2, 5, 7)
        );

        let rows = collate_rows(&groups, 9);
        assert_eq!(rows.batch.input_ids, [1, 2, 3, 4, 1, 2, 3, 9, 5, 6, 9, 9]);
        assert_eq!(
            rows.completions,
            [vec![at(1, 3), at(2, 4)], vec![at(5, 3)], vec![at(8, 6)]]
        );
    }

    /// Prompts that the tokenizer splits differently before the two answers are shared as far as they are alike.
    #[test]
    fn prompts_that_differ_are_shared_in_part() {
        let one = tokenized(&[1, 2, 3, 7], 3);
        let two = tokenized(&[1, 8, 7], 2);
        let found = collate_branches(&[vec![&one, &two]], 1);
        assert_eq!(found.batch.input_ids, [1, 2, 3, 7, 8, 7]);
        assert_eq!(
            found.batch.position_ids.as_deref(),
            Some(&[0, 1, 2, 3, 1, 2][..])
        );
        assert_eq!(found.completions, [vec![at(2, 7)], vec![at(4, 7)]]);
        assert_eq!(found.prompts[1], [at(0, 8)]);
    }

    #[test]
    fn sequences_without_a_prompt_share_nothing() {
        let one = tokenized(&[1, 2], 0);
        let found = collate_branches(&[vec![&one, &one]], 1);
        assert_eq!(found.batch.input_ids, [1, 2, 1, 2]);
        assert_eq!(found.completions, [vec![at(0, 2)], vec![at(2, 2)]]);
        assert_eq!(found.prompts, [vec![], vec![]]);
    }
}
