//! A server of chat and embedding models with programmable faults; tests of other crates use this file, too.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// The server's response to a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Answers with this text, as chat models do.
    Say(String),
    /// Answers with this body.
    Reply(String),
    /// The same in pieces, without a length.
    SayInChunks(String),
    /// Answers with a status, headers and a body.
    Status(u16, &'static str, &'static str),
    /// Waits for this time, then closes the connection.
    Stall(Duration),
    /// Closes the connection in the middle of the body.
    Cut,
    /// Closes the connection at once.
    HangUp,
    /// A body that is not JSON.
    Garbage,
    /// JSON without a choice.
    NoChoice,
}

/// The function from a request, and the number of equal requests before it, to the response.
type Script = dyn Fn(&Value, usize) -> Act + Send + Sync;

#[derive(Default)]
pub(crate) struct Seen {
    /// The number of times each request was received.
    pub(crate) requests: HashMap<String, usize>,
    /// The number of times each request was answered.
    pub(crate) answered: HashMap<String, usize>,
    /// The header with the key.
    pub(crate) authorization: Option<String>,
    /// The paths of all requests.
    pub(crate) paths: BTreeSet<String>,
}

impl Seen {
    pub(crate) fn all_requests(&self) -> usize {
        self.requests.values().sum()
    }

    pub(crate) fn all_answered(&self) -> usize {
        self.answered.values().sum()
    }
}

pub(crate) struct MockServer {
    pub(crate) url: String,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

impl MockServer {
    pub(crate) fn start(script: impl Fn(&Value, usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (script, shared): (Arc<Script>, _) = (Arc::new(script), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, seen) = (script.clone(), shared.clone());
                std::thread::spawn(move || {
                    // Clients may close the connection at any time.
                    let _ = serve(stream, &*script, &seen);
                });
            }
        });
        Self { url, seen }
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().unwrap().all_requests()
    }

    pub(crate) fn answered(&self) -> usize {
        self.seen.lock().unwrap().all_answered()
    }
}

fn serve(stream: TcpStream, script: &Script, seen: &Mutex<Seen>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    loop {
        let (mut length, mut line) = (0, String::new());
        let mut first = true;
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if first {
                let path = line.split(' ').nth(1).unwrap_or("");
                assert!(line.starts_with("POST /v1/"), "{line}");
                seen.lock().unwrap().paths.insert(path.to_string());
                first = false;
            }
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if lower.starts_with("authorization:") || lower.starts_with("x-goog-api-key:") {
                seen.lock().unwrap().authorization = Some(line.trim().to_string());
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let request: Value = serde_json::from_slice(&body).unwrap();
        let key = request.to_string();
        let before = {
            let mut seen = seen.lock().unwrap();
            let count = seen.requests.entry(key.clone()).or_default();
            *count += 1;
            *count - 1
        };
        match script(&request, before) {
            act @ (Act::Say(_) | Act::Reply(_)) => {
                *seen.lock().unwrap().answered.entry(key).or_default() += 1;
                let body = match act {
                    Act::Say(text) => reply(&text),
                    Act::Reply(body) => body,
                    _ => unreachable!(),
                };
                write!(
                    out,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )?;
            }
            Act::SayInChunks(text) => {
                *seen.lock().unwrap().answered.entry(key).or_default() += 1;
                write!(out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                for piece in reply(&text).as_bytes().chunks(7) {
                    write!(out, "{:x}\r\n", piece.len())?;
                    out.write_all(piece)?;
                    write!(out, "\r\n")?;
                }
                write!(out, "0\r\n\r\n")?;
            }
            Act::Status(status, headers, body) => {
                write!(
                    out,
                    "HTTP/1.1 {status} No\r\n{headers}Content-Length: {}\r\n\r\n{body}",
                    body.len()
                )?;
            }
            Act::Stall(time) => {
                std::thread::sleep(time);
                return Ok(());
            }
            Act::Cut => {
                let body = reply("{\"reason\": \"cut\"");
                write!(
                    out,
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
                    body.len() + 50,
                    &body[..body.len() / 2]
                )?;
                return Ok(());
            }
            Act::HangUp => return Ok(()),
            Act::Garbage => write!(out, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html>no<")?,
            Act::NoChoice => write!(
                out,
                "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{{\"choices\":[]}}"
            )?,
        }
        out.flush()?;
    }
}

fn reply(text: &str) -> String {
    json!({
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3},
    })
    .to_string()
}

/// The text between two marks.
pub(crate) fn between<'a>(text: &'a str, open: &str, close: &str) -> &'a str {
    let start = text.rfind(open).map_or(0, |at| at + open.len());
    let end = text[start..]
        .find(close)
        .map_or(text.len(), |at| start + at);
    text[start..end].trim()
}

/// The last message to the judge.
pub(crate) fn shown(request: &Value) -> String {
    let messages = request["messages"].as_array().unwrap();
    let last = messages.iter().rev().find(|message| {
        message["role"] == "user" && message["content"].as_str().unwrap().contains("</")
    });
    last.unwrap()["content"].as_str().unwrap().to_string()
}

/// A judge that prefers replies with the word good.
pub(crate) fn fair(request: &Value) -> String {
    let shown = shown(request);
    let good = |n| between(&shown, &format!("<response_{n}>"), "</").contains("good");
    let winner = match (good(1), good(2)) {
        (true, false) => "1",
        (false, true) => "2",
        _ => "tie",
    };
    json!({"reason": "It is called so.", "winner": winner}).to_string()
}
