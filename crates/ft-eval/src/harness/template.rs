//! The templates of task files, with the results of Jinja2 in lm-evaluation-harness.
//!
//! Undefined names are errors (`StrictUndefined`), a line end at the end is kept, values are printed as in Python, strings
//! have Python's methods, and `regex_replace` is `re.sub`. Differences from Jinja2: tuples are printed as lists, numbers
//! have at most 128 bits and those of the filter `int` 64, `%` does not format strings, and a few filters that no task
//! uses (`random`, `truncate`, `wordcount`, `xmlattr`, ...) are missing. A template with a missing feature is an error.

mod methods;

use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use serde_json::Value as Json;

use super::python_case::capitalize;
use super::python_regex::PythonRegex;
use super::python_value::PyValue;

/// Renders `template` with the fields of a document as names.
pub(super) fn render(template: &str, doc: &Json) -> Result<String, String> {
    static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);
    // Jinja2 reads every kind of line end as `\n`.
    let unix;
    let template = if template.contains('\r') {
        unix = template.replace("\r\n", "\n").replace('\r', "\n");
        &unix
    } else {
        template
    };
    ENVIRONMENT
        .render_str(template, from_json(doc))
        .map_err(|error| {
            let error = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            let fields = match doc {
                Json::Object(fields) => fields.keys().cloned().collect::<Vec<_>>().join(", "),
                _ => String::new(),
            };
            format!(
                "the template {template:?} failed: {error}; the document has the fields: {fields}"
            )
        })
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are right"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(|out, state, value| {
        if value.is_undefined() {
            // Names the undefined variable.
            return minijinja::escape_formatter(out, state, value);
        }
        match value.as_str() {
            Some(text) => out.write_str(text),
            None => out.write_str(&to_python(value).str()),
        }
        .map_err(Error::from)
    });
    environment.add_filter("regex_replace", regex_replace);
    environment.add_filter("string", |value: Value| to_python(&value).str());
    environment.add_filter("join", join);
    environment.add_filter("trim", methods::trim);
    environment.add_filter("int", methods::int);
    environment.add_filter("capitalize", |value: Value| {
        capitalize(&to_python(&value).str())
    });
    environment.add_filter("tojson", to_json);
    environment.add_filter("e", html_escape);
    environment.add_filter("escape", html_escape);
    environment
}

/// Jinja2's own `tojson`: sorted keys, only ASCII, and safe in HTML.
fn to_json(value: Value) -> String {
    fn sorted(value: PyValue) -> PyValue {
        match value {
            PyValue::List(items) => PyValue::List(items.into_iter().map(sorted).collect()),
            PyValue::Dict(mut fields) => {
                fields.sort_by_key(|(key, _)| key.str());
                PyValue::Dict(
                    fields
                        .into_iter()
                        .map(|(key, value)| (key, sorted(value)))
                        .collect(),
                )
            }
            other => other,
        }
    }
    let mut out = String::new();
    for c in sorted(to_python(&value)).json(None).chars() {
        if c.is_ascii() && !"<>&'".contains(c) {
            out.push(c);
        } else {
            out.extend(
                c.encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}")),
            );
        }
    }
    out
}

fn html_escape(value: Value) -> String {
    to_python(&value)
        .str()
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&#39;")
        .replace('"', "&#34;")
}

fn regex_replace(
    text: String,
    pattern: String,
    replacement: String,
    count: Option<usize>,
    named: Kwargs,
) -> Result<String, Error> {
    let count = match count {
        Some(count) => count,
        None => named.get::<Option<usize>>("count")?.unwrap_or(0),
    };
    named.assert_all_used()?;
    PythonRegex::new(&pattern)
        .and_then(|regex| regex.sub(&replacement, &text, count))
        .map_err(|reason| Error::new(ErrorKind::InvalidOperation, reason))
}

fn join(values: Value, separator: Option<String>, named: Kwargs) -> Result<String, Error> {
    let attribute: Option<Value> = named.get("attribute")?;
    let separator = match separator {
        Some(separator) => separator,
        None => named.get::<Option<String>>("d")?.unwrap_or_default(),
    };
    named.assert_all_used()?;
    let texts = values
        .try_iter()?
        .map(|value| {
            let value = match &attribute {
                Some(attribute) => value.get_item(attribute)?,
                None => value,
            };
            Ok(to_python(&value).str())
        })
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(texts.join(&separator))
}

/// A document as minijinja's value. Integers and floats are kept apart.
fn from_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::from(whole),
            None => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(from_json).collect(),
        Json::Object(fields) => Value::from_pairs(
            fields
                .iter()
                .map(|(key, value)| (key.as_str(), from_json(value))),
        ),
    }
}

/// minijinja's value as a Python value.
fn to_python(value: &Value) -> PyValue {
    match value.kind() {
        ValueKind::None | ValueKind::Undefined => PyValue::None,
        ValueKind::Bool => PyValue::Bool(value.is_true()),
        ValueKind::Number if value.is_integer() => match i64::try_from(value.clone()) {
            Ok(whole) => PyValue::Int(whole),
            Err(_) => PyValue::Str(value.to_string()),
        },
        ValueKind::Number => PyValue::Float(f64::try_from(value.clone()).unwrap_or(f64::NAN)),
        ValueKind::Seq | ValueKind::Iterable => match value.try_iter() {
            Ok(items) => PyValue::List(items.map(|item| to_python(&item)).collect()),
            Err(_) => PyValue::Str(value.to_string()),
        },
        ValueKind::Map => match value.try_iter() {
            Ok(keys) => PyValue::Dict(
                keys.map(|key| {
                    let item = value.get_item(&key).unwrap_or_default();
                    (to_python(&key), to_python(&item))
                })
                .collect(),
            ),
            Err(_) => PyValue::Str(value.to_string()),
        },
        _ => PyValue::Str(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_printed_as_python_prints_them() {
        let doc = json!({"a": ["x", "it's"], "b": true, "c": null, "d": 1.0, "n": 3, "m": {"k": [1]},
            "s": "\u{1c}\u{200b}x y\u{a0}"});
        for (template, expected) in [
            (
                "{{a}} {{b}} {{c}} {{d}} {{m}}",
                r#"['x', "it's"] True None 1.0 {'k': [1]}"#,
            ),
            ("{{[a[0], n]}}", "['x', 3]"),
            ("{{n / 2}} {{n // 2}} {{n + 1}}\n", "1.5 1 4\n"),
            ("{{a|join('-')}} {{[b, n]|join}}", "x-it's True3"),
            ("{{ a[1].replace(\"'\", '').strip() | upper }}", "ITS"),
            (
                "{{ 'a1b22' | regex_replace('[0-9]+', '<\\\\g<0>>') }}",
                "a<1>b<22>",
            ),
            (
                "{{ 'a1b22' | regex_replace('[0-9]+', '', count=1) }}",
                "ab22",
            ),
            ("{{ 'ABCD'[n] }}{{ 'abc'[1:] }}", "Dbc"),
            (
                "{{s.strip()}}|{{s.lstrip()}}|{{s.rstrip()}}|{{s|trim}}",
                "\u{200b}x y|\u{200b}x y\u{a0}|\u{1c}\u{200b}x y|\u{200b}x y",
            ),
            (
                "{{'1\n'|int - 1}} {{' 2.9'|int}} {{d|int}} {{'x'|int}} {{'x'|int(7)}} {{b|int}}",
                "0 2 1 0 7 1",
            ),
            ("{{s.split()}} {{'xyx'.strip('x')}}", "['\\u200bx', 'y'] y"),
            (
                "{{'\u{1c4}A'.capitalize()}}{{'\u{df}'|capitalize}}",
                "\u{1c5}aSs",
            ),
            (
                "{% for x in a %}{{ loop.index }}{{ x }}{% endfor %}",
                "1x2it's",
            ),
        ] {
            assert_eq!(render(template, &doc).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn an_undefined_name_is_an_error_that_lists_the_fields() {
        let error = render("{{question}}", &json!({"goal": "x"})).unwrap_err();
        assert!(
            error.contains("undefined") && error.contains("goal"),
            "{error}"
        );
        assert!(render("{% if question %}x{% endif %}", &json!({})).is_err());
    }
}
