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
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches(|c| !is_of_word(c));
            if rest.is_empty() {
                break;
            }
            if !words.text.is_empty() {
                words.text.push(' ');
            }
            let begin = words.text.len();
            rest = words.push(rest);
            words.ranges.push(begin..words.text.len());
        }
        words
    }

    /// Adds the word that a text begins with. Returns the rest.
    fn push<'a>(&mut self, text: &'a str) -> &'a str {
        let mut rest = text;
        loop {
            let ascii =
                (rest.bytes()).take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
            let (word, behind) = rest.split_at(ascii.count());
            let begin = self.text.len();
            self.text.push_str(word);
            self.text[begin..].make_ascii_lowercase();
            match behind.chars().next() {
                Some(c) if !c.is_ascii() && c.is_alphanumeric() => {
                    self.text.extend(c.to_lowercase());
                    rest = &behind[c.len_utf8()..];
                }
                _ => return behind,
            }
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

fn is_of_word(c: char) -> bool {
    match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || c == '_',
        false => c.is_alphanumeric(),
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
