//! Classes of characters in Python's `str` and `re` that differ from Rust's.

use std::sync::OnceLock;

use regex::Regex;

/// `str.isspace`, and `\s` of `re`: Unicode's white space and the four separators before the space.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `\w` of `re`: letters, numbers and the underscore. Unlike in `\w` of the crate `regex`, marks are not included.
pub(crate) fn is_word(c: char) -> bool {
    static LETTER_OR_NUMBER: OnceLock<Regex> = OnceLock::new();
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    LETTER_OR_NUMBER
        .get_or_init(|| Regex::new(r"[\p{L}\p{N}]").expect("a constant pattern"))
        .is_match(c.encode_utf8(&mut [0; 4]))
}

/// `str.split()`.
pub(crate) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_not_word_characters_and_separators_are_space() {
        assert!(is_word('é') && is_word('字') && is_word('²') && is_word('_'));
        assert!(!is_word('\u{301}') && !is_word('Ⓐ') && !is_word('-'));
        let words: Vec<&str> = split("a\u{1c}b\u{a0}\u{a0}c ").collect();
        assert_eq!(words, ["a", "b", "c"]);
    }
}
