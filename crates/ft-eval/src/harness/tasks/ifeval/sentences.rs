//! Counts the sentences of a text by rules.
//!
//! A sentence ends at `.`, `!` or `?` (and closing quotation marks and brackets) before white space or the end, unless the
//! full stop belongs to an abbreviation, to an initial, or to a number before a lower-case word. NLTK's Punkt learned its
//! abbreviations from newspapers; on everyday English both counts are equal.

use crate::text::python_characters::is_space;

const ABBREVIATIONS: [&str; 40] = [
    "mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "co", "inc", "ltd", "corp", "vs", "gen",
    "col", "capt", "lt", "sgt", "gov", "sen", "rep", "rev", "hon", "jan", "feb", "mar", "apr",
    "aug", "sept", "oct", "nov", "dec", "e.g", "i.e", "u.s", "u.k", "a.m", "p.m", "ph.d", "no",
];

pub(super) fn count_sentences(text: &str) -> usize {
    let words: Vec<&str> = text
        .split(is_space)
        .filter(|word| !word.is_empty())
        .collect();
    let ends = |i: usize| {
        let word =
            words[i].trim_end_matches(['"', '\'', ')', ']', '}', '\u{201d}', '\u{2019}', '*', '_']);
        match word.chars().next_back() {
            Some('!' | '?') => true,
            Some('.') => !belongs_to_word(word, words.get(i + 1)),
            _ => false,
        }
    };
    // The text after the last end is a sentence too.
    (0..words.len())
        .filter(|i| ends(*i) || i + 1 == words.len())
        .count()
}

/// Whether a full stop is part of the word.
fn belongs_to_word(word: &str, next: Option<&&str>) -> bool {
    let Some(next) = next else {
        return false;
    };
    let bare = word
        .trim_end_matches('.')
        .trim_start_matches(['"', '\'', '(', '[', '*', '\u{201c}']);
    let lower_next = next.chars().next().is_some_and(char::is_lowercase);
    let lower = bare.to_lowercase();
    let initial = bare.chars().count() == 1 && bare.chars().all(char::is_uppercase) && bare != "I";
    let dotted = bare.contains('.') && bare.chars().all(|c| c.is_alphabetic() || c == '.');
    let number = bare.chars().all(|c| c.is_ascii_digit());
    match () {
        () if ["e.g", "i.e"].contains(&lower.as_str()) => true,
        () if initial => true,
        () if dotted || number => lower_next,
        () => {
            ABBREVIATIONS.contains(&lower.as_str()) && lower != "no"
                || lower == "no" && next.starts_with(|c: char| c.is_ascii_digit())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::count_sentences;

    #[test]
    fn sentences_end_at_full_stops_but_not_at_abbreviations() {
        for (text, count) in [
            ("", 0),
            ("No end", 1),
            ("One. Two! Three?", 3),
            ("Mr. Smith met Dr. J. Jones. They left.", 2),
            ("It costs 3.50 dollars. Cheap", 2),
            ("\"Stop!\" he said. (Why?) Because.", 4),
            ("At 5 p.m. we met. E.g. here.", 2),
            ("Wait... what? Yes.", 3),
        ] {
            assert_eq!(count_sentences(text), count, "{text}");
        }
    }
}
