//! Runs that are logged to a server with MLflow's interface. With `FT_TEST_MLFLOW`, the address of a real one, to that too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ft_train::{MlflowTracker, Tracker, TrainConfig, Trainer};
use serde_json::{Value, json};

use crate::model::{Data, KillAfter, Net, alone, squared_error};
use crate::watching::config;

/// What the server was sent, and how it behaves.
#[derive(Default)]
struct Seen {
    /// Path and body of every request that was answered.
    requests: Vec<(String, Value)>,
    authorization: Option<String>,
    /// Whether requests with numbers are refused.
    refuses: bool,
    runs: usize,
}

struct Server {
    url: String,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("has an address"));
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let shared = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = shared.clone();
                // Clients may close the connection at any time.
                std::thread::spawn(move || serve(stream, &seen).unwrap_or_default());
            }
        });
        Self { url, seen }
    }

    fn refuse(&self, refuses: bool) {
        self.seen.lock().expect("is whole").refuses = refuses;
    }

    /// The bodies that were sent to a path, in order.
    fn sent(&self, path: &str) -> Vec<Value> {
        let seen = self.seen.lock().expect("is whole");
        let own = seen.requests.iter().filter(|(own, _)| own == path);
        own.map(|(_, body)| body.clone()).collect()
    }

    /// Step and value of every number of a name.
    fn numbers(&self, name: &str) -> Vec<(u64, f64)> {
        let batches = self.sent("runs/log-batch");
        let metrics = batches
            .iter()
            .filter_map(|body| body["metrics"].as_array())
            .flatten();
        let own = metrics.filter(|metric| metric["key"] == name);
        own.map(|metric| {
            let step = metric["step"].as_u64().expect("a step");
            (step, metric["value"].as_f64().expect("a number"))
        })
        .collect()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Seen>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    loop {
        let (mut path, mut length, mut line) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or_default().to_string();
            }
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if lower.starts_with("authorization:") {
                let value = line
                    .split_once(' ')
                    .map(|(_, value)| value.trim().to_string());
                seen.lock().expect("is whole").authorization = value;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = path.trim_start_matches("/api/2.0/mlflow/").to_string();
        let (status, answer) = answer(&path, &body, &mut seen.lock().expect("is whole"));
        let answer = answer.to_string();
        write!(
            out,
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
    }
}

fn answer(path: &str, body: &Value, seen: &mut Seen) -> (u16, Value) {
    let refused = seen.refuses && path == "runs/log-batch";
    let answer = match path {
        _ if refused => (503, json!({"message": "later"})),
        "experiments/create" => (200, json!({"experiment_id": "7"})),
        "runs/create" => {
            seen.runs += 1;
            let id = format!("run-{}", seen.runs);
            (200, json!({"run": {"info": {"run_id": id}}}))
        }
        "runs/log-batch" | "runs/update" => (200, json!({})),
        _ => (
            404,
            json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}),
        ),
    };
    if !refused {
        seen.requests.push((path.to_string(), body.clone()));
    }
    answer
}

fn run(url: &str, output: &std::path::Path, kill: Option<usize>, resume: bool) -> Option<Vec<f64>> {
    let config = TrainConfig {
        output_dir: Some(output.to_path_buf()),
        save_every: Some(1),
        resume,
        ..config(2.0)
    };
    let tracker = MlflowTracker::new(url, "small models", output)
        .with_run_name("net")
        .with_param("learning_rate", config.learning_rate);
    let mut trainer = Trainer::new(config, Data::of(&[2, 3, 1]), squared_error)
        .with_evaluation(Data::of(&[2, 2]))
        .with_tracker(tracker);
    if let Some(step) = kill {
        trainer = trainer.with_callback(KillAfter(step));
    }
    trainer
        .fit(Net::new(0.0))
        .ok()
        .map(|(_, report)| report.train_losses)
}

#[test]
fn a_run_is_logged_step_by_step_and_resumed_in_the_same_run() {
    let _turn = alone();
    let server = Server::start();
    let folder = tempfile::tempdir().expect("temporary folder");
    assert_eq!(run(&server.url, folder.path(), Some(3), false), None);
    let statuses = |server: &Server| -> Vec<Value> {
        let sent = server.sent("runs/update").into_iter();
        sent.map(|body| body["status"].clone()).collect()
    };
    assert_eq!(statuses(&server), ["FAILED"]);
    let losses = run(&server.url, folder.path(), None, true).expect("ends");
    assert_eq!(statuses(&server), ["FAILED", "RUNNING", "FINISHED"]);

    let created = server.sent("runs/create");
    assert_eq!(created.len(), 1);
    assert_eq!(created[0]["run_name"], "net");
    assert_eq!(created[0]["experiment_id"], "7");
    let mut numbers = server.numbers("train/loss");
    // A step that was taken again has the same number again.
    numbers.dedup();
    let expected: Vec<(u64, f64)> = (1..).zip(losses).collect();
    assert_eq!(numbers, expected);
    assert!(!server.numbers("eval/loss").is_empty());
    let params = &server.sent("runs/log-batch")[0]["params"];
    assert_eq!(*params, json!([{"key": "learning_rate", "value": "0.05"}]));
    let of_run = |body: &Value| body["run_id"] == "run-1";
    assert!(server.sent("runs/log-batch").iter().all(of_run));
}

#[test]
fn numbers_are_sent_again_when_a_server_comes_back() {
    let server = Server::start();
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut tracker =
        MlflowTracker::new(&server.url, "e", folder.path()).with_pause(Duration::from_millis(50));
    tracker.begin(0).expect("is there");
    server.refuse(true);
    for step in 1..=3 {
        tracker
            .log(step, &[("train/loss".into(), 1.0 / step as f64)])
            .expect("does not end the run");
    }
    assert_eq!(server.numbers("train/loss"), []);
    server.refuse(false);
    std::thread::sleep(Duration::from_millis(60));
    tracker
        .log(4, &[("train/loss".into(), f64::NAN)])
        .expect("logs");
    let batches = server.sent("runs/log-batch");
    let metrics = batches[0]["metrics"].as_array().expect("a list");
    assert_eq!(metrics.len(), 4);
    assert_eq!(metrics[1]["value"], 0.5);
    assert_eq!(metrics[3]["value"], "NaN");
    tracker.finish().expect("ends");
}

#[test]
fn a_server_that_does_not_answer_refuses_the_run() {
    let _turn = alone();
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        listener.local_addr().expect("has an address")
    };
    let folder = tempfile::tempdir().expect("temporary folder");
    let url = format!("http://{address}");
    let error = MlflowTracker::new(&url, "e", folder.path())
        .begin(0)
        .expect_err("nobody listens");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(!folder.path().join("mlflow_run.json").exists());
}

#[test]
fn a_real_server_has_the_numbers_of_a_run() {
    let _turn = alone();
    let Ok(url) = std::env::var("FT_TEST_MLFLOW") else {
        eprintln!("skipped: FT_TEST_MLFLOW is not set");
        return;
    };
    let folder = tempfile::tempdir().expect("temporary folder");
    assert_eq!(run(&url, folder.path(), Some(3), false), None);
    let losses = run(&url, folder.path(), None, true).expect("ends");
    let kept = std::fs::read(folder.path().join("mlflow_run.json")).expect("reads");
    let kept: Value = serde_json::from_slice(&kept).expect("is JSON");
    let id = kept["run_id"].as_str().expect("an id");
    let get = |path: String| -> Value {
        let url = format!("{url}/api/2.0/mlflow/{path}");
        let mut answer = ureq::get(&url).call().expect("answers");
        answer.body_mut().read_json().expect("is JSON")
    };
    let history = get(format!(
        "metrics/get-history?run_id={id}&metric_key=train/loss"
    ));
    let mut found: Vec<(u64, f64)> = history["metrics"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|metric| {
            let step = metric["step"]
                .as_u64()
                .or_else(|| metric["step"].as_str()?.parse().ok());
            (
                step.expect("a step"),
                metric["value"].as_f64().expect("a number"),
            )
        })
        .collect();
    found.sort_by_key(|(step, _)| *step);
    found.dedup();
    let expected: Vec<(u64, f64)> = (1..).zip(losses).collect();
    assert_eq!(found, expected);
    let run = get(format!("runs/get?run_id={id}"));
    assert_eq!(run.pointer("/run/info/status"), Some(&json!("FINISHED")));
    let params = run.pointer("/run/data/params/0/key");
    assert_eq!(params, Some(&json!("learning_rate")));
}
