//! One example per row, padded on the right.
//!
//! With causal attention no token attends to padding on its right, so no mask is needed.

use ft_core::IGNORE_INDEX;

use crate::{Batch, Tokenized};

/// Pads to the longest example, rounded up to a multiple of `multiple` (0 counts as 1).
pub fn collate_padded(examples: &[&Tokenized], multiple: usize, pad_id: u32) -> Batch {
    let longest = examples.iter().map(|example| example.len()).max();
    let seq = longest.unwrap_or(0).next_multiple_of(multiple.max(1));
    let mut batch = Batch {
        batch: examples.len(),
        seq,
        lengths: examples.iter().map(|example| example.len()).collect(),
        ..Batch::default()
    };
    for (row, example) in examples.iter().enumerate() {
        let ids = example.input_ids.iter().map(|&id| i64::from(id));
        batch.input_ids.extend(ids);
        batch.labels.extend(&example.labels);
        batch.input_ids.resize((row + 1) * seq, i64::from(pad_id));
        batch.labels.resize((row + 1) * seq, IGNORE_INDEX);
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_on_the_right_to_a_multiple() {
        let long = Tokenized {
            input_ids: vec![1, 2, 3],
            labels: vec![-100, 2, 3],
        };
        let short = Tokenized {
            input_ids: vec![4],
            labels: vec![4],
        };
        let batch = collate_padded(&[&long, &short], 4, 9);
        assert_eq!(batch.input_ids, [1, 2, 3, 9, 4, 9, 9, 9]);
        assert_eq!(batch.labels, [-100, 2, 3, -100, 4, -100, -100, -100]);
        assert_eq!((batch.batch, batch.seq), (2, 4));
        assert_eq!(batch.lengths, [3, 1]);
        assert_eq!((batch.token_count(), batch.label_count()), (4, 2));
        assert_eq!((batch.position_ids, batch.segment_ids), (None, None));
        assert_eq!(collate_padded(&[&long], 0, 9).seq, 3);
    }
}
