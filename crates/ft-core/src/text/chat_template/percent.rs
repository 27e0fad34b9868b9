//! The operator `%`: the remainder of numbers, and texts filled in as C's `printf` does.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::python_text::{repr_of, str_of};
use super::string_methods::charge;

fn invalid(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}

/// `left % right`.
pub(super) fn percent(state: &State, left: &Value, right: &Value) -> Result<Value, Error> {
    if left.kind() == ValueKind::String {
        return match right.downcast_object_ref::<Tuple>() {
            Some(values) => printf(state, left, &values.iter().cloned().collect::<Vec<_>>()),
            None => printf(state, left, std::slice::from_ref(right)),
        };
    }
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !is_number(left) || !is_number(right) {
        return Err(invalid(format!(
            "tried to use % operator on unsupported types {} and {}",
            left.kind(),
            right.kind()
        )));
    }
    let is_whole = |value: &Value| value.is_integer() || value.kind() == ValueKind::Bool;
    if is_whole(left) && is_whole(right) {
        let (a, b) = (
            i128::try_from(left.clone())?,
            i128::try_from(right.clone())?,
        );
        let rest = a.checked_rem(b).ok_or_else(|| invalid("% by zero"))?;
        // The remainder has the sign of the divisor.
        let rest = if rest != 0 && (rest < 0) != (b < 0) {
            rest + b
        } else {
            rest
        };
        return Ok(i64::try_from(rest).map_or_else(|_| Value::from(rest), Value::from));
    }
    let (a, b) = (f64::try_from(left.clone())?, f64::try_from(right.clone())?);
    if b == 0.0 {
        return Err(invalid("% by zero"));
    }
    let rest = a % b;
    Ok(Value::from(match rest {
        0.0 => 0.0_f64.copysign(b),
        rest if (rest < 0.0) != (b < 0.0) => rest + b,
        rest => rest,
    }))
}

/// Fills `values` into a text: one map for `%(name)s`, or one value for each `%`.
///
/// minijinja formats; what it does otherwise than Python is prepared here: values are printed as Python prints them,
/// `%r` is `repr`, `*` takes a width from the values, and a value too many is an error.
pub(super) fn printf(state: &State, text: &Value, values: &[Value]) -> Result<Value, Error> {
    let template = str_of(text)?;
    let named = match values {
        [map] if map.kind() == ValueKind::Map => Some(map),
        _ => None,
    };
    let mut out = String::new();
    let mut next = 0;
    let mut rest = template.as_str();
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let spec = Spec::parse(&rest[at..]);
        rest = &rest[at + spec.text.len()..];
        let mut arguments: Vec<Value> = Vec::new();
        if spec.conversion != '%' && spec.name.is_none() {
            let needed = 1 + spec.text.matches('*').count();
            arguments = values.iter().skip(next).take(needed).cloned().collect();
            next += needed;
        } else if let (Some(name), Some(map)) = (spec.name, named) {
            arguments.push(map.get_item(&Value::from(name))?);
            if arguments[0].is_undefined() {
                return Err(invalid(format!("% has no value for `{name}`")));
            }
        }
        let mut spec_text = match spec.name {
            Some(name) => spec.text.replacen(&format!("({name})"), "", 1),
            None => spec.text.to_string(),
        };
        while spec_text.contains('*') && !arguments.is_empty() {
            spec_text =
                spec_text.replacen('*', &i64::try_from(arguments.remove(0))?.to_string(), 1);
        }
        if let Some(value) = arguments.last_mut() {
            let replacement = match spec.conversion {
                'r' => Some((Value::from(repr_of(value)?), 's')),
                's' => Some((Value::from(str_of(value)?), 's')),
                'd' | 'i' | 'u' => Some((whole(value)?, 'd')),
                _ => None,
            };
            if let Some((replaced, conversion)) = replacement {
                *value = replaced;
                spec_text.truncate(spec_text.len() - 1);
                spec_text.push(conversion);
            }
        }
        charge_widths(state, &spec_text)?;
        out.push_str(&format(FormatStyle::Printf, &spec_text, &arguments)?);
    }
    out.push_str(rest);
    if named.is_none() && next < values.len() {
        return Err(invalid("not all values are used by the text before %"));
    }
    Ok(if text.is_safe() {
        Value::from_safe_string(out)
    } else {
        Value::from(out)
    })
}

/// Charges for the widths and precisions of a format before texts of that length are made.
pub(super) fn charge_widths(state: &State, spec: &str) -> Result<(), Error> {
    let numbers = spec
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty());
    numbers
        .map(|digits| digits.parse().unwrap_or(usize::MAX))
        .try_for_each(|width| charge(state, width))
}

/// A number without what is behind its point.
fn whole(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Number if !value.is_integer() => {
            let number = f64::try_from(value.clone())?.trunc();
            i64::try_from(Value::from(number)).map(Value::from)
        }
        _ => Ok(value.clone()),
    }
}

/// One `%` with what belongs to it.
struct Spec<'a> {
    text: &'a str,
    name: Option<&'a str>,
    conversion: char,
}

impl<'a> Spec<'a> {
    fn parse(text: &'a str) -> Self {
        let named = text[1..]
            .strip_prefix('(')
            .and_then(|rest| rest.split_once(')'));
        let name = named.map(|(name, _)| name);
        let start = 1 + name.map_or(0, |name| name.len() + 2);
        let end = text[start..]
            .char_indices()
            .find(|(_, c)| c.is_ascii_alphabetic() && !matches!(c, 'h' | 'l' | 'L') || *c == '%')
            .map(|(at, c)| (start + at + 1, c));
        let (len, conversion) = end.unwrap_or((text.len(), ' '));
        Self {
            text: &text[..len],
            name,
            conversion,
        }
    }
}
