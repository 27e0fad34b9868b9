//! Methods and filters of Python and Jinja2 that minijinja and its companion lack or define differently.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

use super::to_python;
use crate::harness::python_case::capitalize;
use crate::harness::python_value::{PyValue, is_space, parse_int, strip};

pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let (ValueKind::Seq, "index", [wanted]) = (value.kind(), method, args) {
        return value
            .try_iter()?
            .position(|item| item == *wanted)
            .map(Value::from)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidOperation,
                    format!("{wanted} is not in the list"),
                )
            });
    }
    if let (Some(text), []) = (value.as_str(), args) {
        match method {
            // Python has a few more white space characters than Rust.
            "strip" => return Ok(Value::from(strip(text))),
            "lstrip" => return Ok(Value::from(text.trim_start_matches(is_space))),
            "rstrip" => return Ok(Value::from(text.trim_end_matches(is_space))),
            "split" => {
                let words = text.split(is_space).filter(|word| !word.is_empty());
                return Ok(words.map(Value::from).collect());
            }
            "capitalize" => return Ok(Value::from(capitalize(text))),
            "title" => return Ok(Value::from(title(text))),
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// The filter `int`. The result is zero, or another default, if the value is not a number.
pub(super) fn int(value: Value, default: Option<i64>) -> Result<i64, Error> {
    let broken = match to_python(&value) {
        PyValue::Int(value) => return Ok(value),
        PyValue::Bool(value) => return Ok(i64::from(value)),
        PyValue::Float(value) => value,
        PyValue::Str(text) => match parse_int(&text) {
            Some(value) => return Ok(value),
            None => strip(&text).parse().unwrap_or(f64::NAN),
        },
        _ => f64::NAN,
    };
    if !broken.is_finite() {
        return Ok(default.unwrap_or(0));
    }
    if broken.abs() >= i64::MAX as f64 {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("int: {broken} has more than 64 bits"),
        ));
    }
    Ok(broken as i64)
}

/// The filter `trim`.
pub(super) fn trim(value: Value, characters: Option<String>) -> String {
    let text = to_python(&value).str();
    match characters {
        None => strip(&text).to_string(),
        Some(characters) => text.trim_matches(|c| characters.contains(c)).to_string(),
    }
}

/// `str.title()`: a capital letter after every character that is not a letter, including apostrophes.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = c.is_alphabetic();
    }
    out
}
