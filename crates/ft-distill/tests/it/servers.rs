//! A teacher behind a server gives the files of the same teacher in memory.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use burn::module::Module;
use ft_core::safetensors_folder::read_tensors;
use ft_core::{CausalLm, TokenBatch};
use ft_distill::{ServerTeacher, write_top_logits};
use ft_eval::server::ServerOptions;
use serde_json::{Value, json};

use crate::distill::{device, rows, teacher};
use crate::mock_server::{Act, MockServer};

const K: usize = 5;
const VOCAB: usize = 97;

/// vLLM's replies by prompt: `k` tokens a position and the prompt's own, by their numbers.
fn replies(count: usize, k: usize) -> HashMap<String, Value> {
    let (teacher, device) = (teacher().valid(), device().inner());
    let of_row = |ids: Vec<u32>| {
        let logits = teacher.logits(&TokenBatch::from_ids(&ids, &device), None);
        let logps = burn::tensor::activation::log_softmax(logits, 2).into_data();
        let logps: Vec<f32> = logps.iter::<f32>().collect();
        let mut positions = vec![Value::Null];
        for (row, next) in logps.chunks(VOCAB).zip(&ids[1..]) {
            let mut order: Vec<usize> = (0..VOCAB).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            let own = order.iter().position(|token| *token == *next as usize);
            let own = own.filter(|place| *place >= k);
            let entry = |place: usize| {
                let token = order[place];
                let found = json!({"logprob": row[token], "rank": place + 1, "decoded_token": "?"});
                (token.to_string(), found)
            };
            let entries: BTreeMap<_, _> = (0..k).chain(own).map(entry).collect();
            positions.push(json!(entries));
        }
        let choice = json!({"index": 0, "text": "x", "prompt_logprobs": positions});
        (json!(ids).to_string(), json!({"choices": [choice]}))
    };
    rows(count)
        .into_iter()
        .map(|row| of_row(row.input_ids))
        .collect()
}

fn options() -> ServerOptions {
    ServerOptions {
        attempts: 4,
        timeout: Duration::from_millis(600),
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(20),
        ..ServerOptions::default()
    }
}

#[test]
fn a_server_that_misbehaves_gives_the_files_of_the_model() {
    let replies = replies(12, K);
    let server = MockServer::start(move |request, before| {
        assert_eq!(request["prompt_logprobs"], K);
        let prompt = request["prompt"].to_string();
        match before + prompt.len() % 4 {
            0 => Act::Status(429, "Retry-After: 0\r\n", "{}"),
            1 => Act::Garbage,
            2 => Act::Cut,
            _ => Act::Reply(replies[&prompt].to_string()),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let (served, local) = (folder.path().join("served"), folder.path().join("local"));
    let teacher = ServerTeacher::new(&server.url, "mock", options())
        .unwrap()
        .with_concurrency(3);
    let write = || teacher.write_top_logits(&rows(12), VOCAB, K, &served, &mut |_, _| ());
    let found = write().unwrap();
    let expected = write_top_logits(
        &crate::distill::teacher(),
        &rows(12),
        K,
        1.0,
        4,
        &local,
        &mut |_, _| (),
    );
    let expected = expected.unwrap();
    assert_eq!(found.positions(), expected.positions());
    assert!((found.mean_rest() - expected.mean_rest()).abs() < 1e-5);
    let [found, expected] = [&served, &local]
        .map(|folder| read_tensors(&folder.join("top-00000.safetensors")).unwrap());
    assert_eq!(
        found["tokens"].iter::<i32>().collect::<Vec<_>>(),
        expected["tokens"].iter::<i32>().collect::<Vec<_>>()
    );
    let pairs = found["logps"]
        .iter::<f32>()
        .zip(expected["logps"].iter::<f32>());
    assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-5));
    // What is there is not asked for again.
    let asked = server.requests();
    write().unwrap();
    assert_eq!(server.requests(), asked);
}

/// vLLM refuses more tokens than it was started for. Nothing further is asked for, and the folder takes another `k`.
#[test]
fn a_refusal_ends_the_run_and_leaves_the_folder_usable() {
    let replies = replies(12, K);
    let server = MockServer::start(move |request, _| match request["prompt_logprobs"] == K {
        true => Act::Reply(replies[&request["prompt"].to_string()].to_string()),
        false => Act::Status(400, "", "{\"error\": {\"message\": \"at most 5\"}}"),
    });
    let folder = tempfile::tempdir().unwrap();
    let teacher = ServerTeacher::new(&server.url, "mock", options()).unwrap();
    let teacher = teacher.with_concurrency(1);
    let write = |k| teacher.write_top_logits(&rows(12), VOCAB, k, folder.path(), &mut |_, _| ());
    let error = write(64).unwrap_err().to_string();
    assert!(error.contains("at most 5"), "{error}");
    assert_eq!(server.requests(), 1);
    assert_eq!(write(K).unwrap().k(), K);
    let error = write(4).unwrap_err().to_string();
    assert!(error.contains("another folder"), "{error}");
}

#[test]
fn replies_that_cannot_be_used_are_errors() {
    let error = |change: fn(&mut Value)| {
        let replies = replies(2, K);
        let server = MockServer::start(move |request, _| {
            let mut reply = replies[&request["prompt"].to_string()].clone();
            change(&mut reply["choices"][0]["prompt_logprobs"]);
            Act::Reply(reply.to_string())
        });
        let folder = tempfile::tempdir().unwrap();
        let teacher = ServerTeacher::new(&server.url, "mock", options()).unwrap();
        let found = teacher.write_top_logits(&rows(2), VOCAB, K, folder.path(), &mut |_, _| ());
        found.unwrap_err().to_string()
    };
    for (change, expected) in [
        (
            (|found| *found = Value::Null) as fn(&mut Value),
            "reasoning_traces",
        ),
        (|found| found[3] = Value::Null, "position 3"),
        (
            |found| found[3] = json!({"1": {"logprob": 0.5}}),
            "position 3",
        ),
        (
            |found| found[3] = json!({"1": {"logprob": -0.5}}),
            "--max-logprobs 5",
        ),
        (
            |found| found[2]["97"] = json!({"logprob": -9.0}),
            "token 97",
        ),
        (
            |found| drop(found.as_array_mut().unwrap().pop()),
            "positions for a row of",
        ),
    ] {
        let found = error(change);
        assert!(
            found.contains(expected) && found.contains("/v1/completions"),
            "{found}"
        );
    }
    let address = ServerTeacher::new("localhost:8000", "mock", options());
    assert!(address.unwrap_err().to_string().contains("http://"));
}
