//! Edits with shifts: the words to move before the edit distance is computed, by Tercom's rules.
//!
//! The best sequence of shifts is too expensive to find. Tercom applies the best single shift repeatedly, as long as it
//! reduces the edit distance. Rules and limits are those of sacreBLEU 2.6.0.

use std::collections::HashMap;

/// The maximum number of words in a shift.
const MAX_SHIFT_SIZE: usize = 10;
/// The maximum distance of a shift, in words.
const MAX_SHIFT_DISTANCE: usize = 50;
/// The maximum distance of alignments from the diagonal.
const BEAM_WIDTH: usize = 25;
/// The maximum number of shifts that are tried.
const MAX_SHIFT_CANDIDATES: usize = 1000;

/// The number of edits that convert `prediction` to `reference`, including shifts.
pub(super) fn edits(prediction: &[&str], reference: &[&str]) -> usize {
    if reference.is_empty() {
        return prediction.len();
    }
    let mut ids = HashMap::new();
    let mut words = numbers(prediction, &mut ids);
    let reference = numbers(reference, &mut ids);
    let (mut shifts, mut tried) = (0, 0);
    loop {
        let matrix = Matrix::new(&words, &reference);
        match best_shift(&words, &reference, &matrix, &mut tried) {
            Some((gain, shifted)) if gain > 0 && tried < MAX_SHIFT_CANDIDATES => {
                words = shifted;
                shifts += 1;
            }
            _ => return shifts + matrix.distance(),
        }
    }
}

fn numbers<'a>(words: &[&'a str], ids: &mut HashMap<&'a str, u32>) -> Vec<u32> {
    let mut found = Vec::with_capacity(words.len());
    for word in words {
        let next = ids.len() as u32;
        found.push(*ids.entry(word).or_insert(next));
    }
    found
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edit {
    /// Words are equal.
    Keep,
    Substitute,
    /// A word of the reference is inserted.
    Insert,
    /// A word of the prediction is deleted.
    Delete,
    Unreached,
}

/// The cost and the last edit.
type Cell = (usize, Edit);

const UNREACHED: Cell = (usize::MAX / 2, Edit::Unreached);

/// Edit distances of all beginnings of a prediction and a reference, near the diagonal.
#[derive(Clone, Debug)]
struct Matrix {
    /// A row for each number of words of the prediction.
    cells: Vec<Cell>,
    width: usize,
}

impl Matrix {
    fn new(words: &[u32], reference: &[u32]) -> Self {
        let width = reference.len() + 1;
        let mut cells = vec![UNREACHED; (words.len() + 1) * width];
        for (j, cell) in cells[..width].iter_mut().enumerate() {
            *cell = (j, Edit::Insert);
        }
        let mut matrix = Self { cells, width };
        matrix.fill(words, reference, 0);
        matrix
    }

    /// Computes the rows after the first `known` words.
    fn fill(&mut self, words: &[u32], reference: &[u32], known: usize) {
        let width = self.width;
        let ratio = match words.len() {
            0 => 1.0,
            count => reference.len() as f64 / count as f64,
        };
        // With very different lengths the beams of neighbouring rows would not overlap.
        let beam = match BEAM_WIDTH as f64 {
            beam if beam < ratio / 2.0 => (ratio / 2.0 + beam).ceil() as usize,
            _ => BEAM_WIDTH,
        };
        self.cells[(known + 1) * width..].fill(UNREACHED);
        for i in known + 1..=words.len() {
            let diagonal = (i as f64 * ratio).floor() as usize;
            let first = diagonal.saturating_sub(beam);
            let end = match i == words.len() {
                true => width,
                false => width.min(diagonal + beam),
            };
            let (above, row) = self.cells.split_at_mut(i * width);
            let above = &above[(i - 1) * width..];
            for j in first..end {
                if j == 0 {
                    row[0] = (above[0].0 + 1, Edit::Delete);
                    continue;
                }
                let (cost, edit) = match words[i - 1] == reference[j - 1] {
                    true => (0, Edit::Keep),
                    false => (1, Edit::Substitute),
                };
                // Of equal costs the first is used.
                for candidate in [
                    (above[j - 1].0 + cost, edit),
                    (above[j].0 + 1, Edit::Delete),
                    (row[j - 1].0 + 1, Edit::Insert),
                ] {
                    if row[j].0 > candidate.0 {
                        row[j] = candidate;
                    }
                }
            }
        }
    }

    fn distance(&self) -> usize {
        self.cells[self.cells.len() - 1].0
    }

    /// The places of the reference's words in the prediction, and which words of both are wrong.
    fn alignment(&self) -> Alignment {
        let rows = self.cells.len() / self.width;
        let (mut i, mut j) = (rows - 1, self.width - 1);
        let mut edits = Vec::new();
        while i > 0 || j > 0 {
            let edit = self.cells[i * self.width + j].1;
            edits.push(edit);
            match edit {
                Edit::Keep | Edit::Substitute => (i, j) = (i - 1, j - 1),
                Edit::Insert => j -= 1,
                // The beam always contains a path, so every cell on the path is reached.
                Edit::Delete | Edit::Unreached => i -= 1,
            }
        }
        let mut alignment = Alignment::default();
        for edit in edits.into_iter().rev() {
            let wrong = edit != Edit::Keep;
            if edit != Edit::Insert {
                alignment.wrong_words.push(wrong);
            }
            if edit != Edit::Delete {
                alignment.wrong_references.push(wrong);
                // The number of words of the prediction at or before it.
                alignment.ends.push(alignment.wrong_words.len());
            }
        }
        alignment
    }
}

#[derive(Clone, Debug, Default)]
struct Alignment {
    wrong_words: Vec<bool>,
    wrong_references: Vec<bool>,
    /// For each word of the reference the place after its aligned word of the prediction.
    ends: Vec<usize>,
}

/// The order of shifts: the largest gain, then the longest shift, then the first place, then the first target (negative).
type Rank = (isize, usize, isize, isize);

/// The shift with the smallest edit distance after it, and the reduction (negative for an increase).
fn best_shift(
    words: &[u32],
    reference: &[u32],
    matrix: &Matrix,
    tried: &mut usize,
) -> Option<(isize, Vec<u32>)> {
    let alignment = matrix.alignment();
    let mut best: Option<(Rank, Vec<u32>)> = None;
    let mut shifted_matrix = matrix.clone();
    for (start, at, length) in equal_runs(words, reference) {
        // Only words that are wrong on both sides are moved, and not within themselves.
        let any = |wrong: &[bool]| wrong.iter().any(|wrong| *wrong);
        if !any(&alignment.wrong_words[start..start + length])
            || !any(&alignment.wrong_references[at..at + length])
            || (start + 1..=start + length).contains(&alignment.ends[at])
        {
            continue;
        }
        let mut last = None;
        for offset in 0..=length {
            // After the word before the run, then after each of its words.
            let target = match (at + offset).checked_sub(1) {
                None => 0,
                Some(before) => match alignment.ends.get(before) {
                    Some(end) => *end,
                    None => break,
                },
            };
            if last == Some(target) {
                continue;
            }
            last = Some(target);
            let shifted = shift(words, start, length, target);
            let known = (words.iter().zip(&shifted))
                .take_while(|(a, b)| a == b)
                .count();
            let known = known.min(words.len().saturating_sub(1));
            let rows = (known + 1) * matrix.width;
            shifted_matrix.cells[..rows].copy_from_slice(&matrix.cells[..rows]);
            shifted_matrix.fill(&shifted, reference, known);
            let gain = matrix.distance() as isize - shifted_matrix.distance() as isize;
            let rank: Rank = (gain, length, -(start as isize), -(target as isize));
            *tried += 1;
            if best.as_ref().is_none_or(|(most, _)| rank > *most) {
                best = Some((rank, shifted));
            }
        }
        if *tried >= MAX_SHIFT_CANDIDATES {
            break;
        }
    }
    best.map(|((gain, ..), shifted)| (gain, shifted))
}

/// Equal sequences of words, as `(place in words, place in reference, length)`.
fn equal_runs<'a>(
    words: &'a [u32],
    reference: &'a [u32],
) -> impl Iterator<Item = (usize, usize, usize)> + 'a {
    (0..words.len()).flat_map(move |start| {
        let near = start.saturating_sub(MAX_SHIFT_DISTANCE)
            ..reference.len().min(start + MAX_SHIFT_DISTANCE + 1);
        near.flat_map(move |at| {
            let pairs = words[start..].iter().zip(&reference[at..]);
            let equal = pairs.take(MAX_SHIFT_SIZE).take_while(|(a, b)| a == b);
            (1..=equal.count()).map(move |length| (start, at, length))
        })
    })
}

/// The words after moving `length` of them, beginning at `start`, to the place before `target`.
fn shift(words: &[u32], start: usize, length: usize, target: usize) -> Vec<u32> {
    let end = start + length;
    let moved = &words[start..end];
    if target < start {
        [
            &words[..target],
            moved,
            &words[target..start],
            &words[end..],
        ]
        .concat()
    } else if target > end {
        [
            &words[..start],
            &words[end..target],
            moved,
            &words[target..],
        ]
        .concat()
    } else {
        // A target inside the run: it moves by the distance of the target from the start.
        let behind = (length + target).min(words.len());
        [
            &words[..start],
            &words[end..behind],
            moved,
            &words[behind..],
        ]
        .concat()
    }
}
