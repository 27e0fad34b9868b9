//! Words of a text, and the n-grams of words.

use std::ops::Range;

/// A text in lower case whose words, runs of letters, digits and underscores, are separated by one space.
pub(super) struct Words {
    text: String,
    ranges: Vec<Range<usize>>,
}

impl Words {
    pub(super) fn of(text: &str) -> Self {
        let mut lower: Vec<u8> = Vec::with_capacity(text.len() + 1);
        let mut ranges = Vec::with_capacity(text.len() / 5);
        let mut rest = text;
        let mut begin = 0;
        let mut end_word = |lower: &mut Vec<u8>| {
            if lower.len() > begin {
                ranges.push(begin..lower.len());
                lower.push(b' ');
                begin = lower.len();
            }
        };
        while let Some(c) = rest.chars().next() {
            if c.is_ascii() {
                let bytes = rest.as_bytes();
                let mut read = 0;
                while let Some(byte) = bytes.get(read).filter(|byte| byte.is_ascii()) {
                    match LOWER[*byte as usize] {
                        0 => end_word(&mut lower),
                        letter => lower.push(letter),
                    }
                    read += 1;
                }
                rest = &rest[read..];
            } else {
                match c.is_alphanumeric() {
                    true => c.to_lowercase().for_each(|c| {
                        lower.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    }),
                    false => end_word(&mut lower),
                }
                rest = &rest[c.len_utf8()..];
            }
        }
        end_word(&mut lower);
        lower.pop();
        Self {
            // Whole characters were copied.
            text: String::from_utf8(lower).unwrap_or_default(),
            ranges,
        }
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

/// The small letter of each ASCII letter, itself for a digit and the underscore, and 0 for all else.
const LOWER: [u8; 128] = {
    let mut lower = [0; 128];
    let mut byte: u8 = 0;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            lower[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    lower
};

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
        // A mark behind a letter is part of no word, but what a letter becomes is part of its word.
        assert_eq!(Words::of("İb—ЖЗ e\u{301}x").as_str(), "i\u{307}b жз e x");
        assert_eq!(Words::of(" .-").len(), 0);
    }

    /// By characters instead of bytes.
    #[test]
    fn words_are_runs_of_letters_digits_and_underscores() {
        let characters: Vec<char> = "aZ09_ .\n-\u{301}éÉßİ—中١²\u{1F600}".chars().collect();
        for seed in 0..500 {
            let draw = |i| ft_core::mix_seed(seed, i) as usize;
            let text: String = (0..seed % 40)
                .map(|i| characters[draw(i) % characters.len()])
                .collect();
            let of_word = |c: char| c.is_alphanumeric() || c == '_';
            let expected: Vec<String> = text
                .split(|c| !of_word(c))
                .filter(|word| !word.is_empty())
                .map(|word| word.chars().flat_map(char::to_lowercase).collect())
                .collect();
            let words = Words::of(&text);
            assert_eq!(words.ngrams(1).collect::<Vec<_>>(), expected, "{text:?}");
            assert_eq!(words.as_str(), expected.join(" "));
        }
    }
}
