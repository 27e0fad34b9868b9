//! Words of a text, and the n-grams of words.

use std::ops::Range;

/// A text in lower case whose words, runs of letters, digits and underscores, are separated by one space.
pub(super) struct Words {
    text: String,
    ranges: Vec<Range<usize>>,
}

impl Words {
    pub(super) fn of(text: &str) -> Self {
        let mut words = Self {
            text: String::with_capacity(text.len()),
            ranges: Vec::with_capacity(text.len() / 5),
        };
        let mut begin = None;
        for character in text.chars() {
            if character.is_alphanumeric() || character == '_' {
                if begin.is_none() {
                    if !words.text.is_empty() {
                        words.text.push(' ');
                    }
                    begin = Some(words.text.len());
                }
                match character.is_ascii() {
                    true => words.text.push(character.to_ascii_lowercase()),
                    false => words.text.extend(character.to_lowercase()),
                }
            } else if let Some(begin) = begin.take() {
                words.ranges.push(begin..words.text.len());
            }
        }
        if let Some(begin) = begin {
            words.ranges.push(begin..words.text.len());
        }
        words
    }

    /// How many words there are.
    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The whole text.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Every run of `n` words.
    pub(super) fn ngrams(&self, n: usize) -> impl Iterator<Item = &str> {
        let runs = self.ranges.windows(n.max(1));
        runs.map(|run| &self.text[run[0].start..run[run.len() - 1].end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ngrams_do_not_depend_on_case_punctuation_and_space() {
        let words = Words::of("  Über-Größe: \"a_1\"\n(x)!");
        assert_eq!(
            words.ngrams(1).collect::<Vec<_>>(),
            ["über", "größe", "a_1", "x"]
        );
        assert_eq!(
            words.ngrams(3).collect::<Vec<_>>(),
            ["über größe a_1", "größe a_1 x"]
        );
        assert_eq!(words.ngrams(5).count(), 0);
        assert_eq!(Words::of(" .-").len(), 0);
    }
}
