//! JSON schemas: the keywords that describe the shape of data.
//!
//! A schema is `true` (every value), `false` (no value) or an object of these keywords, with the meaning of draft 2020-12:
//!
//! - any value: `type` (a name or a list of names), `enum`, `const`;
//! - numbers: `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`;
//! - texts: `minLength`, `maxLength` (in characters), `pattern` (of the crate `regex`);
//! - lists: `items` (one schema), `minItems`, `maxItems`;
//! - objects: `properties`, `required`, `additionalProperties`;
//! - combinations: `anyOf`, `allOf`, `oneOf`, `not`.
//!
//! `title`, `description`, `default`, `examples`, `deprecated`, `$schema`, `$id` and `$comment` say nothing about values and are
//! ignored. All other keywords, such as `$ref` and `format`, are errors, since a schema that is checked in part accepts
//! what it should not.

use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

const ANNOTATIONS: [&str; 8] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "$schema",
    "$id",
    "$comment",
];

const TYPES: [&str; 7] = [
    "null", "boolean", "number", "integer", "string", "array", "object",
];

/// A JSON schema whose keywords are all known.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Value")]
pub struct Schema {
    checks: Vec<Check>,
}

#[derive(Clone, Debug)]
enum Check {
    Type(Vec<String>),
    OneOfValues(Vec<Value>),
    /// Limits of a number, of the characters of a text, or of the items of a list.
    Number(Comparison, f64),
    Characters(Comparison, f64),
    Length(Comparison, f64),
    Pattern(Regex),
    Items(Schema),
    Required(Vec<String>),
    Properties {
        known: Vec<(String, Schema)>,
        others: Option<Schema>,
    },
    Any(Vec<Schema>),
    All(Vec<Schema>),
    One(Vec<Schema>),
    Not(Schema),
    Never,
}

/// Whether a value keeps to a limit.
type Comparison = fn(f64, f64) -> bool;

const AT_LEAST: Comparison = |value, limit| value >= limit;
const AT_MOST: Comparison = |value, limit| value <= limit;
const ABOVE: Comparison = |value, limit| value > limit;
const BELOW: Comparison = |value, limit| value < limit;

impl TryFrom<Value> for Schema {
    type Error = String;

    fn try_from(schema: Value) -> Result<Self, String> {
        Self::new(&schema)
    }
}

impl Schema {
    /// Reads a schema.
    ///
    /// ```
    /// use ft_align::reward::Schema;
    /// use serde_json::json;
    ///
    /// let schema = Schema::new(&json!({
    ///     "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}},
    /// }))?;
    /// assert!(schema.accepts(&json!({"name": "Ada", "age": 36})));
    /// assert!(!schema.accepts(&json!({"age": 36})));
    /// assert!(Schema::new(&json!({"format": "date"})).is_err());
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a keyword is not known or its value has a wrong type. The message names its place.
    pub fn new(schema: &Value) -> Result<Self, String> {
        Self::at(schema, "the schema")
    }

    fn at(schema: &Value, place: &str) -> Result<Self, String> {
        match schema {
            Value::Bool(true) => Ok(Self { checks: Vec::new() }),
            Value::Bool(false) => Ok(Self {
                checks: vec![Check::Never],
            }),
            Value::Object(keywords) => {
                let mut checks = Vec::new();
                for (keyword, value) in keywords {
                    let place = format!("{place}, `{keyword}`");
                    checks.extend(check(keyword, value, keywords, &place)?);
                }
                Ok(Self { checks })
            }
            _ => Err(format!("{place} must be an object, true or false")),
        }
    }

    /// Whether the value satisfies the schema.
    pub fn accepts(&self, value: &Value) -> bool {
        self.checks.iter().all(|check| check.accepts(value))
    }
}

/// The check of a keyword; none if it says nothing about values.
fn check(
    keyword: &str,
    value: &Value,
    keywords: &Map<String, Value>,
    place: &str,
) -> Result<Option<Check>, String> {
    let wrong = |wanted: &str| format!("{place} must be {wanted}");
    let limit = |make: fn(Comparison, f64) -> Check, holds: Comparison| {
        let limit = value.as_f64().ok_or_else(|| wrong("a number"))?;
        Ok::<_, String>(make(holds, limit))
    };
    let schemas = |make: fn(Vec<Schema>) -> Check| match value.as_array() {
        Some(schemas) if !schemas.is_empty() => {
            let read = schemas.iter().map(|schema| Schema::at(schema, place));
            read.collect::<Result<_, _>>().map(make)
        }
        _ => Err(wrong("a list of schemas that is not empty")),
    };
    Ok(Some(match keyword {
        "type" => {
            let names = texts(value).ok_or_else(|| wrong("a name or a list of names"))?;
            if let Some(name) = names.iter().find(|name| !TYPES.contains(&name.as_str())) {
                return Err(format!(
                    "{place}: `{name}` is not one of {}",
                    TYPES.join(", ")
                ));
            }
            Check::Type(names)
        }
        "enum" => match value {
            Value::Array(values) => Check::OneOfValues(values.clone()),
            _ => return Err(wrong("a list")),
        },
        "const" => Check::OneOfValues(vec![value.clone()]),
        "minimum" => limit(Check::Number, AT_LEAST)?,
        "maximum" => limit(Check::Number, AT_MOST)?,
        "exclusiveMinimum" => limit(Check::Number, ABOVE)?,
        "exclusiveMaximum" => limit(Check::Number, BELOW)?,
        "minLength" => limit(Check::Characters, AT_LEAST)?,
        "maxLength" => limit(Check::Characters, AT_MOST)?,
        "minItems" => limit(Check::Length, AT_LEAST)?,
        "maxItems" => limit(Check::Length, AT_MOST)?,
        "pattern" => match value.as_str().map(Regex::new) {
            Some(Ok(pattern)) => Check::Pattern(pattern),
            Some(Err(error)) => return Err(format!("{place}: {error}")),
            None => return Err(wrong("a pattern")),
        },
        "items" => Check::Items(Schema::at(value, place)?),
        "required" => match value.as_array().and_then(|_| texts(value)) {
            Some(names) => Check::Required(names),
            None => return Err(wrong("a list of names")),
        },
        // Read together, and once.
        "additionalProperties" if keywords.contains_key("properties") => return Ok(None),
        "properties" | "additionalProperties" => properties(keywords, place)?,
        "anyOf" => schemas(Check::Any)?,
        "allOf" => schemas(Check::All)?,
        "oneOf" => schemas(Check::One)?,
        "not" => Check::Not(Schema::at(value, place)?),
        _ if ANNOTATIONS.contains(&keyword) => return Ok(None),
        _ => {
            return Err(format!(
                "{place} is not checked: remove it, or write it in other keywords"
            ));
        }
    }))
}

fn properties(keywords: &Map<String, Value>, place: &str) -> Result<Check, String> {
    let known = match keywords.get("properties") {
        None => Vec::new(),
        Some(Value::Object(known)) => (known.iter())
            .map(|(name, schema)| {
                let read = Schema::at(schema, &format!("{place}, `{name}`"));
                read.map(|schema| (name.clone(), schema))
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(format!("{place} must be an object of schemas")),
    };
    let others = keywords.get("additionalProperties");
    let others = others.map(|schema| Schema::at(schema, "`additionalProperties`"));
    Ok(Check::Properties {
        known,
        others: others.transpose()?,
    })
}

/// A text, or a list of texts.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(values) => (values.iter())
            .map(|value| value.as_str().map(str::to_string))
            .collect(),
        _ => None,
    }
}

impl Check {
    fn accepts(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Never, _) => false,
            (Self::Type(names), _) => names.iter().any(|name| has_type(value, name)),
            (Self::OneOfValues(values), _) => values.iter().any(|other| same(value, other)),
            (Self::Number(holds, limit), Value::Number(number)) => {
                number.as_f64().is_some_and(|number| holds(number, *limit))
            }
            (Self::Characters(holds, limit), Value::String(text)) => {
                holds(text.chars().count() as f64, *limit)
            }
            (Self::Length(holds, limit), Value::Array(items)) => holds(items.len() as f64, *limit),
            (Self::Pattern(pattern), Value::String(text)) => pattern.is_match(text),
            (Self::Items(schema), Value::Array(items)) => {
                items.iter().all(|item| schema.accepts(item))
            }
            (Self::Required(names), Value::Object(fields)) => {
                names.iter().all(|name| fields.contains_key(name))
            }
            (Self::Properties { known, others }, Value::Object(fields)) => {
                let fits = |(name, schema): &(String, Schema)| {
                    let field = fields.get(name);
                    field.is_none_or(|field| schema.accepts(field))
                };
                let is_known = |name: &String| known.iter().any(|(other, _)| other == name);
                known.iter().all(fits)
                    && others.as_ref().is_none_or(|schema| {
                        let mut others = fields.iter().filter(|(name, _)| !is_known(name));
                        others.all(|(_, field)| schema.accepts(field))
                    })
            }
            (Self::Any(schemas), _) => schemas.iter().any(|schema| schema.accepts(value)),
            (Self::All(schemas), _) => schemas.iter().all(|schema| schema.accepts(value)),
            (Self::One(schemas), _) => {
                let fitting = schemas.iter().filter(|schema| schema.accepts(value));
                fitting.take(2).count() == 1
            }
            (Self::Not(schema), _) => !schema.accepts(value),
            // The keyword speaks about values of another type.
            _ => true,
        }
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match (name, value) {
        ("null", Value::Null)
        | ("boolean", Value::Bool(_))
        | ("number", Value::Number(_))
        | ("string", Value::String(_))
        | ("array", Value::Array(_))
        | ("object", Value::Object(_)) => true,
        // 3.0 is an integer.
        ("integer", Value::Number(number)) => {
            number.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        _ => false,
    }
}

/// Whether two values are equal: 1 and 1.0 are, and the order of fields does not count.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64())
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && (a.iter()).all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A keyword with values that it accepts and values that it refuses.
    #[test]
    fn keywords_accept_and_refuse() {
        for (schema, good, bad) in [
            (json!(true), json!([1, null]), json!([])),
            (json!(false), json!([]), json!([1, null])),
            (
                json!({"type": "integer"}),
                json!([1, -2.0, 1e3]),
                json!([1.5, "1", null]),
            ),
            (
                json!({"type": ["string", "null"]}),
                json!(["", null]),
                json!([0, false, [], {}]),
            ),
            (
                json!({"enum": [1, {"a": [2]}]}),
                json!([1, 1.0, {"a": [2.0]}]),
                json!([2, {"a": [3]}]),
            ),
            (json!({"const": "a"}), json!(["a"]), json!(["b", null])),
            (
                json!({"minimum": 1, "maximum": 2.5}),
                json!([1, 2.5, "7"]),
                json!([0.9, 3]),
            ),
            (
                json!({"exclusiveMinimum": 1, "exclusiveMaximum": 2}),
                json!([1.5]),
                json!([1, 2]),
            ),
            (
                json!({"minLength": 2, "maxLength": 2}),
                json!(["äö", 1]),
                json!(["a", "abc"]),
            ),
            (json!({"pattern": "^a"}), json!(["ab", 1]), json!(["ba"])),
            (
                json!({"minItems": 1, "maxItems": 2}),
                json!([[1], [1, 2]]),
                json!([[], [1, 2, 3]]),
            ),
            (
                json!({"items": {"type": "number"}}),
                json!([[], [1], "a"]),
                json!([[1, "a"]]),
            ),
            (
                json!({"required": ["a"], "properties": {"a": {"type": "null"}}}),
                json!([{"a": null, "b": 1}, 3]),
                json!([{}, {"a": 1}]),
            ),
            (
                json!({"properties": {"a": true}, "additionalProperties": false}),
                json!([{}, {"a": 1}]),
                json!([{"b": 1}]),
            ),
            (
                json!({"additionalProperties": {"type": "string"}}),
                json!([{"a": "b"}]),
                json!([{"a": "b", "c": 1}]),
            ),
            (
                json!({"anyOf": [{"type": "null"}, {"minimum": 3}]}),
                json!([null, 3]),
                json!([2]),
            ),
            (
                json!({"allOf": [{"type": "number"}, {"minimum": 3}]}),
                json!([3]),
                json!([2, "a"]),
            ),
            (
                json!({"oneOf": [{"minimum": 3}, {"maximum": 4}]}),
                json!([2, 5]),
                json!([3, 4]),
            ),
            (json!({"not": {"type": "null"}}), json!([1]), json!([null])),
            (json!({"title": "T", "$schema": "s"}), json!([1]), json!([])),
        ] {
            let read = Schema::new(&schema).expect("a schema");
            for value in good.as_array().expect("a list") {
                assert!(read.accepts(value), "{schema} refuses {value}");
            }
            for value in bad.as_array().expect("a list") {
                assert!(!read.accepts(value), "{schema} accepts {value}");
            }
        }
    }

    #[test]
    fn what_would_not_be_checked_is_an_error() {
        for (schema, part) in [
            (json!({"format": "date"}), "`format` is not checked"),
            (json!({"$ref": "#"}), "`$ref`"),
            (
                json!({"properties": {"a": {"items": {"typo": 1}}}}),
                "`a`, `items`, `typo`",
            ),
            (json!({"type": "text"}), "`text` is not one of"),
            (json!({"type": 1}), "a name"),
            (json!({"minimum": "1"}), "a number"),
            (json!({"enum": 1}), "a list"),
            (json!({"required": "a"}), "a list of names"),
            (json!({"items": [true]}), "an object, true or false"),
            (json!({"anyOf": []}), "not empty"),
            (json!({"properties": []}), "an object of schemas"),
            (json!({"additionalProperties": {"typo": 1}}), "`typo`"),
            (json!({"pattern": "("}), "`pattern`"),
            (json!([]), "the schema must be"),
        ] {
            let error = Schema::new(&schema).expect_err("refused");
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
