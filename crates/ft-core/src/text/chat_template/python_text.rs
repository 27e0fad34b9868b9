//! Values as Python writes them: `str` and `repr`.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::dict_views::DictView;

/// The longest text that a value is written as, in bytes. Lists that hold each other several times grow beyond any
/// memory otherwise.
const LONGEST: usize = 1 << 24;

/// How deep values may be nested; Python refuses about a thousand.
const DEEPEST: usize = 200;

/// Python's `str`: what `{{ value }}` prints.
pub(super) fn str_of(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write(value, false, &mut out, 0)?;
    Ok(out)
}

/// Python's `repr`.
pub(super) fn repr_of(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write(value, true, &mut out, 0)?;
    Ok(out)
}

/// Checks that a text of `len` bytes at this depth of a value may be written.
pub(super) fn check_size(len: usize, depth: usize) -> Result<(), Error> {
    if len > LONGEST || depth > DEEPEST {
        let what = if depth > DEEPEST {
            "is nested too deep"
        } else {
            "is too large"
        };
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("a value {what} to be written as text"),
        ));
    }
    Ok(())
}

/// Python's `repr` of a number: `1e16` is `1e+16`, and `1e-5` is `1e-05`.
pub(super) fn float(number: f64) -> String {
    if !number.is_finite() {
        return match number {
            _ if number.is_nan() => "nan",
            _ if number > 0.0 => "inf",
            _ => "-inf",
        }
        .to_string();
    }
    // Rust's shortest digits are Python's; only the exponent is written otherwise.
    let text = format!("{number:?}");
    match text.split_once('e') {
        None => text,
        Some((mantissa, exponent)) => {
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
    }
}

fn write(value: &Value, quoted: bool, out: &mut String, depth: usize) -> Result<(), Error> {
    check_size(out.len(), depth)?;
    match value.kind() {
        ValueKind::Undefined if quoted => out.push_str("Undefined"),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            match (quoted, value.is_safe()) {
                (false, _) => out.push_str(text),
                (true, false) => quote(text, out),
                (true, true) => {
                    out.push_str("Markup(");
                    quote(text, out);
                    out.push(')');
                }
            }
        }
        ValueKind::Number if !value.is_integer() => {
            out.push_str(&float(f64::try_from(value.clone())?));
        }
        ValueKind::Iterable if value.downcast_object_ref::<DictView>().is_some() => {
            out.push_str(&value.to_string());
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.downcast_object_ref::<Tuple>().is_some();
            let (open, close) = if tuple { ('(', ')') } else { ('[', ']') };
            out.push(open);
            let mut count = 0;
            for item in value.try_iter()?.checked() {
                if count > 0 {
                    out.push_str(", ");
                }
                write(&item?, true, out, depth + 1)?;
                count += 1;
            }
            if tuple && count == 1 {
                out.push(',');
            }
            out.push(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.checked().enumerate() {
                let key = key?;
                if index > 0 {
                    out.push_str(", ");
                }
                write(&key, true, out, depth + 1)?;
                out.push_str(": ");
                write(&value.get_item(&key)?, true, out, depth + 1)?;
            }
            out.push('}');
        }
        ValueKind::Invalid => {
            return Err(Error::new(ErrorKind::InvalidOperation, value.to_string()));
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// A string literal: single quotes, unless only those occur in the text.
fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == mark => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&match u32::from(c) {
                code @ ..0x100 => format!("\\x{code:02x}"),
                code @ ..0x1_0000 => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    out.push(mark);
}

/// Rust escapes what Python's `str.isprintable` refuses, and combining marks where they begin a text.
fn is_printable(c: char) -> bool {
    matches!(c, '\'' | '"' | '\\') || format!("a{c}").escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (number, text) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-7, "1.5e-07"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (-2.5e300, "-2.5e+300"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(float(number), text);
        }
    }
}
