//! Judges with a real server, llama.cpp's, if the environment names it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ft_eval::judges::{
    CachedModel, ChatMessage, ChatModel, ChatRequest, OpenAiClient, Panel, ServerOptions,
    judge_pairs,
};

use super::unreliable::{judge, pairs};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `FT_LLAMA_SERVER=.../llama-server FT_LLAMA_MODEL=.../model.gguf`
#[test]
fn a_llama_server_judges() {
    let (Ok(program), Ok(model)) = (
        std::env::var("FT_LLAMA_SERVER"),
        std::env::var("FT_LLAMA_MODEL"),
    ) else {
        eprintln!(
            "skipped: FT_LLAMA_SERVER and FT_LLAMA_MODEL do not name llama.cpp's server and a model"
        );
        return;
    };
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let child = Command::new(program)
        .args([
            "-m",
            &model,
            "--port",
            &port.to_string(),
            "-np",
            "2",
            "-c",
            "4096",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(child);
    let options = ServerOptions {
        attempts: 60,
        first_pause: Duration::from_millis(200),
        longest_pause: Duration::from_millis(500),
        ..ServerOptions::default()
    };
    let client =
        OpenAiClient::new(&format!("http://127.0.0.1:{port}/v1"), "test", options).unwrap();
    // Wait until it has loaded its model.
    let hello = ChatRequest {
        messages: vec![ChatMessage::new("user", "Hello")],
        temperature: 0.0,
        max_tokens: 4,
        seed: Some(1),
        schema: None,
    };
    assert!(
        client
            .chat(&hello)
            .unwrap()
            .usage
            .unwrap()
            .completion_tokens
            > 0
    );

    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("replies.jsonl");
    let items = pairs(6);
    let panel = Panel {
        concurrency: 2,
        max_tokens: 120,
        ..Panel::default()
    };
    let start = Instant::now();
    let model = CachedModel::open(client, &cache).unwrap();
    let found = judge_pairs(&model, &judge(), &items, &panel, &mut |_, _| ());
    // The verdicts of a model with 135M parameters have no value; the test is that they match the schema.
    let arrived = found
        .iter()
        .flat_map(|c| [&c.a_first, &c.b_first])
        .filter(|order| order.is_ok())
        .count();
    let spent = model.spent();
    eprintln!(
        "{arrived} of 12 verdicts in {:?}, {spent:?}",
        start.elapsed()
    );
    for order in found.iter().flat_map(|c| [&c.a_first, &c.b_first]) {
        if let Err(missing) = order {
            assert!(
                !missing.reason.is_empty() && missing.attempts == 3,
                "{missing:?}"
            );
        }
    }
    assert!(arrived >= 6 && spent.failed == 0 && spent.completion_tokens > 0);
    let again = judge_pairs(&model, &judge(), &items, &panel, &mut |_, _| ());
    assert_eq!(again, found);
    assert_eq!(model.spent().replies, spent.replies);
}
