//! Numbers in texts, found as lm-evaluation-harness finds them in answers to GSM8K.
//!
//! A number is compared by its digits, without rounding: `18`, `18.00` and `018` are equal.

use std::sync::LazyLock;

use regex::Regex;

/// The pattern of the filter `flexible-extract`.
static NUMBER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"-?[$0-9.,]{2,}|-?[0-9]+").expect("a valid pattern"));

/// The pattern of the filter `strict-match`.
static MARKED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"#### (-?[0-9.,]+)").expect("a valid pattern"));

/// A decimal number as text: a sign if it is negative, digits without zeros that do nothing, a point if digits follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal(String);

impl Decimal {
    /// The number that a text is: with `$`, commas between digits and points at the end, which are left out. None if
    /// the text is no number.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().replace([',', '$'], "");
        let text = text.trim_end_matches('.');
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) || (whole.len() + fraction.len()) == 0 {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        let mut number = String::new();
        if negative && !(whole.is_empty() && fraction.is_empty()) {
            number.push('-');
        }
        number.push_str(if whole.is_empty() { "0" } else { whole });
        if !fraction.is_empty() {
            number.push('.');
            number.push_str(fraction);
        }
        Some(Self(number))
    }

    /// The last match of `flexible-extract` that has a digit.
    pub(super) fn last_in(text: &str) -> Option<Self> {
        let found = NUMBER.find_iter(text).map(|found| found.as_str());
        let with_digit = found.filter(|found| found.bytes().any(|byte| byte.is_ascii_digit()));
        Self::parse(with_digit.last()?)
    }

    /// The first match of `strict-match`: the number behind `#### `.
    pub(super) fn marked_in(text: &str) -> Option<Self> {
        Self::parse(&MARKED.captures(text)?[1])
    }

    /// The nearest floating-point number.
    pub(super) fn to_f64(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(text: &str) -> Option<String> {
        Decimal::last_in(text).map(|number| number.0)
    }

    #[test]
    fn the_last_number_is_found_in_any_dress() {
        for (text, number) in [
            ("She makes 9 * 2 = $18 every day.", "18"),
            ("The answer is 18.", "18"),
            ("It costs $1,234.50 in total", "1234.5"),
            ("so -7", "-7"),
            ("**72**", "72"),
            ("18 ... so that is it, right.", "18"),
            ("that is 18...", "18"),
            ("0.50", "0.5"),
            ("007", "7"),
            ("-0.0", "0"),
            ("20% of 50", "50"),
            ("10-5", "-5"),
        ] {
            assert_eq!(last(text).as_deref(), Some(number), "{text}");
        }
        for text in ["", "none", "...", "$", "v1.2.3", "٣"] {
            assert_eq!(last(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_marked_number_counts() {
        let marked = |text: &str| Decimal::marked_in(text).map(|number| number.0);
        assert_eq!(marked("5+3=8\n#### 8").as_deref(), Some("8"));
        assert_eq!(marked("#### 1,250.\n#### 9").as_deref(), Some("1250"));
        assert_eq!(marked("####8"), None);
        assert_eq!(marked("#### $8"), None);
        assert_eq!(marked("8"), None);
    }

    #[test]
    fn long_texts_are_read_in_linear_time() {
        let digits = "7".repeat(1_000_000);
        assert_eq!(last(&digits), Some(digits.clone()));
        assert_eq!(
            Decimal::parse(&digits).map(|number| number.to_f64()),
            Some(f64::INFINITY)
        );
        assert_eq!(last(&"-".repeat(1_000_000)), None);
        assert_eq!(last(&"-$.,".repeat(250_000)), None);
    }
}
