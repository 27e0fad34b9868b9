//! Whether two answers in LaTeX are the same after simple rewriting: the equality of the MATH dataset
//! (Hendrycks et al., 2021, arXiv:2103.03874).
//!
//! Only texts are compared: `\frac12`, `1/2` and `0.5` are equal, `\sqrt4` and 2 are not. If the rewriting of either answer
//! fails (`\frac` at the end, two units), both are compared without rewriting.

use std::sync::LazyLock;

use regex::Regex;

use crate::harness::python_value::is_int;

/// Whether two answers are equal.
pub(super) fn same_answer(a: &str, b: &str) -> bool {
    match (normalize(a), normalize(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Replacements, in this order, before units are removed.
const REWRITES: [(&str, &str); 10] = [
    ("\n", ""),
    (r"\!", ""),
    (r"\\", r"\"),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    (r"\left", ""),
    (r"\right", ""),
    (r"^{\circ}", ""),
    (r"^\circ", ""),
    (r"\$", ""),
];

/// The answer in a normal form; `None` if the rewriting fails.
fn normalize(answer: &str) -> Option<String> {
    let mut text = answer.to_string();
    for (from, to) in REWRITES {
        text = text.replace(from, to);
    }
    text = without_unit(&text)?.replace(r"\%", "");
    text = text.replace(" .", " 0.").replace("{.", "{0.");
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    // "x = 5" is 5.
    if let Some((name, value)) = text.split_once('=')
        && !value.contains('=')
        && name.chars().count() <= 2
    {
        text = value.to_string();
    }
    text = brace_roots(&text)?.replace(' ', "");
    text = brace_fractions(&text)?;
    if text == "0.5" {
        text = r"\frac{1}{2}".to_string();
    }
    slash_to_fraction(text)
}

/// Removes the unit on the right, `\text{ miles}`; `None` if there are two.
fn without_unit(text: &str) -> Option<&str> {
    match text.split_once(r"\text{ ") {
        None => Some(text),
        Some((_, unit)) if unit.contains(r"\text{ ") => None,
        Some((number, _)) => Some(number),
    }
}

/// `\sqrt3` to `\sqrt{3}`.
fn brace_roots(text: &str) -> Option<String> {
    let mut parts = text.split(r"\sqrt");
    let mut out = parts.next()?.to_string();
    for part in parts {
        let mut rest = part.chars();
        match rest.next()? {
            '{' => out += &format!(r"\sqrt{part}"),
            c => out += &format!(r"\sqrt{{{c}}}{}", rest.as_str()),
        }
    }
    Some(out)
}

/// `\frac12` and `\frac1{2}` to `\frac{1}{2}`. A text with `\frac1` at the end is not changed.
fn brace_fractions(text: &str) -> Option<String> {
    let mut parts = text.split(r"\frac");
    let mut out = parts.next()?.to_string();
    for part in parts {
        out += r"\frac";
        let mut rest = part.chars();
        match (rest.next()?, rest.next()) {
            ('{', _) => out += part,
            (_, None) => return Some(text.to_string()),
            (a, Some('{')) => out += &format!("{{{a}}}{{{}", rest.as_str()),
            (a, Some(b)) => out += &format!("{{{a}}}{{{b}}}{}", rest.as_str()),
        }
    }
    Some(out)
}

/// `1/2` to `\frac{1}{2}`, for whole numbers only.
fn slash_to_fraction(text: String) -> Option<String> {
    static PLAIN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("^(?:0|-?[1-9][0-9]*)$").expect("the pattern is right"));
    match text.split_once('/') {
        Some((a, b)) if !b.contains('/') => {
            if !is_int(a) || !is_int(b) {
                return None;
            }
            // Numbers in another notation, such as 01/2, are not changed.
            Some(if PLAIN.is_match(a) && PLAIN.is_match(b) {
                format!(r"\frac{{{a}}}{{{b}}}")
            } else {
                text
            })
        }
        _ => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notations_of_a_number_are_equal() {
        for (a, b) in [
            (r"\dfrac12", "1/2"),
            ("0.5", r"\frac{1}{2}"),
            (".5", "1/2"),
            (r"x = \$7\text{ miles}", "7"),
            (r"90^\circ", "90"),
            (r"\left( 3, \sqrt3 \right)", r"(3,\sqrt{3})"),
            (r"\frac", r"\frac"),
        ] {
            assert!(same_answer(a, b), "{a} and {b}");
        }
        for (a, b) in [
            ("2", r"\sqrt4"),
            ("a/b", " a/b"),
            ("01/2", "1/2"),
            (r"\frac", r" \frac"),
        ] {
            assert!(!same_answer(a, b), "{a} and {b}");
        }
    }
}
