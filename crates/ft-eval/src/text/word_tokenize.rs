//! NLTK's words of a sentence.
//!
//! A sequence of replacements that put spaces around words: the tokenizer of the Penn Treebank (Robert MacIntyre's sed
//! script, 1995) with NLTK's additions for quotes, dashes and final periods. The words are not always parts of the
//! text: `"` becomes two backquotes or two apostrophes.
//!
//! Equals `nltk.word_tokenize(text, preserve_line=True)` of NLTK 3.10. Without `preserve_line` NLTK first splits
//! sentences with Punkt, a trained model, which is not implemented here. The result is the same for a text of one
//! sentence. In a text with several sentences, only the last period is separated here.

use std::borrow::Cow;
use std::sync::OnceLock;

use regex::{Captures, Regex};

use super::python_characters::{is_space, is_word, split};

/// The replacements before the spaces around the text, up to the one of apostrophes.
const OPENING: &[(&str, &str)] = &[
    ("([«“‘„]|`+)", " $1 "),
    ("\\A\"", "``"),
    ("``", " `` "),
    ("([ (\\[{<])(\"|'{2})", "$1 `` "),
];

const PUNCTUATION: &[(&str, &str)] = &[
    (r#"([^.])(\.)([\])}>"'»”’ ]*)\s*\z"#, "$1 $2 $3 "),
    (r"([:,])(\D)", " $1 $2"),
    // Python's $ also matches before a final line break.
    (r"([:,])(\n?)\z", " $1 $2"),
    (r"\.{2,}", " $0 "),
    (r"[;@#$%&]", " $0 "),
    (r"[\u{2012}-\u{2015}]", " $0 "),
    (r#"([^.])(\.)([\])}>"']*)\s*\z"#, "$1 $2$3 "),
    (r"[?!]", " $0 "),
    (r"([^'])' ", "$1 ' "),
    (r"[*]", " $0 "),
    (r"[\]\[(){}<>]", " $0 "),
    (r"--", " -- "),
];

const CLOSING: &[(&str, &str)] = &[
    ("[»”’]", " $0 "),
    ("''", " '' "),
    ("\"", " '' "),
    (r"\s+", " "),
    (r"([^' ])('[sSmMdD]|') ", "$1 $2 "),
    (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "$1 $2 "),
];

/// Contractions of two words. Python's `re` treats the dotless and the dotted i as an i.
const CONTRACTIONS: &[(&str, After)] = &[
    ("(?i)(can)(not)", After::Boundary),
    ("(?i)(d)('ye)", After::Boundary),
    ("(?i)(g[iıİ]m)(me)", After::Boundary),
    ("(?i)(gon)(na)", After::Boundary),
    ("(?i)(got)(ta)", After::Boundary),
    ("(?i)(lem)(me)", After::Boundary),
    ("(?i)(more)('n)", After::Boundary),
    ("(?i)(wan)(na)", After::Space),
    ("(?i) ('t)([iıİ]s)", After::Boundary),
    ("(?i) ('t)(was)", After::Boundary),
];

/// The pattern after a contraction.
#[derive(Clone, Copy)]
enum After {
    Boundary,
    Space,
}

struct Rules {
    opening: Vec<(Regex, &'static str)>,
    clitic: Regex,
    word_character: Regex,
    punctuation: Vec<(Regex, &'static str)>,
    closing: Vec<(Regex, &'static str)>,
    contractions: Vec<(Regex, After)>,
}

fn rules() -> &'static Rules {
    static RULES: OnceLock<Rules> = OnceLock::new();
    let regex = |pattern: &str| Regex::new(pattern).expect("a constant pattern");
    let pairs = |list: &[(&'static str, &'static str)]| {
        let pairs = list.iter().map(|(pattern, to)| (regex(pattern), *to));
        pairs.collect()
    };
    RULES.get_or_init(|| Rules {
        opening: pairs(OPENING),
        clitic: regex(r"\A(?i:re|ve|ll|m|t|s|d|n)\b"),
        word_character: regex(r"\A\w\z"),
        punctuation: pairs(PUNCTUATION),
        closing: pairs(CLOSING),
        contractions: CONTRACTIONS
            .iter()
            .map(|(pattern, after)| (regex(pattern), *after))
            .collect(),
    })
}

/// The words of a sentence, as in NLTK.
///
/// ```
/// use ft_eval::text::word_tokenize;
///
/// let words = word_tokenize("\"I can't pay $3.88,\" he said.");
/// assert_eq!(words.join(" "), "`` I ca n't pay $ 3.88 , '' he said .");
/// ```
pub fn word_tokenize(sentence: &str) -> Vec<String> {
    let rules = rules();
    let mut text = sentence.to_owned();
    replace_all(&mut text, &rules.opening);
    text = open_single_quotes(&text, rules);
    replace_all(&mut text, &rules.punctuation);
    text = format!(" {text} ");
    replace_all(&mut text, &rules.closing);
    for (pattern, after) in &rules.contractions {
        let divided = divide(&text, pattern, *after);
        if let Cow::Owned(divided) = divided {
            text = divided;
        }
    }
    whitespace_words(&text)
}

/// The parts between white space, as in Python's `str.split()`.
pub fn whitespace_words(text: &str) -> Vec<String> {
    split(text).map(str::to_owned).collect()
}

fn replace_all(text: &mut String, rules: &[(Regex, &str)]) {
    for (pattern, replacement) in rules {
        if let Cow::Owned(replaced) = pattern.replace_all(text, *replacement) {
            *text = replaced;
        }
    }
}

/// Puts a space after an apostrophe that opens a quotation: one before a word, not after one, and
/// not that of 'll, 's and similar endings.
fn open_single_quotes(text: &str, rules: &Rules) -> String {
    let is_word = |c: char| rules.word_character.is_match(c.encode_utf8(&mut [0; 4]));
    let mut out = String::with_capacity(text.len());
    let mut previous = None;
    for (at, c) in text.char_indices() {
        out.push(c);
        if c == '\'' && !previous.is_some_and(is_word) {
            let rest = &text[at + 1..];
            if rest.chars().next().is_some_and(is_word) && !rules.clitic.is_match(rest) {
                out.push(' ');
            }
        }
        previous = Some(c);
    }
    out
}

/// Puts spaces around and between the halves of a contraction that stands alone.
fn divide<'a>(text: &'a str, pattern: &Regex, after: After) -> Cow<'a, str> {
    pattern.replace_all(text, |found: &Captures<'_>| {
        let whole = found.get_match();
        let before = text[..whole.start()].chars().next_back();
        let next = text[whole.end()..].chars().next();
        let starts = whole.as_str().starts_with(' ') || !before.is_some_and(is_word);
        let ends = match after {
            After::Boundary => !next.is_some_and(is_word),
            After::Space => next.is_some_and(is_space),
        };
        if starts && ends {
            format!(" {} {} ", &found[1], &found[2])
        } else {
            whole.as_str().to_owned()
        }
    })
}
