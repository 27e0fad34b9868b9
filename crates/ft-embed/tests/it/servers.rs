//! Embedding models behind servers that misbehave: no vector is wrong, counted twice or asked for twice, and what is missing is reported.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ft_embed::{
    EmbeddingProtocol, EmbeddingServer, EmbeddingServerOptions, Error, ServedEmbeddings,
};
use ft_eval::server::ServerOptions;
use serde_json::{Value, json};

use crate::mock_server::{Act, MockServer};

const DIMS: usize = 4;

fn options() -> EmbeddingServerOptions {
    EmbeddingServerOptions {
        batch: 16,
        concurrency: 3,
        query_prompt: "query: ".to_string(),
        server: ServerOptions {
            attempts: 4,
            timeout: Duration::from_millis(600),
            first_pause: Duration::from_millis(2),
            longest_pause: Duration::from_millis(20),
            ..ServerOptions::default()
        },
        ..EmbeddingServerOptions::default()
    }
}

fn open(url: &str, cache: &Path, options: EmbeddingServerOptions) -> EmbeddingServer {
    EmbeddingServer::open(EmbeddingProtocol::OpenAi, url, "mock", options, cache).expect("opens")
}

/// The vector of a text: its length and bytes.
fn vector(text: &str, dims: usize) -> Vec<f32> {
    let number = |i: usize| {
        let bytes = text.bytes().skip(i).step_by(dims);
        bytes.map(|byte| f32::from(byte) / 64.0).sum::<f32>() + 1.0
    };
    (0..dims).map(number).collect()
}

fn inputs(request: &Value) -> Vec<&str> {
    let input = request["input"].as_array().expect("texts");
    input
        .iter()
        .map(|text| text.as_str().expect("a text"))
        .collect()
}

/// OpenAI's reply, with a change of its items.
fn reply(request: &Value, change: impl FnOnce(&mut Vec<Value>)) -> Act {
    let texts = inputs(request);
    let mut data: Vec<Value> = (texts.iter().enumerate())
        .map(
            |(i, text)| json!({"object": "embedding", "index": i, "embedding": vector(text, DIMS)}),
        )
        .collect();
    // Order must not matter.
    data.reverse();
    change(&mut data);
    let usage = json!({"prompt_tokens": 3 * texts.len(), "total_tokens": 3 * texts.len()});
    Act::Reply(json!({"data": data, "usage": usage}).to_string())
}

/// The place of a text's item among the reversed ones.
fn place(request: &Value, word: &str) -> Option<usize> {
    let texts = inputs(request);
    let index = texts.iter().position(|text| text.contains(word))?;
    Some(texts.len() - 1 - index)
}

/// Texts with `broken` never get a vector, those with `once` not in a batch; requests fail for many reasons before they are answered.
fn misbehave(request: &Value, before: usize) -> Act {
    let texts = inputs(request);
    let number = texts.iter().map(|text| text.len()).sum::<usize>();
    if before == 0 {
        match number % 6 {
            0 => return Act::Status(429, "Retry-After: 0.005\r\n", "slow down"),
            1 => return Act::Status(500, "", "{\"error\": {\"message\": \"busy\"}}"),
            2 => return Act::Garbage,
            3 => return Act::Cut,
            4 => return Act::HangUp,
            _ => {}
        }
    }
    let alone = texts.len() == 1;
    if place(request, "broken status").is_some() {
        return Act::Status(500, "", "{\"error\": {\"message\": \"it hurts\"}}");
    }
    if place(request, "too long").is_some() {
        return Act::Status(
            400,
            "",
            "{\"error\": {\"message\": \"512 tokens at most\"}}",
        );
    }
    let nan = place(request, "broken nan").or(place(request, "once nan").filter(|_| !alone));
    let longer = place(request, "broken dims").or(place(request, "once dims").filter(|_| !alone));
    let unnamed = place(request, "once index").filter(|_| !alone);
    let twice = place(request, "once twice").filter(|_| !alone);
    let act = reply(request, |data| {
        if let Some(i) = nan {
            data[i]["embedding"][1] = Value::Null;
        }
        if let Some(i) = longer {
            let long = vector("other", DIMS + 2);
            data[i]["embedding"] = json!(long);
        }
        if let Some(i) = unnamed {
            data[i].as_object_mut().expect("an item").remove("index");
        }
        if let Some(i) = twice {
            let mut again = data[i].clone();
            again["embedding"][0] = 9.0.into();
            data.push(again);
        }
    });
    match act {
        // Python writes NaN.
        Act::Reply(body) => Act::Reply(body.replace("null", "NaN")),
        other => other,
    }
}

fn texts() -> (Vec<String>, Vec<String>) {
    let mut queries: Vec<String> = (0..21).map(|i| format!("question {i}")).collect();
    queries[4] = "broken nan".to_string();
    queries[9] = "once dims".to_string();
    // The same text twice.
    queries[20] = queries[0].clone();
    let mut documents: Vec<String> = (0..60)
        .map(|i| format!("document number {i} of all"))
        .collect();
    for (i, text) in [
        (3, "broken status"),
        (7, "once nan"),
        (13, "once index"),
        (19, "broken dims"),
        (27, "once twice"),
        (40, "too long"),
    ] {
        documents[i] = text.to_string();
    }
    (queries, documents)
}

fn check(found: &ServedEmbeddings) {
    let (queries, documents) = texts();
    let of = |found: &ft_embed::FoundEmbeddings| -> Vec<usize> {
        found.missing.iter().map(|missing| missing.text).collect()
    };
    assert_eq!(
        (of(&found.queries), of(&found.documents)),
        (vec![4], vec![3, 19, 40])
    );
    let reasons: Vec<&str> = (found.queries.missing.iter().chain(&found.documents.missing))
        .map(|missing| missing.reason.as_str())
        .collect();
    for (reason, part) in reasons
        .iter()
        .zip(["NaN", "it hurts", "6 numbers", "512 tokens"])
    {
        assert!(reason.contains(part), "{part}: {reasons:?}");
    }
    for (found, texts, prompt) in [
        (&found.queries, &queries, "query: "),
        (&found.documents, &documents, ""),
    ] {
        assert_eq!(found.texts.len() + found.missing.len(), texts.len());
        assert_eq!(found.embeddings.len(), found.texts.len());
        for (row, &text) in found.embeddings.rows().zip(&found.texts) {
            assert_eq!(
                row,
                vector(&format!("{prompt}{}", texts[text]), DIMS),
                "{text}"
            );
        }
    }
}

#[test]
fn vectors_are_right_or_missing_and_none_is_asked_for_twice() {
    let server = MockServer::start(misbehave);
    let folder = tempfile::TempDir::new().expect("folder");
    let cache = folder.path().join("mock.vectors");
    let (queries, documents) = texts();
    let client = open(&server.url, &cache, options());
    let mut last = (0, 0);
    let found = client.encode(&queries, &documents, &mut |done, of| last = (done, of));
    check(&found.expect("vectors"));
    // 20 different queries and 60 documents, four of which have no vector.
    assert_eq!(last, (80, 80));
    let spent = client.spent();
    assert_eq!((spent.vectors, spent.cached), (76, 0));
    assert_eq!(spent.requests as usize, server.answered());
    {
        let seen = server.seen.lock().expect("no panic");
        assert!(seen.answered.values().all(|count| *count == 1));
        let asked = |request: &String| -> usize {
            let request = serde_json::from_str::<Value>(request).expect("JSON");
            inputs(&request).len()
        };
        let tokens: usize = seen.answered.keys().map(|request| 3 * asked(request)).sum();
        assert_eq!(spent.tokens as usize, tokens);
        assert_eq!(spent.cost(2e6), 2.0 * tokens as f64);
    }
    drop(client);

    // A second run asks only for what is missing: a query, and three documents.
    let before: HashSet<String> = {
        let seen = server.seen.lock().expect("no panic");
        seen.requests.keys().cloned().collect()
    };
    let client = open(&server.url, &cache, options());
    check(
        &client
            .encode(&queries, &documents, &mut |_, _| ())
            .expect("vectors"),
    );
    assert_eq!((client.spent().vectors, client.spent().cached), (0, 76));
    let seen = server.seen.lock().expect("no panic");
    for request in seen
        .requests
        .keys()
        .filter(|request| !before.contains(*request))
    {
        let request: Value = serde_json::from_str(request).expect("JSON");
        let only = ["broken", "too long"];
        assert!(
            inputs(&request)
                .iter()
                .all(|text| only.iter().any(|word| text.contains(word))),
            "{request}"
        );
    }
    assert_eq!(seen.paths.iter().collect::<Vec<_>>(), ["/v1/embeddings"]);
}

#[test]
fn dimensions_are_asked_for_and_checked() {
    let server = MockServer::start(|request, _| match request["dimensions"].as_u64() {
        // As servers do that ignore the wish.
        Some(3) => reply(request, |_| {}),
        Some(2) => reply(request, |data| {
            for item in data {
                item["embedding"]
                    .as_array_mut()
                    .expect("numbers")
                    .truncate(2);
            }
        }),
        _ => Act::Status(400, "", "{\"error\": \"dimensions?\"}"),
    });
    let folder = tempfile::TempDir::new().expect("folder");
    let cache = folder.path().join("mock.vectors");
    let with = |dims| EmbeddingServerOptions {
        dims: Some(dims),
        ..options()
    };
    let found = open(&server.url, &cache, with(2)).encode(&["a"], &["b", "c"], &mut |_, _| ());
    let found = found.expect("vectors");
    assert_eq!(found.documents.embeddings.row(1), &vector("c", DIMS)[..2]);
    let many: Vec<String> = (0..50).map(|i| i.to_string()).collect();
    let before = server.requests();
    let error = open(&server.url, &cache, with(3)).encode(&many[..0], &many, &mut |_, _| ());
    let error = error.expect_err("other dimensions").to_string();
    assert!(error.contains("4 numbers, not 3"), "{error}");
    // It is not tried again text by text.
    assert_eq!(server.requests() - before, 50usize.div_ceil(16));
}

#[test]
fn a_server_that_refuses_or_is_gone_ends_the_run_and_keeps_what_arrived() {
    let folder = tempfile::TempDir::new().expect("folder");
    let cache = folder.path().join("mock.vectors");
    let many: Vec<String> = (0..400).map(|i| format!("text {i}")).collect();
    let none: Vec<String> = Vec::new();
    let refused = MockServer::start(|_, _| Act::Status(401, "", "{\"error\": \"wrong key\"}"));
    let error = open(&refused.url, &cache, options()).encode(&none, &many, &mut |_, _| ());
    let error = error.expect_err("refused");
    assert!(
        matches!(error, Error::Server(_)) && error.to_string().contains("wrong key"),
        "{error}"
    );
    // One request of each thread at most.
    assert!(refused.requests() <= 3, "{}", refused.requests());

    // After five requests there is nothing but failures.
    let dying = MockServer::start(|request, _| match inputs(request)[0] {
        text if text
            .trim_start_matches("text ")
            .parse::<usize>()
            .is_ok_and(|i| i < 80) =>
        {
            reply(request, |_| {})
        }
        _ => Act::Status(503, "", "gone"),
    });
    let client = open(&dying.url, &cache, options());
    let error = client
        .encode(&none, &many, &mut |_, _| ())
        .expect_err("gone")
        .to_string();
    assert!(
        error.contains("in a row") && error.contains("80 of 400"),
        "{error}"
    );
    drop(client);
    let alive = MockServer::start(|request, _| reply(request, |_| {}));
    // The address belongs to the key of a vector.
    let client = open(&alive.url, &cache, options());
    let found = client
        .encode(&none, &many, &mut |_, _| ())
        .expect("vectors");
    assert_eq!(
        (found.documents.texts.len(), client.spent().vectors),
        (400, 400)
    );
}

#[test]
fn gemini_is_told_what_texts_are_for() {
    let server = MockServer::start(|request, _| {
        let requests = request["requests"].as_array().expect("requests");
        let vectors = requests.iter().map(|request| {
            assert_eq!(request["model"], "models/gemini-mock");
            assert_eq!(request["outputDimensionality"], 3);
            let text = request["content"]["parts"][0]["text"]
                .as_str()
                .expect("a text");
            let query = f32::from(request["taskType"] == "RETRIEVAL_QUERY");
            json!({"values": [query, text.len() as f32, 1.0]})
        });
        Act::Reply(json!({"embeddings": vectors.collect::<Vec<_>>()}).to_string())
    });
    let folder = tempfile::TempDir::new().expect("folder");
    let options = EmbeddingServerOptions {
        dims: Some(3),
        query_prompt: String::new(),
        server: ServerOptions {
            // A variable that is set in every process.
            api_key_env: Some("PATH".to_string()),
            ..options().server
        },
        ..options()
    };
    let cache = folder.path().join("gemini.vectors");
    let protocol = EmbeddingProtocol::Gemini;
    let client = EmbeddingServer::open(protocol, &server.url, "gemini-mock", options, &cache);
    let client = client.expect("opens");
    let found = client
        .encode(&["same", "a"], &["same"], &mut |_, _| ())
        .expect("vectors");
    assert_eq!(
        found.queries.embeddings.values(),
        [1.0, 4.0, 1.0, 1.0, 1.0, 1.0]
    );
    assert_eq!(found.documents.embeddings.values(), [0.0, 4.0, 1.0]);
    let key = std::env::var("PATH").expect("is set");
    let seen = server.seen.lock().expect("no panic");
    let paths: Vec<&String> = seen.paths.iter().collect();
    assert_eq!(paths, ["/v1/models/gemini-mock:batchEmbedContents"]);
    let sent = seen.authorization.clone().expect("a key");
    assert!(
        sent.to_lowercase().starts_with("x-goog-api-key:") && sent.ends_with(&key),
        "{sent}"
    );
    assert!(!format!("{client:?}").contains(&key));
}

const MANY: usize = 960;

fn many() -> Vec<String> {
    (0..MANY).map(|i| format!("document {i}")).collect()
}

/// The process that the other test starts and kills. On its own it has no effect.
#[test]
fn as_a_process_of_its_own() {
    if let (Ok(url), Ok(cache)) = (
        std::env::var("FT_TEST_EMBED_URL"),
        std::env::var("FT_TEST_EMBED_CACHE"),
    ) {
        let client = open(&url, cache.as_ref(), options());
        client
            .encode(&[], &many(), &mut |_, _| ())
            .expect("vectors");
    }
}

#[test]
fn a_killed_run_goes_on_with_what_had_arrived() {
    let server = MockServer::start(|request, _| {
        std::thread::sleep(Duration::from_millis(15));
        reply(request, |_| {})
    });
    let folder = tempfile::TempDir::new().expect("folder");
    let cache = folder.path().join("mock.vectors");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "servers::as_a_process_of_its_own"])
        .env("FT_TEST_EMBED_URL", &server.url)
        .env("FT_TEST_EMBED_CACHE", &cache)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let start = Instant::now();
    while server.answered() < 12 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "the child asks for nothing"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    // On Unix this is SIGKILL: no destructor runs, nothing is flushed.
    child.kill().expect("runs");
    child.wait().expect("ends");
    std::thread::sleep(Duration::from_millis(50));
    let kept = server.answered();
    assert!(kept < MANY / 16, "it was too late");

    let client = open(&server.url, &cache, options());
    let found = client
        .encode(&[], &many(), &mut |_, _| ())
        .expect("vectors");
    for (row, text) in found.documents.embeddings.rows().zip(many()) {
        assert_eq!(row, vector(&text, DIMS));
    }
    let spent = client.spent();
    assert_eq!((spent.cached + spent.vectors) as usize, MANY);
    // Only requests in progress at the time of the kill are repeated.
    assert!(
        spent.cached as usize >= 16 * (kept - 3),
        "{spent:?} of {kept} replies"
    );
}
