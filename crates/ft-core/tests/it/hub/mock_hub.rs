//! A hub on the loopback device: enough of its interface to list and fetch models and datasets.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;

/// What a hub says; tests change it to what they need.
#[derive(Clone, Debug, Default)]
pub(super) struct Says {
    /// Commit that every branch is.
    pub(super) commit: String,
    /// Files of `org/name`.
    pub(super) files: BTreeMap<String, String>,
    /// Status of every answer whose path contains the text, with the hub's code of the error.
    pub(super) refuse: Option<(&'static str, u16, &'static str)>,
    /// A file whose body breaks off although its whole length is announced in the listing.
    pub(super) truncate: Option<&'static str>,
}

/// A running hub. It stops serving when the test's process ends.
pub(super) struct MockHub {
    pub(super) endpoint: String,
    says: Arc<Mutex<Says>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) authorization: Option<String>,
}

impl MockHub {
    pub(super) fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            says: Arc::new(Mutex::new(says)),
            requests: Arc::default(),
        };
        let (says, requests) = (hub.says.clone(), hub.requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (says, requests) = (says.clone(), requests.clone());
                std::thread::spawn(move || answer(stream, &says, &requests));
            }
        });
        hub
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Says)) {
        change(&mut self.says.lock().unwrap());
    }

    /// The requests since the last call.
    pub(super) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    /// Names of the files whose bodies were fetched since the last call, sorted.
    pub(super) fn take_fetched(&self) -> Vec<String> {
        let mut files: Vec<_> = self
            .take_requests()
            .into_iter()
            .filter(|request| request.method == "GET" && request.path.contains("/resolve/"))
            .filter_map(|request| request.path.rsplit('/').next().map(String::from))
            .collect();
        files.sort();
        files
    }
}

fn answer(stream: TcpStream, says: &Mutex<Says>, requests: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace().map(String::from);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return;
    };
    let mut authorization = None;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_string());
        }
    }
    let response = respond(&says.lock().unwrap(), &method, &path);
    requests.lock().unwrap().push(Request {
        method,
        path,
        authorization,
    });
    let mut stream = stream;
    let _ = stream.write_all(response.as_bytes());
}

/// The whole response; a `HEAD` announces the body's length and leaves it out.
fn respond(says: &Says, method: &str, path: &str) -> String {
    let write = |status: u16, headers: &str, body: &str| {
        let shown = if method == "HEAD" { "" } else { body };
        format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{shown}",
            body.len()
        )
    };
    let error = |status: u16, code: &str| {
        write(
            status,
            &format!("X-Error-Code: {code}\r\n"),
            r#"{"error": "the hub's own words"}"#,
        )
    };
    let path = path.split('?').next().unwrap_or(path);
    if let Some((part, status, code)) = says.refuse
        && path.contains(part)
    {
        return error(status, code);
    }
    let commit = &says.commit;
    if !path.contains("org/name") {
        return error(404, "RepoNotFound");
    }
    let of_repository = (path.strip_prefix("/api/models/org/name/"))
        .or_else(|| path.strip_prefix("/api/datasets/org/name/"));
    if let Some(revision) = of_repository.and_then(|path| path.strip_prefix("revision/")) {
        return match revision {
            "main" | "refs%2Fpr%2F1" => {
                let info = json!({"id": "org/name", "sha": commit});
                write(200, "", &info.to_string())
            }
            _ => error(404, "RevisionNotFound"),
        };
    }
    if of_repository.is_some_and(|path| path == format!("tree/{commit}")) {
        let entries: Vec<_> = says
            .files
            .iter()
            .map(|(path, body)| json!({"type": "file", "oid": "0", "size": body.len(), "path": path}))
            .collect();
        return write(200, "", &json!(entries).to_string());
    }
    let path = path.strip_prefix("/datasets").unwrap_or(path);
    let path = &path.replace("%20", " ");
    let file = path.strip_prefix(&format!("/org/name/resolve/{commit}/"));
    match file.and_then(|file| Some((file, says.files.get(file)?))) {
        Some((file, body)) => {
            let etag = etag(body);
            let headers = format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {commit}\r\n");
            if says.truncate == Some(file) && method == "GET" {
                return write(200, &headers, &body[..body.len() / 2]);
            }
            write(200, &headers, body)
        }
        None => error(404, "EntryNotFound"),
    }
}

/// A name for the content, as git and LFS give it.
fn etag(body: &str) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
