//! The words of ROUGE, and ids for them.

use std::collections::HashMap;
use std::sync::OnceLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::porter_stemmer::porter_stem;

/// The definition of a word for ROUGE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RougeWords {
    /// The definition of rouge_score: the text is lower-cased, and runs of `[a-z0-9]` are words. All other characters are
    /// separators, so a text in Cyrillic or Chinese has no words and scores 0.
    #[default]
    Ascii,
    /// For all scripts, an addition: the text is lower-cased, runs of letters, digits and their marks are words, and each
    /// Chinese character and each Japanese kana is a word. Equals `Ascii` on texts in ASCII. Thai, Lao, Khmer and Burmese,
    /// which have no spaces either, are not segmented. Composed and decomposed accents differ: normalise texts first.
    Unicode,
}

impl RougeWords {
    /// The words of a text.
    ///
    /// ```
    /// use ft_eval::text::RougeWords;
    ///
    /// assert_eq!(RougeWords::Ascii.words("Don't: café 3"), ["don", "t", "caf", "3"]);
    /// assert_eq!(RougeWords::Unicode.words("Don't: café 北京"), ["don", "t", "café", "北", "京"]);
    /// ```
    pub fn words(self, text: &str) -> Vec<String> {
        let text = text.to_lowercase();
        self.cut(&text).into_iter().map(str::to_owned).collect()
    }

    /// The words of a text in lower case.
    fn cut(self, lower: &str) -> Vec<&str> {
        match self {
            Self::Ascii => lower
                .split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()))
                .filter(|word| !word.is_empty())
                .collect(),
            Self::Unicode => unicode_word()
                .find_iter(lower)
                .map(|found| found.as_str())
                .collect(),
        }
    }
}

fn unicode_word() -> &'static Regex {
    static WORD: OnceLock<Regex> = OnceLock::new();
    WORD.get_or_init(|| {
        // The prolonged sound mark and the half-width voicing marks belong to several scripts.
        let alone = r"\p{Han}\p{Hiragana}\p{Katakana}\u{30FC}\u{FF70}";
        let pattern = format!(
            r"[{alone}][\p{{M}}\u{{FF9E}}\u{{FF9F}}]*|[\p{{L}}\p{{M}}\p{{N}}&&[^{alone}]]+"
        );
        Regex::new(&pattern).expect("a constant pattern")
    })
}

/// Ids for words, the same for words with the same stem.
pub(crate) struct WordNumbers<'a> {
    by_word: HashMap<&'a str, u32>,
    by_stem: HashMap<String, u32>,
    stem: bool,
    /// The ids so far.
    pub kinds: usize,
}

impl<'a> WordNumbers<'a> {
    pub(crate) fn new(stem: bool) -> Self {
        Self {
            by_word: HashMap::new(),
            by_stem: HashMap::new(),
            stem,
            kinds: 0,
        }
    }

    /// The words of each line of a text in lower case.
    pub(crate) fn lines(&mut self, lower: &'a str, words: RougeWords) -> Vec<Vec<u32>> {
        lower
            .split('\n')
            .map(|line| {
                let words = words.cut(line);
                words.into_iter().map(|word| self.number(word)).collect()
            })
            .collect()
    }

    fn number(&mut self, word: &'a str) -> u32 {
        if let Some(number) = self.by_word.get(word) {
            return *number;
        }
        let next = self.kinds as u32;
        let number = if self.stem {
            // rouge_score stems words of more than three characters.
            let stem = match word.chars().nth(3) {
                Some(_) => porter_stem(word),
                None => word.to_owned(),
            };
            *self.by_stem.entry(stem).or_insert(next)
        } else {
            next
        };
        self.kinds += usize::from(number == next);
        self.by_word.insert(word, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unicode_words_keep_marks_and_cut_east_asian_scripts() {
        for (text, words) in [
            ("हिन्दी में", "हिन्दी में"),
            ("Привет, МИР!", "привет мир"),
            ("ラーメン 2杯", "ラ ー メ ン 2 杯"),
            ("か\u{3099} ﾊﾞ", "か\u{3099} ﾊﾞ"),
            ("한국어 cafe\u{301}", "한국어 cafe\u{301}"),
            ("a_b-c", "a b c"),
        ] {
            assert_eq!(RougeWords::Unicode.words(text).join(" "), words, "{text}");
        }
    }

    #[test]
    fn a_letter_that_lower_cases_into_ascii_counts() {
        // The Kelvin sign, and a capital I with a dot: "i" and a mark, which is a separator.
        assert_eq!(
            RougeWords::Ascii.words("5\u{212a} \u{130}x"),
            ["5k", "i", "x"]
        );
    }
}
