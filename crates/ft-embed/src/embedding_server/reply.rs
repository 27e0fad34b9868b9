//! Replies of embedding servers: which of their vectors can be used.

use serde_json::Value;

/// A reply that could be read.
#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    /// For each text of the request a vector, or why it has none.
    pub(super) vectors: Vec<Result<Vec<f32>, String>>,
    /// The number of tokens, if the server counts them.
    pub(super) tokens: u64,
}

/// OpenAI's reply: `{"data": [{"index": 0, "embedding": [..]}, ..], "usage": {"total_tokens": ..}}`. A vector belongs to the text of its
/// index, whatever the order. Vectors with the same index are not used, since one of them is of another text.
pub(super) fn openai(body: &str, texts: usize) -> Result<Reply, String> {
    let json = parse(body)?;
    let Some(data) = json["data"].as_array() else {
        return Err("the reply has no list `data`".to_string());
    };
    let missing = || Err("the reply has no vector with the index of this text".to_string());
    let mut vectors: Vec<Result<Vec<f32>, String>> = (0..texts).map(|_| missing()).collect();
    let mut seen = vec![false; texts];
    for item in data {
        let index = item["index"].as_u64().and_then(|i| usize::try_from(i).ok());
        let Some(index) = index.filter(|index| *index < texts) else {
            continue;
        };
        vectors[index] = match seen[index] {
            true => Err("the reply has several vectors with the index of this text".to_string()),
            false => vector(&item["embedding"]),
        };
        seen[index] = true;
    }
    let usage = &json["usage"];
    let tokens = usage["total_tokens"]
        .as_u64()
        .or(usage["prompt_tokens"].as_u64());
    Ok(Reply {
        vectors,
        tokens: tokens.unwrap_or(0),
    })
}

/// Gemini's reply: `{"embeddings": [{"values": [..]}, ..]}` in the order of the texts. It counts no tokens.
pub(super) fn gemini(body: &str, texts: usize) -> Result<Reply, String> {
    let json = parse(body)?;
    let Some(data) = json["embeddings"].as_array() else {
        return Err("the reply has no list `embeddings`".to_string());
    };
    // Without an index it is not known which texts are missing.
    if data.len() != texts {
        return Err(format!(
            "the reply has {} vectors of {texts} texts",
            data.len()
        ));
    }
    Ok(Reply {
        vectors: data.iter().map(|item| vector(&item["values"])).collect(),
        tokens: 0,
    })
}

fn vector(json: &Value) -> Result<Vec<f32>, String> {
    let numbers = json.as_array().filter(|numbers| !numbers.is_empty());
    let Some(numbers) = numbers else {
        return Err("the vector is empty or no list of numbers".to_string());
    };
    let number = |value: &Value| match value.as_f64().map(|x| x as f32) {
        Some(x) if x.is_finite() => Ok(x),
        _ => Err(format!(
            "the vector holds {}, which is no finite number",
            match value {
                Value::Null => "NaN or null".to_string(),
                other => other.to_string().chars().take(40).collect(),
            }
        )),
    };
    numbers.iter().map(number).collect()
}

/// JSON in which `NaN` and `Infinity`, as Python writes them, stand for null.
fn parse(body: &str) -> Result<Value, String> {
    serde_json::from_str(body)
        .or_else(|_| serde_json::from_str(&without_nan(body)))
        .map_err(|error| format!("the reply is not JSON: {error}"))
}

fn without_nan(body: &str) -> String {
    let mut text = String::with_capacity(body.len());
    let (mut rest, mut quoted) = (body, false);
    while let Some(next) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"];
        let word = word.iter().find(|word| !quoted && rest.starts_with(**word));
        let taken = match (next, word) {
            (_, Some(word)) => {
                text.push_str("null");
                word.len()
            }
            ('\\', None) if quoted => {
                let both = rest.chars().take(2).map(char::len_utf8).sum();
                text.push_str(&rest[..both]);
                both
            }
            (next, None) => {
                quoted ^= next == '"';
                text.push(next);
                next.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(reply: &Reply) -> Vec<&str> {
        let vectors = reply.vectors.iter();
        vectors
            .map(|vector| vector.as_ref().err().map_or("", String::as_str))
            .collect()
    }

    #[test]
    fn vectors_belong_to_their_index_and_bad_ones_have_a_reason() {
        let body = r#"{"data": [
            {"index": 3, "embedding": [0.5, 1]}, {"index": 0, "embedding": [1e39, 0]},
            {"index": 1, "embedding": [NaN, 2]}, {"index": 2, "embedding": [1, 2]}, {"index": 2, "embedding": [3, 4]},
            {"embedding": [7, 7]}, {"index": 9, "embedding": [7, 7]}, {"index": 4, "embedding": []}
        ], "model": "a \" NaN", "usage": {"prompt_tokens": 7, "total_tokens": 8}}"#;
        let reply = openai(body, 6).expect("a reply");
        assert_eq!((reply.tokens, &reply.vectors[3]), (8, &Ok(vec![0.5, 1.0])));
        let reasons = reasons(&reply);
        for (index, part) in [
            (0, "e+39"),
            (1, "NaN"),
            (2, "several"),
            (4, "empty"),
            (5, "no vector"),
        ] {
            assert!(reasons[index].contains(part), "{index}: {reasons:?}");
        }
        assert!(openai("{}", 1).is_err() && openai("<html>", 1).is_err());
    }

    #[test]
    fn replies_without_an_index_must_be_whole() {
        let body = r#"{"embeddings": [{"values": [1, 2]}, {"values": [-Infinity, 2]}]}"#;
        let reply = gemini(body, 2).expect("a reply");
        assert_eq!(reply.vectors[0], Ok(vec![1.0, 2.0]));
        assert!(reasons(&reply)[1].contains("finite"));
        assert!(
            gemini(body, 3)
                .expect_err("two of three")
                .contains("2 vectors of 3")
        );
    }
}
