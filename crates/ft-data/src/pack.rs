//! Grouping of documents into rows: best-fit decreasing bin packing.
//!
//! The longest documents come first, and each goes into the fullest row that has room for it. This
//! needs at most 11/9 of the fewest possible rows plus one (Johnson, 1973). In practice rows have
//! almost no padding, and no document is cut (Ding et al., 2024, arXiv:2404.10830).

use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Rows of indices into `lengths`. The lengths of a row add up to at most `capacity`.
///
/// Documents of equal length are taken in the order of `order`. A row holds documents in the order in
/// which they were placed. A document longer than `capacity` gets its own row.
pub(crate) fn best_fit_decreasing(
    lengths: &[usize],
    order: Vec<usize>,
    capacity: usize,
) -> Vec<Vec<usize>> {
    let mut order = order;
    order.sort_by_key(|&index| Reverse(lengths[index]));
    let mut rows: Vec<Vec<usize>> = Vec::new();
    // Rows with room left, as (room, row), the least room first.
    let mut open: BTreeSet<(usize, usize)> = BTreeSet::new();
    for index in order {
        let length = lengths[index];
        let best = open.range((length, 0)..).next().copied();
        let (room, row) = match best {
            Some(found) => {
                open.remove(&found);
                found
            }
            None => {
                rows.push(Vec::new());
                (capacity.max(length), rows.len() - 1)
            }
        };
        rows[row].push(index);
        if room > length {
            open.insert((room - length, row));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
        best_fit_decreasing(lengths, (0..lengths.len()).collect(), capacity)
    }

    #[test]
    fn each_document_goes_where_least_room_is_left() {
        // 7 opens row 0 (3 left), 6 opens row 1 (4 left), 4 fills row 1, 3 fills row 0, 2 opens row 2.
        assert_eq!(
            pack(&[3, 7, 2, 4, 6], 10),
            [vec![1, 0], vec![4, 3], vec![2]]
        );
    }

    #[test]
    fn every_document_is_in_one_row_and_no_row_overflows() {
        let lengths: Vec<usize> = (0..200).map(|i| 1 + (i * 37) % 61).collect();
        let rows = pack(&lengths, 64);
        let mut seen: Vec<usize> = rows.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        for row in &rows {
            assert!(row.iter().map(|&i| lengths[i]).sum::<usize>() <= 64);
        }
        let total: usize = lengths.iter().sum();
        assert!(rows.len() <= total.div_ceil(64) * 11 / 9 + 1);
    }

    #[test]
    fn nothing_to_pack_gives_no_rows() {
        assert!(pack(&[], 8).is_empty());
    }
}
