//! The functions of `tasks/own/utils.py` in `tests/golden/harness.py`.

use ft_eval::harness::{
    Doc, Function, FunctionRegistry, FunctionResult, MetricValue, Metrics, Response,
};
use serde_json::{Value, json};

pub(crate) fn functions() -> FunctionRegistry {
    fn process_docs(docs: Vec<Doc>) -> FunctionResult<Vec<Doc>> {
        let kept = docs
            .into_iter()
            .filter(|doc| doc["id"].as_i64().unwrap_or(0) % 3 != 0);
        Ok(kept
            .map(|mut doc| {
                let query = doc["question"].as_str().unwrap_or("").trim().to_uppercase();
                doc["query"] = json!(query);
                doc["gold"] = json!(doc["id"].as_i64().unwrap_or(0) % 2);
                doc["size"] = json!(doc["choices"].as_array().map_or(0, Vec::len));
                doc
            })
            .collect())
    }
    fn doc_to_text(doc: &Doc) -> FunctionResult<Value> {
        Ok(json!(format!(
            "{}?",
            doc["query"].as_str().ok_or("no query")?
        )))
    }
    fn doc_to_choice(doc: &Doc) -> FunctionResult<Value> {
        let query: String = doc["query"]
            .as_str()
            .ok_or("no query")?
            .chars()
            .take(5)
            .collect();
        Ok(json!([doc["choices"][0], format!("{query}x")]))
    }
    fn process_results(doc: &Doc, results: &[Response]) -> FunctionResult<Metrics> {
        let mut best = 0;
        let mut logps = Vec::new();
        for result in results {
            let Response::LogLikelihood(answer) = result else {
                return Err("not a log-likelihood".into());
            };
            logps.push(answer.logp);
        }
        for (i, logp) in logps.iter().enumerate() {
            if *logp > logps[best] {
                best = i;
            }
        }
        let best = best as i64;
        let gold = doc["gold"].as_i64().ok_or("no gold")?;
        let mut metrics = vec![
            (
                "hit".to_string(),
                MetricValue::Number(f64::from(u8::from(best == gold))),
            ),
            (
                "pair".to_string(),
                MetricValue::List(vec![MetricValue::Int(gold), MetricValue::Int(best)]),
            ),
        ];
        if doc["size"].as_i64() == Some(4) && doc["id"].as_i64().unwrap_or(0) % 2 == 1 {
            metrics.push(("odd".to_string(), MetricValue::Int(best)));
        }
        Ok(metrics)
    }
    fn share_of_ones(items: &[MetricValue]) -> FunctionResult<f64> {
        let ones = MetricValue::List(vec![MetricValue::Int(1), MetricValue::Int(1)]);
        Ok(items.iter().filter(|item| **item == ones).count() as f64 / items.len() as f64)
    }
    let mut functions = FunctionRegistry::new();
    functions.insert(
        "own/utils.process_docs",
        Function::ProcessDocs(process_docs),
    );
    functions.insert("own/utils.doc_to_text", Function::Doc(doc_to_text));
    functions.insert("own/utils.doc_to_choice", Function::Doc(doc_to_choice));
    functions.insert(
        "own/utils.process_results",
        Function::ProcessResults(process_results),
    );
    functions.insert(
        "own/utils.share_of_ones",
        Function::Aggregation(share_of_ones),
    );
    functions
}
