//! Values in Python's notation: `str`, `repr` and `json.dumps`.
//!
//! Prompts, hashes and result files of lm-evaluation-harness contain values as Python prints them
//! (`True`, `['a', "b's"]`, `1e-05`). The same text is written here.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::MetricValue;

/// A Python value of a kind that JSON and literals have. Unlike in JSON, numbers may be infinite.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PyValue {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    List(Vec<PyValue>),
    Tuple(Vec<PyValue>),
    Dict(Vec<(PyValue, PyValue)>),
}

impl From<&Value> for PyValue {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => PyValue::None,
            Value::Bool(value) => PyValue::Bool(*value),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => PyValue::Int(whole),
                None => PyValue::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => PyValue::Str(text.clone()),
            Value::Array(items) => PyValue::List(items.iter().map(PyValue::from).collect()),
            Value::Object(fields) => PyValue::Dict(
                fields
                    .iter()
                    .map(|(key, value)| (PyValue::Str(key.clone()), value.into()))
                    .collect(),
            ),
        }
    }
}

impl From<&MetricValue> for PyValue {
    fn from(value: &MetricValue) -> Self {
        match value {
            MetricValue::None => PyValue::None,
            MetricValue::Int(value) => PyValue::Int(*value),
            MetricValue::Number(value) => PyValue::Float(*value),
            MetricValue::Text(text) => PyValue::Str(text.clone()),
            MetricValue::List(items) => PyValue::List(items.iter().map(PyValue::from).collect()),
        }
    }
}

impl From<&str> for PyValue {
    fn from(text: &str) -> Self {
        PyValue::Str(text.to_string())
    }
}

/// A dictionary with texts as keys.
pub(super) fn dict<K: Into<String>>(fields: impl IntoIterator<Item = (K, PyValue)>) -> PyValue {
    PyValue::Dict(
        fields
            .into_iter()
            .map(|(key, value)| (PyValue::Str(key.into()), value))
            .collect(),
    )
}

impl PyValue {
    /// As JSON. Tuples become lists; NaN and infinite numbers become null.
    pub(super) fn to_json(&self) -> Value {
        match self {
            PyValue::None => Value::Null,
            PyValue::Bool(value) => Value::Bool(*value),
            PyValue::Int(value) => Value::from(*value),
            PyValue::Float(value) => Value::from(*value),
            PyValue::Str(text) => Value::String(text.clone()),
            PyValue::List(items) | PyValue::Tuple(items) => {
                Value::Array(items.iter().map(PyValue::to_json).collect())
            }
            PyValue::Dict(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(key, value)| (key.str(), value.to_json()))
                    .collect(),
            ),
        }
    }

    /// `str(value)`.
    pub(super) fn str(&self) -> String {
        match self {
            PyValue::Str(text) => text.clone(),
            _ => self.repr(),
        }
    }

    /// `repr(value)`.
    pub(super) fn repr(&self) -> String {
        let mut out = String::new();
        self.write_repr(&mut out);
        out
    }

    fn write_repr(&self, out: &mut String) {
        match self {
            PyValue::None => out.push_str("None"),
            PyValue::Bool(true) => out.push_str("True"),
            PyValue::Bool(false) => out.push_str("False"),
            PyValue::Int(value) => out.push_str(&value.to_string()),
            PyValue::Float(value) => out.push_str(&float_repr(*value)),
            PyValue::Str(text) => write_text_repr(text, out),
            PyValue::List(items) => {
                out.push('[');
                write_items(items, out);
                out.push(']');
            }
            PyValue::Tuple(items) => {
                out.push('(');
                write_items(items, out);
                out.push_str(if items.len() == 1 { ",)" } else { ")" });
            }
            PyValue::Dict(fields) => {
                out.push('{');
                for (i, (key, value)) in fields.iter().enumerate() {
                    out.push_str(if i > 0 { ", " } else { "" });
                    key.write_repr(out);
                    out.push_str(": ");
                    value.write_repr(out);
                }
                out.push('}');
            }
        }
    }

    /// `json.dumps(value, indent=indent, ensure_ascii=False)`.
    pub(super) fn json(&self, indent: Option<usize>) -> String {
        let mut out = String::new();
        self.write_json(indent, 0, &mut out);
        out
    }

    fn write_json(&self, indent: Option<usize>, depth: usize, out: &mut String) {
        let new_line = |depth: usize, out: &mut String| {
            if let Some(indent) = indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent * depth));
            }
        };
        let comma = if indent.is_some() { "," } else { ", " };
        match self {
            PyValue::None => out.push_str("null"),
            PyValue::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            PyValue::Int(value) => out.push_str(&value.to_string()),
            PyValue::Float(value) if value.is_nan() => out.push_str("NaN"),
            PyValue::Float(value) if value.is_infinite() => {
                out.push_str(if *value > 0.0 {
                    "Infinity"
                } else {
                    "-Infinity"
                });
            }
            PyValue::Float(value) => out.push_str(&float_repr(*value)),
            PyValue::Str(text) => write_json_text(text, out),
            PyValue::List(items) | PyValue::Tuple(items) if items.is_empty() => out.push_str("[]"),
            PyValue::List(items) | PyValue::Tuple(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i > 0 { comma } else { "" });
                    new_line(depth + 1, out);
                    item.write_json(indent, depth + 1, out);
                }
                new_line(depth, out);
                out.push(']');
            }
            PyValue::Dict(fields) if fields.is_empty() => out.push_str("{}"),
            PyValue::Dict(fields) => {
                out.push('{');
                for (i, (key, value)) in fields.iter().enumerate() {
                    out.push_str(if i > 0 { comma } else { "" });
                    new_line(depth + 1, out);
                    write_json_text(&key.str(), out);
                    out.push_str(": ");
                    value.write_json(indent, depth + 1, out);
                }
                new_line(depth, out);
                out.push('}');
            }
        }
    }
}

fn write_items(items: &[PyValue], out: &mut String) {
    for (i, item) in items.iter().enumerate() {
        out.push_str(if i > 0 { ", " } else { "" });
        item.write_repr(out);
    }
}

/// `repr` of a float: the shortest digits that are read as the same number, with an exponent below 1e-4 and from 1e16.
pub(super) fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_string();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) || value == 0.0 {
        let plain = value.to_string();
        return if plain.contains('.') {
            plain
        } else {
            plain + ".0"
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Whether Python prints a character without an escape: `str.isprintable`.
fn is_printable(c: char) -> bool {
    static HIDDEN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[\p{C}\p{Z}]$").expect("the pattern is right"));
    c == ' ' || c.is_ascii_graphic() || !HIDDEN.is_match(c.encode_utf8(&mut [0; 4]))
}

fn write_text_repr(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if c == quote => out.extend(['\\', c]),
            _ if is_printable(c) => out.push(c),
            _ => out.push_str(&match c as u32 {
                code @ 0..=0xff => format!("\\x{code:02x}"),
                code @ 0x100..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    out.push(quote);
}

fn write_json_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// `str.isspace` of one character: Unicode's white space and the four separators of ASCII.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.isdigit()`, limited to ASCII digits, which can be converted to a number.
pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether `int(text)` accepts a text: spaces around it, a sign, decimal digits of any script, single underscores
/// between them, and at most 4300 digits.
pub(super) fn is_int(text: &str) -> bool {
    static INT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[+-]?\p{Nd}(?:_?\p{Nd})*$").expect("the pattern is right"));
    let text = strip(text);
    let signs = text.matches(['+', '-', '_']).count();
    INT.is_match(text) && text.chars().count() - signs <= 4300
}

/// `int(text)`, if the number has at most 64 bits.
pub(super) fn parse_int(text: &str) -> Option<i64> {
    if !is_int(text) {
        return None;
    }
    let negative = strip(text).starts_with('-');
    text.chars()
        .filter_map(digit)
        .try_fold(0i64, |number, digit| {
            let digit = if negative { -digit } else { digit };
            number.checked_mul(10)?.checked_add(digit)
        })
}

/// The value of a decimal digit of any script. In Unicode the digits of a script are consecutive, from zero to nine.
fn digit(c: char) -> Option<i64> {
    static DECIMAL: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^\p{Nd}$").expect("the pattern is right"));
    let is_decimal = |c: char| DECIMAL.is_match(c.encode_utf8(&mut [0; 4]));
    let code = c as u32;
    if !is_decimal(c) {
        return None;
    }
    let before = (0..code).rev().map_while(char::from_u32);
    Some(before.take_while(|&c| is_decimal(c)).count() as i64 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_numbers_are_read_as_python_reads_them() {
        for (text, number) in [
            ("3", Some(3)),
            (" +1_0\u{1c}\n", Some(10)),
            ("-07", Some(-7)),
            ("\u{663}\u{ff11}\u{1d7da}", Some(312)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("1__0", None),
            ("1_", None),
            ("1.0", None),
            ("\u{b2}", None),
            ("- 1", None),
        ] {
            assert_eq!(parse_int(text), number, "{text:?}");
        }
        assert!(is_int(&format!("-{}", "1".repeat(4300))));
        assert!(!is_int(&"1".repeat(4301)));
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (1e-4, "0.0001"),
            (123456789.125, "123456789.125"),
            (1e100, "1e+100"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(float_repr(value), expected);
        }
    }

    #[test]
    fn values_are_written_as_python_writes_them() {
        let value = PyValue::from(&json!({
            "a": [1, 2.0, true, null], "b'": "it's", "c": "\"'", "d": "\u{a0}\u{200b}é\u{1F600}\n\u{1}"
        }));
        assert_eq!(
            value.repr(),
            r#"{'a': [1, 2.0, True, None], "b'": "it's", 'c': '"\'', 'd': '\xa0\u200bé😀\n\x01'}"#
        );
        assert_eq!(PyValue::Tuple(vec![PyValue::Int(1)]).repr(), "(1,)");
        assert_eq!(PyValue::from("it's").str(), "it's");
    }

    #[test]
    fn json_is_indented_as_python_indents_it() {
        let value = PyValue::from(&json!({"a": [], "b": [1, {"c": {}}], "d": "\u{8}é\u{7f}"}));
        assert_eq!(
            value.json(Some(2)),
            "{\n  \"a\": [],\n  \"b\": [\n    1,\n    {\n      \"c\": {}\n    }\n  ],\n  \"d\": \"\\bé\u{7f}\"\n}"
        );
        assert_eq!(
            value.json(None),
            "{\"a\": [], \"b\": [1, {\"c\": {}}], \"d\": \"\\bé\u{7f}\"}"
        );
        assert_eq!(PyValue::Float(f64::NEG_INFINITY).json(None), "-Infinity");
    }
}
