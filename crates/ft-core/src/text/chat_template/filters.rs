//! Filters and tests that Jinja2 answers otherwise than minijinja.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::dict_views::DictView;
use super::percent::{percent, printf};
use super::python_strings::{is_space, lines, strip};
use super::python_text::str_of;
use super::string_methods::{charge, pad};
use super::to_json::to_json;

/// Replaces them in an environment.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", soft);
    environment.add_filter("_percent", percent);
    environment.add_filter(
        "format",
        |state: &State, text: &Value, args: Rest<Value>, named: Kwargs| {
            let by_name = named.args().next().is_some();
            match (args.is_empty(), by_name) {
                (_, false) => printf(state, text, &args),
                (true, true) => printf(state, text, &[Value::from(named)]),
                (false, true) => Err(invalid(
                    "format takes arguments by position or by name, not both",
                )),
            }
        },
    );
    environment.add_filter("trim", |value: &Value, chars: Option<&str>| {
        text_filter(value, |text| strip(text, chars, true, true).to_string())
    });
    environment.add_filter("upper", |value: &Value| {
        text_filter(value, str::to_uppercase)
    });
    environment.add_filter("lower", |value: &Value| {
        text_filter(value, str::to_lowercase)
    });
    environment.add_filter("title", |value: &Value| text_filter(value, title));
    environment.add_filter("replace", replace);
    environment.add_filter("join", join);
    environment.add_filter("indent", indent);
    environment.add_filter(
        "center",
        |state: &State, value: &Value, width: Option<i64>| {
            pad(state, &str_of(value)?, "center", width.unwrap_or(80), " ")
        },
    );
    environment.add_filter("int", |value: &Value, default: Option<Value>| {
        number(value, default, 0.into(), |number| {
            Value::from(number.trunc() as i64)
        })
    });
    environment.add_filter("float", |value: &Value, default: Option<Value>| {
        number(value, default, 0.0.into(), Value::from)
    });
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("items", |value: &Value| match value.kind() {
        ValueKind::Undefined => Ok(Value::from(Vec::<Value>::new())),
        ValueKind::Map => DictView::of(value, "items"),
        kind => Err(invalid(&format!(
            "items needs a map, not a value of kind {kind}"
        ))),
    });
    environment.add_filter("escape", |value: &Value| escape(value, false));
    environment.add_filter("e", |value: &Value| escape(value, false));
    environment.add_filter("forceescape", |value: &Value| escape(value, true));
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", is_sequence);
}

fn invalid(reason: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.to_string())
}

/// Text that keeps whether it is marked as safe.
fn marked(text: String, safe: bool) -> Value {
    if safe {
        Value::from_safe_string(text)
    } else {
        Value::from(text)
    }
}

fn soft(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => Ok(value.clone()),
        _ => Ok(Value::from(str_of(value)?)),
    }
}

fn text_filter(value: &Value, change: impl Fn(&str) -> String) -> Result<Value, Error> {
    Ok(marked(change(&str_of(value)?), value.is_safe()))
}

/// Jinja2's title case, which lowers the rest of a word as Python's `str.title` does, but knows only some word ends.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        match c {
            '-' | '(' | '{' | '[' | '<' => {
                out.push(c);
                begins = true;
            }
            c if is_space(c) => {
                out.push(c);
                begins = true;
            }
            c if begins => {
                out.extend(c.to_uppercase());
                begins = false;
            }
            c => out.extend(c.to_lowercase()),
        }
    }
    out
}

fn replace(
    state: &State,
    value: &Value,
    old: &Value,
    new: &Value,
    count: Option<i64>,
) -> Result<Value, Error> {
    let (text, old, new) = (str_of(value)?, str_of(old)?, str_of(new)?);
    let most = count
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or(usize::MAX);
    let places = if old.is_empty() {
        text.chars().count() + 1
    } else {
        text.matches(&*old).count()
    };
    charge(state, places.min(most).saturating_mul(new.len()))?;
    Ok(marked(text.replacen(&*old, &new, most), value.is_safe()))
}

fn join(
    state: &State,
    value: &Value,
    positional: Rest<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let separator = argument(&positional, &named, 0, "d")?;
    let attribute = argument(&positional, &named, 1, "attribute")?;
    named.assert_all_used()?;
    let separator = separator.map_or(Ok(String::new()), |separator| str_of(&separator))?;
    if !is_iterable(value) {
        return Err(invalid("join needs something to iterate over"));
    }
    let mut out = String::new();
    for (index, item) in value.try_iter()?.checked().enumerate() {
        if index > 0 {
            charge(state, separator.len())?;
            out.push_str(&separator);
        }
        out.push_str(&str_of(&at_path(item?, attribute.as_ref())?)?);
    }
    Ok(Value::from(out))
}

/// An attribute of an item: a name, several with dots between them, or a number.
fn at_path(item: Value, path: Option<&Value>) -> Result<Value, Error> {
    let Some(path) = path else { return Ok(item) };
    let Some(names) = path.as_str() else {
        return item.get_item(path);
    };
    names
        .split('.')
        .try_fold(item, |item, name| match name.parse::<i64>() {
            Ok(index) => item.get_item(&Value::from(index)),
            Err(_) => item.get_item(&Value::from(name)),
        })
}

/// A default for what is undefined, or false if `boolean` is set.
fn default(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let argument = |index: usize, name: &str| argument(&positional, &named, index, name);
    let default = argument(0, "default_value")?.unwrap_or_else(|| Value::from(""));
    let boolean = argument(1, "boolean")?.is_some_and(|boolean| boolean.is_true());
    named.assert_all_used()?;
    let missing = value.is_undefined() || (boolean && !value.is_true());
    Ok(if missing { default } else { value.clone() })
}

/// An argument of a filter, by position or by name.
fn argument(
    positional: &[Value],
    named: &Kwargs,
    index: usize,
    name: &str,
) -> Result<Option<Value>, Error> {
    match positional.get(index) {
        Some(value) => Ok(Some(value.clone())),
        None => named.get(name),
    }
}

/// Indents every line but the first and empty ones, by spaces or by a text.
fn indent(
    state: &State,
    value: &Value,
    positional: Rest<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let argument = |index: usize, name: &str| argument(&positional, &named, index, name);
    let width = argument(0, "width")?.unwrap_or_else(|| Value::from(4));
    let first = argument(1, "first")?.is_some_and(|first| first.is_true());
    let blank = argument(2, "blank")?.is_some_and(|blank| blank.is_true());
    named.assert_all_used()?;
    let indention = match width.as_str() {
        Some(text) => text.to_string(),
        None => pad(state, "", "ljust", i64::try_from(width)?, " ")?,
    };
    let text = str_of(value)? + "\n";
    let lines = lines(&text, false);
    charge(state, lines.len().saturating_mul(indention.len()))?;
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if if index == 0 {
            first
        } else {
            blank || !line.is_empty()
        } {
            out.push_str(&indention);
        }
        out.push_str(line);
    }
    Ok(marked(out, value.is_safe()))
}

/// A number from a number or a text; what is neither gives the default.
fn number(
    value: &Value,
    default: Option<Value>,
    zero: Value,
    make: impl Fn(f64) -> Value,
) -> Result<Value, Error> {
    let default = default.unwrap_or(zero);
    let parsed = match value.as_str() {
        // A whole number stays exact.
        Some(text) if default.is_integer() && text.trim().parse::<i64>().is_ok() => {
            return Ok(Value::from(text.trim().parse::<i64>().unwrap_or_default()));
        }
        Some(text) => text.trim().parse().ok(),
        None if value.is_integer() && default.is_integer() => return Ok(value.clone()),
        None => f64::try_from(value.clone()).ok(),
    };
    Ok(parsed.map_or(default, make))
}

fn escape(value: &Value, force: bool) -> Result<Value, Error> {
    if value.is_safe() && !force {
        return Ok(value.clone());
    }
    let mut out = String::new();
    for c in str_of(value)?.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    Ok(Value::from_safe_string(out))
}

/// Whether Python's `iter` takes it. Undefined values are empty lists in Jinja2.
fn is_iterable(value: &Value) -> bool {
    let kind = value.kind();
    kind == ValueKind::String || (kind != ValueKind::None && value.try_iter().is_ok())
}

/// Whether it has a length and items by position. What minijinja makes lazily, such as a slice, is a list in Python.
fn is_sequence(value: &Value) -> bool {
    match value.kind() {
        ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Undefined => true,
        ValueKind::Iterable => value.downcast_object_ref::<DictView>().is_none(),
        _ => false,
    }
}
