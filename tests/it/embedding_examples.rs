//! The examples of embedding models, on a tiny random model.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json as object};
use tempfile::TempDir;

use crate::examples::{json, number, path, run};

/// A tiny folder of sentence-transformers.
fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/ft-embed/tests/golden/tiny")
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

/// A server with OpenAI's protocol that asks two questions about each text; every third request fails. Its address, and the number
/// of questions that it has asked.
fn asking_server() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let (answered, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let shared = answered.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (answered, requests) = (shared.clone(), requests.clone());
            std::thread::spawn(move || serve(stream, &answered, &requests));
        }
    });
    (url, answered)
}

/// Answers the requests of a connection until it is closed.
fn serve(mut stream: TcpStream, answered: &AtomicUsize, requests: &AtomicUsize) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim().is_empty() {
                break;
            }
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let request: Value = serde_json::from_slice(&body).ok()?;
        let text = request["messages"][1]["content"].as_str()?;
        let last = text.lines().last()?;
        let (status, reply) = match requests.fetch_add(1, Ordering::Relaxed) % 3 {
            2 => ("500 Internal Server Error", object!({"error": "busy"})),
            _ => {
                answered.fetch_add(1, Ordering::Relaxed);
                let questions = object!({"questions": [format!("What about {last}?"), format!("Is it {last}?")]});
                let message = object!({"role": "assistant", "content": questions.to_string()});
                (
                    "200 OK",
                    object!({"choices": [{"message": message, "finish_reason": "stop"}]}),
                )
            }
        };
        let reply = reply.to_string();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{reply}",
            reply.len()
        )
        .ok()?;
    }
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
    let (url, answered) = asking_server();
    let (model, output) = (tiny(), work.path().join("report"));
    let run = || {
        let arguments = [
            "--models",
            path(&model),
            "--documents",
            path(&documents),
            "--endpoint",
            url.as_str(),
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
    assert_eq!(answered.load(Ordering::Relaxed), 3);
    let again = run();
    assert_eq!(answered.load(Ordering::Relaxed), 3);
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
