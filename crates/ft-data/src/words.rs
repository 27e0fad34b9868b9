//! The words of a text, to which tags belong.
//!
//! A word is a run of letters and digits with their marks. Any other character that is not blank is a word of its own, and so is
//! each letter of a script that puts no blanks between words: Han, Kana, Thai, Lao, Burmese, Khmer.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// Letters of scripts without blanks.
const WITHOUT_BLANKS: [(char, char); 11] = [
    ('\u{0e00}', '\u{0eff}'),   // Thai, Lao
    ('\u{1000}', '\u{109f}'),   // Burmese
    ('\u{1780}', '\u{17ff}'),   // Khmer
    ('\u{3040}', '\u{30ff}'),   // Hiragana, Katakana
    ('\u{31f0}', '\u{31ff}'),   // Katakana
    ('\u{3400}', '\u{4dbf}'),   // Han
    ('\u{4e00}', '\u{9fff}'),   // Han
    ('\u{a9e0}', '\u{a9ff}'),   // Burmese
    ('\u{f900}', '\u{faff}'),   // Han
    ('\u{ff66}', '\u{ff9f}'),   // Katakana
    ('\u{20000}', '\u{3ffff}'), // Han
];

/// The places of the words of a text in bytes.
pub(crate) fn words_of(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut open = false;
    // A cluster is a character with its marks.
    for (place, cluster) in text.grapheme_indices(true) {
        let end = place + cluster.len();
        let first = cluster.chars().next().unwrap_or(' ');
        let letter = first.is_alphanumeric();
        let alone = (WITHOUT_BLANKS.iter()).any(|(from, to)| (*from..=*to).contains(&first));
        match words.last_mut() {
            Some(word) if open && letter && !alone => word.end = end,
            _ if !first.is_whitespace() => words.push(place..end),
            _ => {}
        }
        open = letter && !alone;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        words_of(text)
            .into_iter()
            .map(|place| &text[place])
            .collect()
    }

    #[test]
    fn letters_and_digits_run_together_and_other_characters_stand_alone() {
        assert_eq!(words("Ünder X2, 5 €!"), ["Ünder", "X2", ",", "5", "€", "!"]);
    }

    #[test]
    fn scripts_without_blanks_have_a_word_for_each_letter() {
        assert_eq!(words("我住在2号"), ["我", "住", "在", "2", "号"]);
        assert_eq!(words("カメラ と"), ["カ", "メ", "ラ", "と"]);
        // Vowels and tone marks above and below belong to their consonant.
        assert_eq!(words("ที่นี่"), ["ที่", "นี่"]);
    }

    /// `é` as a letter and a mark, and a conjunct of Devanagari, whose virama is no letter.
    #[test]
    fn marks_do_not_divide_words() {
        assert_eq!(words("cafe\u{301}s x"), ["cafe\u{301}s", "x"]);
        assert_eq!(words("नमस्ते दुनिया"), ["नमस्ते", "दुनिया"]);
    }
}
