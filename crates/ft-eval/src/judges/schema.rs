//! Checks a value against a JSON schema, with the few keywords that verdicts need.

use serde_json::Value;

/// Checks `type`, `enum`, `minimum`, `maximum`, `properties`, `required`, `additionalProperties: false` and `items`.
///
/// The error names the place and the mistake, so that a model can correct its reply.
pub(super) fn check(value: &Value, schema: &Value) -> Result<(), String> {
    check_at(value, schema, "the reply")
}

fn check_at(value: &Value, schema: &Value, place: &str) -> Result<(), String> {
    if let Some(kind) = schema["type"].as_str() {
        let fits = match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            "number" => value.is_number(),
            _ => true,
        };
        if !fits {
            return Err(format!("{place} has to be of type {kind}, not {value}"));
        }
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        return Err(format!(
            "{place} has to be one of {}, not {value}",
            allowed.join(", ")
        ));
    }
    if let Some(number) = value.as_f64() {
        let [least, most] = ["minimum", "maximum"].map(|key| schema[key].as_f64());
        if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
            return Err(format!("{place} is {number}, which is out of range"));
        }
    }
    if let Some(object) = value.as_object() {
        for key in schema["required"].as_array().into_iter().flatten() {
            let key = key.as_str().unwrap_or_default();
            if !object.contains_key(key) {
                return Err(format!("{place} lacks {key:?}"));
            }
        }
        for (key, value) in object {
            match schema["properties"].get(key) {
                Some(schema) => check_at(value, schema, &format!("{key:?}"))?,
                None if schema["additionalProperties"] == false => {
                    return Err(format!("{place} must not have {key:?}"));
                }
                None => {}
            }
        }
    }
    if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
        for (i, item) in items.iter().enumerate() {
            check_at(item, schema, &format!("{place}, item {i},"))?;
        }
    }
    Ok(())
}

/// The JSON object in a reply: the whole reply, in a fence, or among words. Of several objects the last valid one counts,
/// since models reason first.
pub(super) fn find_object(text: &str) -> Option<Value> {
    let whole: Option<Value> = serde_json::from_str(text.trim()).ok();
    if whole.as_ref().is_some_and(Value::is_object) {
        return whole;
    }
    let mut found = None;
    let mut at = 0;
    while let Some(start) = text[at..].find('{').map(|start| at + start) {
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                at = start + values.byte_offset();
                found = Some(value);
            }
            _ => at = start + 1,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mistakes_are_named() {
        let schema = json!({
            "type": "object", "required": ["reason", "score"], "additionalProperties": false,
            "properties": {"reason": {"type": "string"}, "score": {"type": "integer", "minimum": 1, "maximum": 5},
                "tags": {"type": "array", "items": {"enum": ["a", "b"]}}},
        });
        assert_eq!(
            check(&json!({"reason": "r", "score": 3, "tags": ["a"]}), &schema),
            Ok(())
        );
        assert_eq!(
            check(&json!({"reason": "r", "score": 3.0}), &schema),
            Ok(())
        );
        for (wrong, part) in [
            (json!([]), "type object"),
            (json!({"score": 3}), "lacks \"reason\""),
            (json!({"reason": "r", "score": 6}), "out of range"),
            (json!({"reason": "r", "score": 2.5}), "type integer"),
            (json!({"reason": 1, "score": 2}), "type string"),
            (
                json!({"reason": "r", "score": 3, "more": 1}),
                "must not have",
            ),
            (
                json!({"reason": "r", "score": 3, "tags": ["c"]}),
                "one of \"a\", \"b\"",
            ),
        ] {
            let error = check(&wrong, &schema).expect_err("a mistake");
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn objects_are_found_among_words() {
        let object = Some(json!({"a": 1}));
        assert_eq!(find_object(" {\"a\": 1}\n"), object);
        assert_eq!(find_object("```json\n{\"a\": 1}\n```"), object);
        assert_eq!(
            find_object("First {not json}, {\"a\": 0}, no: {\"a\": 1}. {"),
            object
        );
        assert_eq!(find_object("[1, 2]"), None);
        assert_eq!(find_object("{\"a\": 1"), None);
    }
}
