//! A server with OpenAI's protocol for chats.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

type Reply = dyn Fn(&str) -> String + Send + Sync;

/// Starts a server that replies to the last message of each request. Its address, and the number of replies so far.
pub(crate) fn chat_server(
    reply: impl Fn(&str) -> String + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let replies = Arc::new(AtomicUsize::new(0));
    let (shared, reply): (_, Arc<Reply>) = (replies.clone(), Arc::new(reply));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (replies, reply) = (shared.clone(), reply.clone());
            std::thread::spawn(move || serve(stream, &replies, &*reply));
        }
    });
    (url, replies)
}

/// Answers the requests of a connection until it is closed.
fn serve(mut stream: TcpStream, replies: &AtomicUsize, reply: &Reply) -> Option<()> {
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
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let request: Value = serde_json::from_slice(&body).ok()?;
        let last = request["messages"].as_array()?.last()?;
        let message = json!({"role": "assistant", "content": reply(last["content"].as_str()?)});
        let body = json!({"choices": [{"message": message, "finish_reason": "stop"}]}).to_string();
        replies.fetch_add(1, Ordering::Relaxed);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
        write!(
            stream,
            "{head}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
    }
}
