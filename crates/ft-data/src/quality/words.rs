//! Words of a text, and the n-grams of words.

/// A text in lower case whose words, runs of letters, digits and underscores, are separated by one space.
pub(super) struct Words {
    text: String,
    /// Where words end in the text. The next word begins behind the space.
    ends: Vec<usize>,
}

impl Words {
    pub(super) fn of(text: &str) -> Self {
        let mut found = Found::default();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let read = match c.is_ascii() {
                true => found.read_ascii(rest.as_bytes()),
                false => {
                    found.read(c);
                    c.len_utf8()
                }
            };
            rest = &rest[read..];
        }
        found.words()
    }

    /// How many words there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The whole text.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Every run of `n` words.
    pub(super) fn ngrams(&self, n: usize) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|end| end + 1));
        let ends = self.ends.iter().skip(n.max(1) - 1);
        starts.zip(ends).map(|(start, end)| &self.text[start..*end])
    }
}

/// What was found of a text so far: words in lower case. A word that has ended has a space behind it.
#[derive(Default)]
struct Found {
    text: Vec<u8>,
    ends: Vec<usize>,
    in_word: bool,
}

/// Bytes that are read at a time.
const BLOCK: usize = 4096;

impl Found {
    /// Reads the ASCII characters that some text begins with, but not more than a block of them. Returns how many these are.
    fn read_ascii(&mut self, bytes: &[u8]) -> usize {
        let bytes = &bytes[..bytes.len().min(BLOCK)];
        let ascii = bytes.iter().position(|byte| !byte.is_ascii());
        let bytes = &bytes[..ascii.unwrap_or(bytes.len())];
        let (mut len, mut count) = (self.text.len(), self.ends.len());
        // Every byte writes to the next place, which only moves on if something is there: branches would often be predicted wrong.
        self.text.resize(len + bytes.len(), 0);
        self.ends.resize(count + bytes.len() / 2 + 1, 0);
        let (text, ends) = (&mut self.text[..], &mut self.ends[..]);
        let mut in_word = self.in_word;
        for byte in bytes {
            let letter = LOWER[*byte as usize];
            let of_word = letter != b' ';
            text[len] = letter;
            ends[count] = len;
            len += usize::from(of_word | in_word);
            count += usize::from(!of_word & in_word);
            in_word = of_word;
        }
        self.text.truncate(len);
        self.ends.truncate(count);
        self.in_word = in_word;
        bytes.len()
    }

    /// Reads a character of several bytes.
    fn read(&mut self, c: char) {
        if c.is_alphanumeric() {
            self.in_word = true;
            for c in c.to_lowercase() {
                self.text
                    .extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        } else {
            self.end_word();
        }
    }

    /// The next character is of another word.
    fn end_word(&mut self) {
        if self.in_word {
            self.in_word = false;
            self.ends.push(self.text.len());
            self.text.push(b' ');
        }
    }

    fn words(mut self) -> Words {
        self.end_word();
        // The space behind the last word.
        self.text.pop();
        Words {
            text: String::from_utf8(self.text).expect("whole characters were copied"),
            ends: self.ends,
        }
    }
}

/// The small letter of each ASCII letter, a digit or underscore itself, and a space for all else.
const LOWER: [u8; 128] = {
    let mut lower = [b' '; 128];
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
            let pairs: Vec<String> = expected.windows(2).map(|pair| pair.join(" ")).collect();
            assert_eq!(words.ngrams(2).collect::<Vec<_>>(), pairs);
        }
        // Blocks end in words and between them.
        for length in 1..7 {
            let text = format!("{} ", "x".repeat(length)).repeat(3 * BLOCK / length);
            let words = Words::of(&text);
            assert_eq!(words.as_str(), text.trim_end());
            assert!(words.ngrams(1).all(|word| word.len() == length));
        }
    }
}
