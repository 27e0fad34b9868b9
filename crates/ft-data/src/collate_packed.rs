//! Several documents per row, isolated from each other.
//!
//! Every document has its own segment, which attention does not cross, and positions that begin at 0.
//! Its first label is masked, since the position before it belongs to another document. So a packed
//! row gives the same losses as its documents alone.

use ft_core::IGNORE_INDEX;

use crate::{Batch, Tokenized};

/// Puts each list of documents into a row of `seq_len` positions. The rest of the row is padding.
///
/// # Panics
///
/// If the documents of a row have more than `seq_len` tokens in total.
pub fn collate_packed(rows: &[Vec<&Tokenized>], seq_len: usize, pad_id: u32) -> Batch {
    let capacity = rows.len() * seq_len;
    let mut input_ids = Vec::with_capacity(capacity);
    let mut labels = Vec::with_capacity(capacity);
    let mut position_ids = Vec::with_capacity(capacity);
    let mut segment_ids = Vec::with_capacity(capacity);
    let mut lengths = Vec::with_capacity(rows.len());
    for (row, documents) in rows.iter().enumerate() {
        for (document, segment) in documents.iter().zip(1..) {
            input_ids.extend(document.input_ids.iter().map(|&id| i64::from(id)));
            labels.extend(
                document.labels.iter().enumerate().map(
                    |(at, &label)| {
                        if at == 0 { IGNORE_INDEX } else { label }
                    },
                ),
            );
            position_ids.extend((0..).take(document.len()));
            segment_ids.resize(input_ids.len(), segment);
        }
        lengths.push(input_ids.len() - row * seq_len);
        let end = (row + 1) * seq_len;
        assert!(
            input_ids.len() <= end,
            "the documents of a packed row are longer than its {seq_len} positions"
        );
        input_ids.resize(end, i64::from(pad_id));
        labels.resize(end, IGNORE_INDEX);
        position_ids.resize(end, 0);
        segment_ids.resize(end, 0);
    }
    Batch {
        input_ids,
        labels,
        position_ids: Some(position_ids),
        segment_ids: Some(segment_ids),
        batch: rows.len(),
        seq: seq_len,
        lengths,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_segments_positions_and_no_label_across_a_boundary() {
        let a = Tokenized {
            input_ids: vec![1, 2, 3],
            labels: vec![1, 2, 3],
        };
        let b = Tokenized {
            input_ids: vec![4, 5],
            labels: vec![4, 5],
        };
        let batch = collate_packed(&[vec![&a, &b], vec![&b]], 6, 9);
        assert_eq!(batch.input_ids, [1, 2, 3, 4, 5, 9, 4, 5, 9, 9, 9, 9]);
        assert_eq!(
            batch.labels,
            [-100, 2, 3, -100, 5, -100, -100, 5, -100, -100, -100, -100]
        );
        assert_eq!(
            batch.position_ids.as_deref(),
            Some(&[0, 1, 2, 0, 1, 0, 0, 1, 0, 0, 0, 0][..])
        );
        assert_eq!(
            batch.segment_ids.as_deref(),
            Some(&[1, 1, 1, 2, 2, 0, 1, 1, 0, 0, 0, 0][..])
        );
        assert_eq!((batch.token_count(), batch.label_count()), (7, 4));
    }
}
