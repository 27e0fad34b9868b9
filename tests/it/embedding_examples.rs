//! The examples of embedding models, on a tiny random model.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json as object};
use tempfile::TempDir;

use crate::examples::{command, json, number, path, run};
use crate::mock_server::{Act, MockServer};

/// A folder of the tests of ft-embed.
fn golden(name: &str) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/ft-embed/tests/golden");
    golden.join(name)
}

/// A tiny folder of sentence-transformers.
fn tiny() -> PathBuf {
    golden("tiny")
}

/// Pairs with the label 1 for every second row.
fn pairs(folder: &TempDir, labels: bool) -> PathBuf {
    let words = ["cat", "dog", "mat", "ran", "sat", "over"];
    let rows = (0..24).map(|i| {
        let (a, b) = (words[i % 6], words[(i / 6 + i) % 6]);
        let mut row =
            object!({"sentence1": format!("the {a} {i}"), "sentence2": format!("a {b} on {i}")});
        if labels {
            row["label"] = (i % 2).into();
        }
        row
    });
    let data = folder.path().join("pairs.json");
    std::fs::write(&data, Value::from_iter(rows).to_string()).expect("writes");
    data
}

#[test]
fn an_embedding_model_is_trained_and_measured_by_what_its_labels_mean() {
    let work = TempDir::new().expect("folder");
    let (model, data) = (tiny(), pairs(&work, true));
    let output = work.path().join("model");
    let arguments = |more: &[&'static str]| {
        let own = [
            "--model",
            path(&model),
            "--data",
            path(&data),
            "--output",
            path(&output),
        ];
        let mut all: Vec<String> = own.map(str::to_string).to_vec();
        let rest = [
            "--max-steps",
            "2",
            "--batch-size",
            "4",
            "--eval-fraction",
            "0.4",
            "--overwrite",
        ];
        all.extend(rest.iter().chain(more).map(|own| (*own).to_string()));
        all
    };
    let refused = arguments(&[]);
    let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
    let found = run("embed_train", &refused);
    let error = String::from_utf8_lossy(&found.stderr).into_owned();
    assert!(
        !found.status.success() && error.contains("positives"),
        "{error}"
    );
    let cases: [(&[&str], &str); 3] = [
        (&["--min-label", "1"], "ndcg"),
        (&["--loss", "contrastive"], "ndcg"),
        (&["--loss", "cosent", "--matryoshka", "10,4"], "spearman"),
    ];
    for (more, measure) in cases {
        let all = arguments(more);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let line = json("embed_train", &all);
        for when in ["before", "after"] {
            let value = number(&line, &format!("{measure}_{when}"));
            assert!((-1.0..=1.0).contains(&value), "{line}");
        }
        let by_dims = line[format!("{measure}_after_by_dims")].as_object();
        let dims = 1 + usize::from(measure == "spearman");
        assert_eq!(by_dims.map(serde_json::Map::len), Some(dims), "{line}");
    }
}

#[test]
fn stored_embeddings_are_those_of_the_folder_as_it_is() {
    let work = TempDir::new().expect("folder");
    let model = work.path().join("model");
    copy(&tiny(), &model);
    let (data, output) = (pairs(&work, false), work.path().join("report"));
    let cached = || {
        let arguments = [
            "--models",
            path(&model),
            "--pairs",
            path(&data),
            "--output",
            path(&output),
        ];
        let line = json("retrieval_benchmark", &arguments);
        line["models"][0]["details"]["cached"].clone()
    };
    assert_eq!(cached(), false);
    assert_eq!(cached(), true);
    let pooling = model.join("1_Pooling/config.json");
    let other = r#"{"embedding_dimension": 16, "pooling_mode": "cls", "include_prompt": true}"#;
    std::fs::write(pooling, other).expect("writes");
    assert_eq!(cached(), false);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("reads") {
        let path = entry.expect("entry").path();
        let own = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &own),
            false => drop(std::fs::copy(&path, own).expect("copies")),
        }
    }
}

/// A chat model that asks two questions about each text; every third request fails.
fn asking_server() -> MockServer {
    let requests = AtomicUsize::new(0);
    MockServer::start(move |request, _| {
        if requests.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
            return Act::Status(500, "", "{\"error\": \"busy\"}");
        }
        let text = request["messages"][1]["content"].as_str().expect("a text");
        let last = text.lines().last().expect("a line");
        let questions = [format!("What about {last}?"), format!("Is it {last}?")];
        Act::Say(object!({"questions": questions}).to_string())
    })
}

#[test]
fn questions_about_documents_are_asked_once_and_make_a_benchmark() {
    let work = TempDir::new().expect("folder");
    let documents = work.path().join("documents");
    std::fs::create_dir_all(&documents).expect("folder");
    let animals =
        "# Animals\n\n## Cats\n\nthe cat sat on the mat\n\n## Dogs\n\nA dog ran over the mat\n";
    std::fs::write(documents.join("animals.md"), animals).expect("writes");
    std::fs::write(documents.join("mat.txt"), "the mat ran\n").expect("writes");
    let server = asking_server();
    let (model, output) = (tiny(), work.path().join("report"));
    let run = || {
        let arguments = [
            "--models",
            path(&model),
            "--documents",
            path(&documents),
            "--endpoint",
            server.url.as_str(),
            "--output",
            path(&output),
            "--measures",
            "recall@10",
        ];
        json("retrieval_benchmark", &arguments)
    };
    let line = run();
    // Three pieces are searched, with two questions about each; all of them are among the first ten.
    assert_eq!(
        (number(&line, "documents"), number(&line, "queries")),
        (3.0, 6.0)
    );
    assert_eq!(line["models"][0]["means"]["recall@10"], 1.0);
    assert_eq!(server.answered(), 3);
    let again = run();
    assert_eq!(server.answered(), 3);
    assert_eq!(again["models"][0]["means"], line["models"][0]["means"]);
    // What was asked serves as pairs.
    let pairs = output.join("questions.jsonl");
    let report = work.path().join("again");
    let arguments = [
        "--models",
        path(&model),
        "--pairs",
        path(&pairs),
        "--output",
        path(&report),
    ];
    assert_eq!(
        number(&json("retrieval_benchmark", &arguments), "queries"),
        6.0
    );
}

/// all-MiniLM-L6-v2, if `FT_TEST_MODELS` names a folder with it; a tiny static model if not.
fn second_model() -> PathBuf {
    let models = std::env::var_os("FT_TEST_MODELS").filter(|folder| !folder.is_empty());
    let folder = models.map(|models| PathBuf::from(models).join("all-minilm-l6-v2"));
    let folder = folder.filter(|folder| folder.is_dir());
    folder.unwrap_or_else(|| golden("tiny_static"))
}

/// An embedding model whose vectors count letters. Of one query it always gives NaN, of one document always a longer
/// vector; each request fails at first.
fn embedding_server() -> MockServer {
    MockServer::start(|request, before| {
        let texts = request["input"].as_array().expect("texts");
        let texts: Vec<&str> = texts
            .iter()
            .map(|text| text.as_str().expect("a text"))
            .collect();
        std::thread::sleep(Duration::from_millis(20));
        if before == 0 {
            return match texts.concat().len() % 2 {
                0 => Act::Status(429, "Retry-After: 0.01\r\n", "slow down"),
                _ => Act::Status(500, "Retry-After: 0.01\r\n", "busy"),
            };
        }
        let item = |(index, text): (usize, &&str)| {
            let mut vector: Vec<f64> = vec![0.0; 64];
            for byte in text.bytes() {
                vector[usize::from(byte) % 64] += 1.0;
            }
            let mut vector = object!(vector);
            match *text {
                "the cat 0" => vector[5] = Value::Null,
                "a dog on 1" => vector.as_array_mut().expect("numbers").push(1.0.into()),
                _ => {}
            }
            object!({"index": index, "embedding": vector})
        };
        let data: Vec<Value> = texts.iter().enumerate().map(item).collect();
        let usage = object!({"prompt_tokens": texts.len(), "total_tokens": texts.len()});
        Act::Reply(
            object!({"data": data, "usage": usage})
                .to_string()
                .replace("null", "NaN"),
        )
    })
}

#[test]
fn local_models_and_a_server_that_misbehaves_are_compared_over_a_kill() {
    let work = TempDir::new().expect("folder");
    let (data, output) = (pairs(&work, false), work.path().join("report"));
    let server = embedding_server();
    let models = format!(
        "{},{},openai:letters@{}?batch=4&concurrency=1&attempts=3&price=2e6",
        path(&tiny()),
        path(&second_model()),
        server.url
    );
    let arguments = [
        "--models",
        models.as_str(),
        "--pairs",
        path(&data),
        "--output",
        path(&output),
        "--measures",
        "recall@24,mrr",
    ];
    let mut child = command("retrieval_benchmark", &arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let start = Instant::now();
    while server.answered() < 4 {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "nothing is asked for"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("runs");
    child.wait().expect("ends");
    std::thread::sleep(Duration::from_millis(50));
    let kept = server.answered();
    assert!(kept < 12, "it was too late");

    let line = json("retrieval_benchmark", &arguments);
    let served = &line["models"][2];
    assert_eq!(
        (&served["model"], &line["queries"]),
        (&"letters".into(), &24.into())
    );
    // Local models are not computed again, and only the request that was under way is sent again.
    assert_eq!(line["models"][0]["details"]["cached"], true);
    let spent = &served["details"]["spent"];
    let cached = number(spent, "cached");
    assert!(cached >= 4.0 * (kept - 1) as f64 - 2.0, "{kept} {spent}");
    assert_eq!(number(spent, "vectors") + cached, 46.0);
    assert_eq!(
        number(&served["details"], "cost"),
        2.0 * number(spent, "tokens")
    );
    let missing: Vec<(&str, &str)> = (line["missing"].as_array().expect("a list").iter())
        .map(|missing| {
            (
                missing["name"].as_str().expect("a name"),
                missing["reason"].as_str().expect("a reason"),
            )
        })
        .collect();
    let [("q1", nan), ("d2", dims)] = missing.as_slice() else {
        panic!("{missing:?}");
    };
    assert!(
        nan.contains("NaN") && dims.contains("65 numbers"),
        "{missing:?}"
    );
    // All documents are among the first 24, except those that are missing; the query counts as not answered.
    assert_eq!(served["unanswered"], 1);
    assert_eq!(number(&served["means"], "recall@24"), 22.0 / 24.0);
    assert_eq!(number(&line["models"][0]["means"], "recall@24"), 1.0);
    let trec = std::fs::read_to_string(output.join("runs/letters.trec")).expect("reads");
    assert_eq!(trec.lines().count(), 23 * 23);
    assert!(!trec.contains("q1 ") && !trec.contains(" d2 "), "{trec}");
    let report = std::fs::read_to_string(output.join("report.md")).expect("reads");
    assert!(
        report.contains("## Missing vectors") && report.contains("| letters | document | d2 |"),
        "{report}"
    );

    let before = server.answered();
    let again = json("retrieval_benchmark", &arguments);
    // The two texts, alone, in three rounds.
    assert_eq!(server.answered() - before, 6);
    assert_eq!(again["models"][2]["details"]["spent"]["vectors"], 0);
    for model in 0..3 {
        assert_eq!(
            again["models"][model]["means"],
            line["models"][model]["means"]
        );
    }
    assert_eq!(again["tests"], line["tests"]);
}

#[test]
fn two_languages_have_four_directions_and_models_have_pictures() {
    let work = TempDir::new().expect("folder");
    let (data, output) = (pairs(&work, false), work.path().join("report"));
    // A language that has the same words, but not for one query.
    let server = MockServer::start(|request, _| {
        let instruction = request["messages"][0]["content"].as_str().expect("a text");
        assert!(instruction.contains("into Old German"), "{instruction}");
        match request["messages"][1]["content"].as_str().expect("a text") {
            "the dog 1" => Act::Say("I cannot.".to_string()),
            text => Act::Say(object!({"translation": text}).to_string()),
        }
    });
    let (model, reranker) = (golden("tiny_static"), golden("tiny_pairs"));
    let arguments = [
        "--models",
        path(&model),
        "--pairs",
        path(&data),
        "--languages",
        "English,Old German",
        "--translate",
        "--endpoint",
        server.url.as_str(),
        "--output",
        path(&output),
        "--measures",
        "ndcg@10,recall@100",
        "--rerank",
        path(&reranker),
        "--rerank-depth",
        "5",
        "--pictures",
    ];
    let line = json("retrieval_benchmark", &arguments);
    assert_eq!(
        (number(&line, "queries"), number(&line, "documents")),
        (46.0, 48.0)
    );
    assert_eq!(line["models"][1]["model"], "tiny_static+tiny_pairs");
    for model in line["models"].as_array().expect("a list") {
        let directions = model["directions"].as_object().expect("directions");
        let names: Vec<&str> = directions.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "English to English",
                "English to Old German",
                "Old German to English",
                "Old German to Old German"
            ]
        );
        for means in directions.values() {
            assert_eq!(number(means, "recall@100"), 1.0);
        }
        assert_eq!(number(&model["means"], "recall@100"), 1.0);
        let own = number(model, "own_language@10");
        assert!((0.4..=0.6).contains(&own), "{model}");
    }
    // The words are the same, so what is found is, too.
    let directions = line["models"][0]["directions"]
        .as_object()
        .expect("directions");
    let first = number(&directions["English to English"], "ndcg@10");
    for means in directions.values() {
        assert!((number(means, "ndcg@10") - first).abs() < 1e-9, "{line}");
    }
    let asked = server.answered();
    json("retrieval_benchmark", &arguments);
    assert_eq!(server.answered(), asked);
    let translated =
        std::fs::read_to_string(output.join("queries.Old_German.jsonl")).expect("reads");
    assert_eq!(translated.lines().count(), 23);
    for (kind, titles) in [("tsne", 46 + 48), ("similarity", 23 * 23)] {
        let name = format!("pictures/tiny_static.{kind}.svg");
        assert!(
            line["pictures"]
                .as_array()
                .expect("a list")
                .contains(&name.as_str().into())
        );
        let svg = std::fs::read_to_string(output.join(&name)).expect("reads");
        assert_eq!(svg.matches("<title>").count(), titles, "{kind}");
        assert!(svg.ends_with("</svg>\n"));
    }
}
