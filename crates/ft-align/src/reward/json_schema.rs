//! Whether a completion is JSON that satisfies a schema.

use serde::Deserialize;
use serde_json::Value;

use super::{BoxError, Completion, Reward, Schema};

/// 1 if the completion is JSON that satisfies the schema, else 0.
///
/// The whole completion must be JSON, except for white space around it, or one block of code (three backticks, `json`) with
/// nothing around it. JSON that is nested deeper than 127 levels is refused. [`Schema`] lists the keywords.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JsonSchema {
    /// The schema of all completions. `true` demands only that the completion is JSON.
    pub schema: Option<Schema>,
    /// Without such a schema, the column that has it, as an object or as text. The reward does not apply to rows without
    /// the column.
    pub column: String,
}

impl Default for JsonSchema {
    /// The schema of the column `schema`.
    fn default() -> Self {
        Self {
            schema: None,
            column: "schema".to_string(),
        }
    }
}

impl JsonSchema {
    /// The schema of a row.
    fn of_column(&self, column: &Value) -> Result<Schema, String> {
        let schema = match column {
            Value::String(text) => (serde_json::from_str::<Value>(text))
                .map_err(|error| format!("it is no JSON: {error}"))
                .and_then(|schema| Schema::new(&schema)),
            other => Schema::new(other),
        };
        schema.map_err(|reason| format!("the column `{}`: {reason}", self.column))
    }
}

impl Reward for JsonSchema {
    fn name(&self) -> &str {
        "json"
    }

    fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError> {
        let of_row;
        let schema = match &self.schema {
            Some(schema) => schema,
            None => match completion.column(&self.column) {
                None => return Ok(None),
                Some(column) => {
                    of_row = self.of_column(column)?;
                    &of_row
                }
            },
        };
        let value = serde_json::from_str::<Value>(without_fence(completion.text));
        let fits = value.is_ok_and(|value| schema.accepts(&value));
        Ok(Some(f64::from(u8::from(fits))))
    }
}

/// The content of a block of code that is the whole text, else the text.
fn without_fence(text: &str) -> &str {
    let text = text.trim();
    let inside = text.strip_prefix("```");
    let inside = inside.and_then(|inside| inside.strip_suffix("```"));
    match inside.and_then(|inside| inside.split_once('\n')) {
        Some((language, block))
            if ["", "json"].contains(&language.trim()) && !block.contains("```") =>
        {
            block
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::completion::score_of;
    use super::*;

    #[test]
    fn the_whole_completion_is_json() {
        let reward = JsonSchema {
            schema: Some(Schema::new(&json!(true)).expect("a schema")),
            ..JsonSchema::default()
        };
        for (text, score) in [
            ("{\"a\": 1}", 1.0),
            (" [1, 2]\n", 1.0),
            ("```json\n{\"a\": 1}\n```", 1.0),
            ("```\n1\n```\n", 1.0),
            ("Sure: {\"a\": 1}", 0.0),
            ("```json\n1\n```\n\n```json\n2\n```", 0.0),
            ("```json\n1\n```\n2\n```", 0.0),
            ("```python\n1\n```", 0.0),
            ("```json\n1\n``` done ```", 0.0),
            ("{\"a\": 1", 0.0),
            ("{'a': 1}", 0.0),
            ("", 0.0),
        ] {
            assert_eq!(
                score_of(&reward, text, json!({})),
                Ok(Some(score)),
                "{text}"
            );
        }
    }

    #[test]
    fn rows_may_have_their_own_schemas() {
        let reward = JsonSchema::default();
        let schema = json!({"type": "array", "items": {"type": "integer"}});
        for column in [schema.clone(), json!(schema.to_string())] {
            let score = |text| score_of(&reward, text, json!({ "schema": column }));
            assert_eq!(score("[1, 2]"), Ok(Some(1.0)));
            assert_eq!(score("[1.5]"), Ok(Some(0.0)));
        }
        assert_eq!(score_of(&reward, "1", json!({})), Ok(None));
        for column in [json!({"format": "date"}), json!("{"), json!(3)] {
            let error = score_of(&reward, "1", json!({ "schema": column })).expect_err("an error");
            assert!(error.contains("`schema`"), "{error}");
        }
    }

    #[test]
    fn deep_and_long_json_is_no_danger() {
        let reward = JsonSchema {
            schema: Some(Schema::new(&json!({"items": {"type": "integer"}})).expect("a schema")),
            ..JsonSchema::default()
        };
        let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
        assert_eq!(score_of(&reward, &deep, json!({})), Ok(Some(0.0)));
        let long = format!("[{}1]", "1,".repeat(500_000));
        assert_eq!(score_of(&reward, &long, json!({})), Ok(Some(1.0)));
    }
}
