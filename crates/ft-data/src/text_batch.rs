//! Tokens of texts as a model reads them, without padding where the device allows it.
//!
//! Two layouts: one row that holds all texts one after the other, each a segment of its own that attention does not leave;
//! or one row a text, padded on the right. The first computes nothing for padding. It needs attention that works in tiles,
//! which ft-kernels has on the CPU.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::TokenBatch;

/// How texts are laid out in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextLayout {
    /// All texts in one row, each a segment: nothing is computed for padding. For models and devices whose attention works in
    /// tiles ([`Backbone::attends_by_tile`](ft_core::Backbone::attends_by_tile)).
    Packed,
    /// A row a text, filled up with this id.
    Padded(u32),
}

impl TextLayout {
    /// Texts as a batch.
    ///
    /// # Panics
    ///
    /// If no token of a text counts.
    pub fn batch(self, texts: &[&TextTokens]) -> TextBatch {
        match self {
            Self::Packed => TextBatch::packed(texts),
            Self::Padded(id) => TextBatch::padded(texts, id),
        }
    }
}

/// The numbers of texts in batches, the longest texts first. A batch has about `tokens` tokens, padding included if it has any
/// (`packed` is false).
pub fn by_length(texts: &[TextTokens], tokens: usize, packed: bool) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&text| std::cmp::Reverse(texts[text].ids.len()));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut count = 0;
    for text in order {
        let own = texts[text].ids.len();
        let grown = match (packed, batches.last()) {
            (false, Some(batch)) => (batch.len() + 1) * texts[batch[0]].ids.len(),
            _ => count + own,
        };
        match batches.last_mut() {
            Some(batch) if grown <= tokens => {
                batch.push(text);
                count = grown;
            }
            _ => {
                batches.push(vec![text]);
                count = own;
            }
        }
    }
    batches
}

/// The ids of a text, and how many of them are those of its prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextTokens {
    /// Token ids, with special ones.
    pub ids: Vec<u32>,
    /// How many of the first ones do not count in pooling.
    pub skipped: usize,
    /// 0 for tokens of the first text of a pair and 1 for those of the second. Empty if the model has no token types.
    pub type_ids: Vec<u32>,
}

/// A batch of tokenized texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextBatch {
    input_ids: Vec<i64>,
    position_ids: Vec<i64>,
    segment_ids: Vec<i64>,
    type_ids: Vec<i64>,
    rows: usize,
    seq: usize,
    /// Where the tokens of each text are, counted over all rows.
    places: Vec<Range<usize>>,
    /// How many of the first tokens of each text do not count in pooling.
    skipped: Vec<usize>,
}

impl TextBatch {
    /// All texts in one row.
    ///
    /// # Panics
    ///
    /// If no token of a text counts.
    pub fn packed(texts: &[&TextTokens]) -> Self {
        let total = texts.iter().map(|text| text.ids.len()).sum();
        let mut batch = Self::empty(1, total, texts);
        for (number, text) in texts.iter().enumerate() {
            let start = batch.input_ids.len();
            batch.push(text, number as i64 + 1);
            batch.places.push(start..start + text.ids.len());
        }
        batch
    }

    /// Each text in a row of its own, filled up with `padding`.
    ///
    /// # Panics
    ///
    /// If no token of a text counts.
    pub fn padded(texts: &[&TextTokens], padding: u32) -> Self {
        let lengths = texts.iter().map(|text| text.ids.len());
        let seq = lengths.max().unwrap_or(0);
        let mut batch = Self::empty(texts.len(), seq, texts);
        for (number, text) in texts.iter().enumerate() {
            let length = text.ids.len();
            batch.push(text, 1);
            for position in length..seq {
                batch.input_ids.push(i64::from(padding));
                batch.position_ids.push(position as i64);
                batch.segment_ids.push(0);
                batch.type_ids.push(0);
            }
            batch.places.push(number * seq..number * seq + length);
        }
        batch
    }

    fn empty(rows: usize, seq: usize, texts: &[&TextTokens]) -> Self {
        for (number, text) in texts.iter().enumerate() {
            assert!(
                text.ids.len() > text.skipped,
                "text {number} has {} tokens, none of which counts in pooling",
                text.ids.len()
            );
        }
        let room = || Vec::with_capacity(rows * seq);
        Self {
            input_ids: room(),
            position_ids: room(),
            segment_ids: room(),
            type_ids: room(),
            rows,
            seq,
            places: Vec::with_capacity(texts.len()),
            skipped: texts.iter().map(|text| text.skipped).collect(),
        }
    }

    fn push(&mut self, text: &TextTokens, segment: i64) {
        for (position, &id) in text.ids.iter().enumerate() {
            self.input_ids.push(i64::from(id));
            self.position_ids.push(position as i64);
            self.segment_ids.push(segment);
            let kind = text.type_ids.get(position).copied().unwrap_or(0);
            self.type_ids.push(i64::from(kind));
        }
    }

    /// The number of texts.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The number of tokens, padding not counted.
    pub fn token_count(&self) -> usize {
        self.places.iter().map(ExactSizeIterator::len).sum()
    }

    /// The number of tokens, padding counted.
    pub fn slots(&self) -> usize {
        self.rows * self.seq
    }

    /// Where the tokens of each text are among those of all rows.
    pub fn places(&self) -> &[Range<usize>] {
        &self.places
    }

    /// Where those tokens of a text are that count in pooling.
    pub fn pooled(&self, text: usize) -> Range<usize> {
        let place = &self.places[text];
        place.start + self.skipped[text]..place.end
    }

    /// The inputs of the model.
    pub fn tokens(&self, device: &Device) -> TokenBatch {
        let tensor = |numbers: &Vec<i64>| {
            let data = TensorData::new(numbers.clone(), [self.rows, self.seq]);
            Tensor::<2, Int>::from_data(data, device)
        };
        let alike = self.segment_ids.iter().all(|&segment| segment == 1);
        TokenBatch {
            input_ids: tensor(&self.input_ids),
            position_ids: Some(tensor(&self.position_ids)),
            segment_ids: (!alike).then(|| tensor(&self.segment_ids)),
            token_type_ids: (self.type_ids.iter().any(|&kind| kind != 0))
                .then(|| tensor(&self.type_ids)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_texts_follow_each_other_and_padded_ones_have_rows() {
        let texts = [(vec![5u32, 6, 7], 1), (vec![8], 0)];
        let texts = texts.map(|(ids, skipped)| TextTokens {
            ids,
            skipped,
            ..TextTokens::default()
        });
        let texts = [&texts[0], &texts[1]];
        let packed = TextBatch::packed(&texts);
        assert_eq!(packed.input_ids, [5, 6, 7, 8]);
        assert_eq!(packed.position_ids, [0, 1, 2, 0]);
        assert_eq!(packed.segment_ids, [1, 1, 1, 2]);
        assert_eq!(packed.places, [0..3, 3..4]);
        assert_eq!((packed.pooled(0), packed.pooled(1)), (1..3, 3..4));
        let padded = TextBatch::padded(&texts, 9);
        assert_eq!(padded.input_ids, [5, 6, 7, 8, 9, 9]);
        assert_eq!(padded.segment_ids, [1, 1, 1, 1, 0, 0]);
        assert_eq!(padded.places, [0..3, 3..4]);
        assert_eq!((packed.token_count(), padded.token_count()), (4, 4));
    }

    #[test]
    #[should_panic(expected = "text 0 has 2 tokens")]
    fn nothing_to_pool_is_a_mistake() {
        let ids = vec![1, 2];
        TextBatch::packed(&[&TextTokens {
            ids,
            skipped: 2,
            ..TextTokens::default()
        }]);
    }

    #[test]
    fn batches_have_the_longest_texts_first_and_a_bounded_number_of_tokens() {
        let lengths = [3, 10, 1, 5, 5, 4];
        let texts = lengths.map(|length| TextTokens {
            ids: vec![0; length],
            ..TextTokens::default()
        });
        let batches = by_length(&texts, 10, true);
        assert_eq!(batches, [vec![1], vec![3, 4], vec![5, 0, 2]]);
        let whole = by_length(&texts, 1000, true);
        assert_eq!(whole, [vec![1, 3, 4, 5, 0, 2]]);
    }
}
