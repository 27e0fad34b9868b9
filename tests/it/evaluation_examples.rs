//! The examples of evaluation, as a user runs them.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::examples::{json, run};
use crate::shipped_model::folder;

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/data")
        .join(name);
    path.to_str().expect("UTF-8").to_string()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn texts_are_scored() {
    let temp = TempDir::new().expect("temporary folder");
    let [predictions, references] = ["p.txt", "r.txt"].map(|name| temp.path().join(name));
    std::fs::write(
        &predictions,
        "The dog bit the man.\nIt was not unexpected.\n",
    )
    .expect("writes");
    std::fs::write(&references, "The dog bit the man.\nIt was expected.\n").expect("writes");
    let found = json(
        "evaluate_text",
        &[
            "--predictions",
            text(&predictions),
            "--references",
            text(&references),
        ],
    );
    for key in [
        "bleu",
        "chrf",
        "ter",
        "rouge1",
        "rouge2",
        "rougeL",
        "rougeLsum",
        "meteor",
        "exact_match",
        "token_f1",
    ] {
        assert!(found[key].is_number(), "{key} of {found}");
    }
    assert!((found["bleu"].as_f64().expect("a number") - 65.760_929).abs() < 1e-6);
    assert_eq!(
        found["bleu_signature"],
        "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
    );
}

#[test]
fn benchmarks_are_run_cached_and_compared() {
    let (model, output) = (folder(), TempDir::new().expect("temporary folder"));
    let cache = output.path().join("answers.jsonl");
    let data = data("benchmarks");
    let arguments = [
        "--model",
        text(&model),
        "--tasks",
        "piqa,gsm8k",
        "--data",
        &data,
        "--output",
        text(output.path()),
        "--cache",
        text(&cache),
        "--log-samples",
    ];
    let first = json("harness", &arguments);
    assert_eq!(first["documents"], 6);
    assert!(
        first["results"]["piqa"]["acc,none"].is_number()
            && first["results"]["gsm8k"]["exact_match,strict-match"].is_number()
    );
    let kept = std::fs::read_to_string(&cache).expect("reads");
    assert_eq!(kept.lines().count(), 10);
    let results = first["results_file"].as_str().expect("a path");
    // An equal run, from the cache, is not a regression.
    let again = json(
        "harness",
        &[&arguments[..], &["--baseline", results]].concat(),
    );
    assert_eq!(again["results"], first["results"]);
    assert_eq!(again["regressions"], serde_json::json!([]));
    assert_eq!(std::fs::read_to_string(&cache).expect("reads"), kept);

    // A better baseline fails the run.
    let mut better: Value =
        serde_json::from_str(&std::fs::read_to_string(results).expect("reads")).expect("JSON");
    better["results"]["piqa"]["acc_norm,none"] = 1.0.into();
    let better_path = output.path().join("better.json");
    std::fs::write(&better_path, better.to_string()).expect("writes");
    let failed = run(
        "harness",
        &[&arguments[..], &["--baseline", text(&better_path)]].concat(),
    );
    let stderr = String::from_utf8_lossy(&failed.stderr);
    assert!(
        !failed.status.success()
            && stderr.contains("worse than the baseline")
            && stderr.contains("piqa"),
        "{stderr}"
    );

    let short = json(
        "harness",
        &[
            "--model",
            text(&model),
            "--tasks",
            "gsm8k",
            "--data",
            &data,
            "--output",
            text(output.path()),
            "--gen-kwargs",
            "max_gen_toks=3,temperature=0",
        ],
    );
    assert_eq!(short["documents"], 2);
    let unknown = run(
        "harness",
        &[
            "--model",
            text(&model),
            "--tasks",
            "piqqa",
            "--data",
            &data,
            "--output",
            text(output.path()),
        ],
    );
    let stderr = String::from_utf8_lossy(&unknown.stderr);
    assert!(
        !unknown.status.success() && stderr.contains("piqqa"),
        "{stderr}"
    );
}

#[test]
fn a_local_model_judges_and_invalid_verdicts_are_missing() {
    let (model, output) = (folder(), TempDir::new().expect("temporary folder"));
    let pairs = data("pairs.jsonl");
    let found = json(
        "judge",
        &[
            "--data",
            &pairs,
            "--mode",
            "pairwise",
            "--local",
            text(&model),
            "--output",
            text(output.path()),
            "--attempts",
            "1",
            "--max-tokens",
            "8",
        ],
    );
    // A model that tells stories does not write JSON.
    assert_eq!(
        (&found["verdicts"], &found["missing"]),
        (&Value::from(0), &Value::from(4))
    );
    assert_eq!(found["win_rate_a"]["rate"]["share"], Value::Null);
    let verdicts = std::fs::read_to_string(output.path().join("verdicts.jsonl")).expect("reads");
    assert_eq!(verdicts.lines().count(), 4);
    assert!(verdicts.contains("cut off after 8 tokens"), "{verdicts}");
    let wrong = run(
        "judge",
        &[
            "--data",
            &pairs,
            "--mode",
            "pointwise",
            "--local",
            text(&model),
            "--output",
            text(output.path()),
        ],
    );
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("row 1"));
}

#[test]
fn stages_are_compared() {
    let (model, output) = (folder(), TempDir::new().expect("temporary folder"));
    let (domain, general) = (data("corpus/phrases.txt"), data("corpus/facts.txt"));
    let report = json(
        "compare_stages",
        &[
            "--stage",
            "domain",
            "--model",
            text(&model),
            "--previous",
            text(&model),
            "--domain",
            &domain,
            "--general",
            &general,
            "--limit",
            "3",
            "--output",
            text(output.path()),
        ],
    );
    assert_eq!(
        (
            &report["passed"],
            &report["measures"][0]["difference_interval"]
        ),
        (&Value::from(true), &serde_json::json!([0.0, 0.0]))
    );
    let markdown = std::fs::read_to_string(output.path().join("report.md")).expect("reads");
    assert!(
        markdown.contains("bits per byte, domain texts"),
        "{markdown}"
    );
}
