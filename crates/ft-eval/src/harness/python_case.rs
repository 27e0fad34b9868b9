//! `str.capitalize` of Python. Letters that are newer than Python's version of Unicode (14 for Python 3.11) have a
//! capital letter only here.

/// The first character in title case, and the others in lower case.
pub(super) fn capitalize(text: &str) -> String {
    let Some(first) = text.chars().next() else {
        return String::new();
    };
    // Lower case depends on the whole text: a final sigma depends on the letters before it.
    let lower = text.to_lowercase();
    let own: usize = first.to_lowercase().map(char::len_utf8).sum();
    let mut out = title(first);
    out.push_str(&lower[own..]);
    out
}

/// The title case of a character (Unicode's SpecialCasing and UnicodeData), which Rust's library
/// lacks. It is the upper case for most; a ligature keeps its further letters small, the digraphs of
/// Croatian and the Greek vowels with iota have characters of their own, and Georgian has none.
fn title(c: char) -> String {
    const CAPITAL_IOTA: char = '\u{399}';
    /// Written below the letter.
    const SMALL_IOTA: char = '\u{345}';
    let code = c as u32;
    let own = |code: u32| char::from_u32(code).unwrap_or(c).to_string();
    match c {
        '\u{1c4}'..='\u{1cc}' => own(0x1c5 + (code - 0x1c4) / 3 * 3),
        '\u{1f1}'..='\u{1f3}' => own(0x1f2),
        '\u{10d0}'..='\u{10fa}' | '\u{10fd}'..='\u{10ff}' => own(code),
        '\u{1f80}'..='\u{1faf}' => own(code | 8),
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => own(code + 9),
        '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}' => own(code),
        '\u{1fb2}' | '\u{1fb4}' | '\u{1fb7}' | '\u{1fc2}' | '\u{1fc4}' | '\u{1fc7}'
        | '\u{1ff2}' | '\u{1ff4}' | '\u{1ff7}' => c
            .to_uppercase()
            .map(|c| if c == CAPITAL_IOTA { SMALL_IOTA } else { c })
            .collect(),
        '\u{149}' => c.to_uppercase().collect(),
        _ => {
            let mut upper = c.to_uppercase();
            let first: String = upper.next().into_iter().collect();
            upper
                .flat_map(char::to_lowercase)
                .fold(first, |mut out, c| {
                    out.push(c);
                    out
                })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_capitalized_as_python_does_it() {
        for (text, expected) in [
            ("", ""),
            ("he OPENS It", "He opens it"),
            ("\u{df}A", "Ssa"),
            ("\u{fb03}X", "Ffix"),
            ("\u{1c6}\u{17d}", "\u{1c5}\u{17e}"),
            ("\u{149}A", "\u{2bc}Na"),
            ("\u{1fb3}\u{391}\u{3a3}", "\u{1fbc}\u{3b1}\u{3c2}"),
            ("\u{1fb7}A", "\u{391}\u{342}\u{345}a"),
            ("\u{1fb2}", "\u{1fba}\u{345}"),
            ("\u{1fc3}", "\u{1fcc}"),
            ("\u{1ff7}", "\u{3a9}\u{342}\u{345}"),
            ("\u{1f95}", "\u{1f9d}"),
            ("\u{390}", "\u{399}\u{308}\u{301}"),
            ("\u{10d0}\u{1c90}", "\u{10d0}\u{10d0}"),
            ("\u{130}I", "\u{130}i"),
            ("\u{3a3}", "\u{3a3}"),
            ("a\u{3a3}. \u{3a3}b", "A\u{3c2}. \u{3c3}b"),
            ("\u{587}", "\u{535}\u{582}"),
        ] {
            assert_eq!(capitalize(text), expected, "{text:?}");
        }
    }
}
