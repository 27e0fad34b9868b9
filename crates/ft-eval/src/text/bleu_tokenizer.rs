//! The tokenizers of BLEU: those of sacreBLEU that need no model.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use regex::Regex;

use super::python_characters::{is_space, split};
use crate::Error;

/// A tokenizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BleuTokenizer {
    /// Words are separated by white space.
    None,
    /// The tokenizer of mteval-v13a, used by WMT: punctuation is separated, except in numbers; XML entities are decoded.
    #[default]
    V13a,
    /// The tokenizer of mteval-v14, for any script: punctuation (`\p{P}`), except between numbers, and symbols (`\p{S}`) are
    /// separated.
    International,
    /// Every character is a word.
    Char,
    /// Chinese characters are separated; the rest is as in `13a`.
    Zh,
}

impl BleuTokenizer {
    /// The words of a text.
    pub fn words(self, text: &str) -> Vec<String> {
        let text = self.tokenize(text);
        split(&text).map(str::to_string).collect()
    }

    /// The text with white space between its words.
    pub(super) fn tokenize(self, text: &str) -> Cow<'_, str> {
        match self {
            BleuTokenizer::None => text.into(),
            BleuTokenizer::V13a => western(&format!(" {} ", plain_line(text))).into(),
            BleuTokenizer::International => international(text),
            BleuTokenizer::Char => text.chars().flat_map(|c| [c, ' ']).collect(),
            BleuTokenizer::Zh => western(&apart(text.trim_matches(is_space), is_chinese)).into(),
        }
    }
}

impl fmt::Display for BleuTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BleuTokenizer::None => "none",
            BleuTokenizer::V13a => "13a",
            BleuTokenizer::International => "intl",
            BleuTokenizer::Char => "char",
            BleuTokenizer::Zh => "zh",
        })
    }
}

impl FromStr for BleuTokenizer {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Ok(match name {
            "none" => BleuTokenizer::None,
            "13a" => BleuTokenizer::V13a,
            "intl" => BleuTokenizer::International,
            "char" => BleuTokenizer::Char,
            "zh" => BleuTokenizer::Zh,
            _ => {
                return Err(Error::Input(format!(
                    "there is no tokenizer {name} of BLEU: use none, 13a, intl, char or zh"
                )));
            }
        })
    }
}

/// Joins lines and decodes XML entities.
fn plain_line(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    let mut replace = |from: &str, to: &str| {
        if text.contains(from) {
            text = text.replace(from, to).into();
        }
    };
    replace("<skipped>", "");
    replace("-\n", "");
    replace("\n", " ");
    // In this order: `&amp;lt;` becomes `<`.
    for (from, to) in ENTITIES {
        replace(from, to);
    }
    text
}

/// XML entities and their characters.
pub(super) const ENTITIES: [(&str, &str); 4] = [
    ("&quot;", "\""),
    ("&amp;", "&"),
    ("&lt;", "<"),
    ("&gt;", ">"),
];

/// Separates ASCII punctuation and symbols, except the apostrophe; full stop and comma unless there is a digit on that
/// side; the hyphen after a digit.
pub(super) fn western(text: &str) -> String {
    periods_and_dashes(&apart(text, is_western_symbol))
}

/// ASCII punctuation and symbols except `'`, `,`, `-`, `.`, and the space.
pub(super) fn is_western_symbol(c: char) -> bool {
    matches!(c, ' '..='&' | '('..='+' | '/' | ':'..='@' | '['..='`' | '{'..='~')
}

/// Full stop, comma and hyphen.
pub(super) fn periods_and_dashes(text: &str) -> String {
    let bytes = after_no_digit(text.as_bytes());
    let bytes = before_no_digit(&bytes);
    let bytes = dash_after_digit(&bytes);
    String::from_utf8(bytes).expect("spaces between whole characters")
}

/// Puts spaces around characters of a kind.
pub(super) fn apart(text: &str, kind: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    for c in text.chars() {
        if kind(c) {
            out.push(' ');
            out.push(c);
            out.push(' ');
        } else {
            out.push(c);
        }
    }
    out
}

fn is_period(byte: u8) -> bool {
    matches!(byte, b'.' | b',')
}

/// `([^0-9])([.,])` becomes `\1 \2 `. A period's neighbour of several bytes is as little a digit as its last or
/// first byte.
fn after_no_digit(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 8);
    let mut i = 0;
    while i < text.len() {
        match text.get(i + 1) {
            Some(&next) if is_period(next) && !text[i].is_ascii_digit() => {
                out.extend([text[i], b' ', next, b' ']);
                i += 2;
            }
            _ => {
                out.push(text[i]);
                i += 1;
            }
        }
    }
    out
}

/// `([.,])([^0-9])` becomes ` \1 \2`.
fn before_no_digit(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 8);
    let mut i = 0;
    while i < text.len() {
        match text.get(i + 1) {
            Some(&next) if is_period(text[i]) && !next.is_ascii_digit() => {
                out.extend([b' ', text[i], b' ', next]);
                i += 2;
            }
            _ => {
                out.push(text[i]);
                i += 1;
            }
        }
    }
    out
}

/// `([0-9])(-)` becomes `\1 \2 `.
fn dash_after_digit(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 8);
    for (i, &byte) in text.iter().enumerate() {
        if byte == b'-' && i > 0 && text[i - 1].is_ascii_digit() {
            out.extend(b" - ");
        } else {
            out.push(byte);
        }
    }
    out
}

fn international(text: &str) -> Cow<'_, str> {
    static RULES: LazyLock<[(Regex, &str); 3]> = LazyLock::new(|| {
        let rules = [
            (r"(?s)(\P{N})(\p{P})", "$1 $2 "),
            (r"(?s)(\p{P})(\P{N})", " $1 $2"),
            (r"(\p{S})", " $1 "),
        ];
        rules.map(|(pattern, to)| (Regex::new(pattern).expect("a constant pattern"), to))
    });
    let mut text = Cow::Borrowed(text);
    for (pattern, to) in RULES.iter() {
        if let Cow::Owned(replaced) = pattern.replace_all(&text, *to) {
            text = replaced.into();
        }
    }
    text
}

/// The characters that sacreBLEU treats as Chinese: ideographs and many others.
///
/// Its ranges above U+FFFF are written with four digits and a fifth character, so they begin at U+2001 and U+2F81 and
/// include general punctuation, arrows and mathematical signs.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4db5}'
        | '\u{4e00}'..='\u{9fbb}'
        | '\u{f900}'..='\u{fa2d}'
        | '\u{fa30}'..='\u{fa6a}'
        | '\u{fa70}'..='\u{fad9}'
        | '\u{2001}'..='\u{2a6d}'
        | '\u{2f81}'..='\u{2fa1}'
        | '\u{ff00}'..='\u{ffef}'
        | '\u{2e80}'..='\u{2eff}'
        | '\u{3000}'..='\u{303f}'
        | '\u{31c0}'..='\u{31ef}'
        | '\u{2f00}'..='\u{2fdf}'
        | '\u{2ff0}'..='\u{2fff}'
        | '\u{3100}'..='\u{312f}'
        | '\u{31a0}'..='\u{31bf}'
        | '\u{fe10}'..='\u{fe1f}'
        | '\u{fe30}'..='\u{fe4f}'
        | '\u{3200}'..='\u{33ff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_each_tokenizer() {
        let words = |tokenizer: BleuTokenizer, text| tokenizer.words(text).join("|");
        let text = "It's 3.5, \"ok\"—x.";
        assert_eq!(words(BleuTokenizer::None, text), "It's|3.5,|\"ok\"—x.");
        assert_eq!(words(BleuTokenizer::V13a, text), "It's|3.5|,|\"|ok|\"|—x|.");
        assert_eq!(
            words(BleuTokenizer::International, text),
            "It|'|s|3.5|,|\"|ok|\"|—|x|."
        );
        assert_eq!(words(BleuTokenizer::Char, "a b"), "a|b");
        assert_eq!(words(BleuTokenizer::Zh, "我a们。b"), "我|a|们|。|b");
        assert_eq!(words(BleuTokenizer::V13a, "end-\nof &amp;lt;"), "endof|<");
    }

    #[test]
    fn names_are_read_back() {
        for name in ["none", "13a", "intl", "char", "zh"] {
            assert_eq!(
                name.parse::<BleuTokenizer>().expect("a name").to_string(),
                name
            );
        }
        assert!("moses".parse::<BleuTokenizer>().is_err());
    }
}
