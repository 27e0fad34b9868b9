//! A run of an MLflow server, by its REST interface (version 2.0 of its paths; the documentation of MLflow, "REST API").
//!
//! ```text
//! GET  experiments/get-by-name    POST experiments/create
//! POST runs/create    runs/log-batch    runs/update
//! ```
//!
//! The id of the run is kept in a file, so that a run that is resumed goes on in the same run of the server. What an earlier process logged
//! of later steps cannot be removed there; those steps have their numbers twice, which are equal on the CPU.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ft_core::safetensors_folder::write_file;
use serde_json::{Value, json};
use ureq::Agent;

use super::Tracker;
use crate::BoxError;

/// The most numbers of a request.
const MOST_METRICS: usize = 1000;
/// The most settings of a request, and the longest one in bytes.
const MOST_PARAMS: usize = 100;
const LONGEST_PARAM: usize = 6000;
/// Time for an answer, and time without attempts after one failed.
const TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(30);

/// Logs to a run of an MLflow server.
///
/// That the server answers is checked when the run begins. Later numbers that cannot be delivered are kept and sent again, so that a server
/// that is gone for a while does not end a training; what is left in the end is reported on stderr.
///
/// ```no_run
/// # fn demo(trainer: ft_train::Trainer<ft_core::AutoCausalLm, ft_train::OnBatches<'static, ft_core::AutoCausalLm, ft_data::Batch>>) {
/// use ft_train::MlflowTracker;
///
/// let tracker = MlflowTracker::new("http://127.0.0.1:5000", "my experiment", "out")
///     .with_param("learning_rate", 2e-4)
///     .with_credentials_from_env();
/// let trainer = trainer.with_tracker(tracker);
/// # }
/// ```
#[derive(Debug)]
pub struct MlflowTracker {
    agent: Agent,
    /// Without a slash at the end.
    url: String,
    authorization: Option<String>,
    experiment: String,
    name: Option<String>,
    params: BTreeMap<String, String>,
    /// Where the id of the run is kept.
    file: PathBuf,
    run: Option<String>,
    unsent: Vec<Value>,
    failed: Option<Instant>,
    /// Attempts that failed.
    failures: usize,
    pause: Duration,
    finished: bool,
}

impl MlflowTracker {
    /// Runs of `experiment`, which is created if it is not there, on the server at `url`. The id of the run is kept in the folder of the
    /// run as `mlflow_run.json`.
    pub fn new(url: &str, experiment: &str, output_dir: impl AsRef<Path>) -> Self {
        let agent = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build();
        Self {
            agent: agent.into(),
            url: url.trim_end_matches('/').to_string(),
            authorization: None,
            experiment: experiment.to_string(),
            name: None,
            params: BTreeMap::new(),
            file: output_dir.as_ref().join("mlflow_run.json"),
            run: None,
            unsent: Vec::new(),
            failed: None,
            failures: 0,
            pause: PAUSE,
            finished: false,
        }
    }

    /// The run has this name; otherwise the server gives it one.
    #[must_use]
    pub fn with_run_name(mut self, name: &str) -> Self {
        self.name = Some(name.to_string());
        self
    }

    /// A setting of the run, which the server shows as a parameter.
    #[must_use]
    pub fn with_param(mut self, name: &str, value: impl Into<Value>) -> Self {
        let mut text = match value.into() {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let end = (0..=LONGEST_PARAM.min(text.len())).rfind(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        self.params.insert(allowed(name), text);
        self
    }

    /// With the token of `MLFLOW_TRACKING_TOKEN`, or name and password of `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, if
    /// they are set.
    #[must_use]
    pub fn with_credentials_from_env(mut self) -> Self {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.authorization = match (
            get("MLFLOW_TRACKING_TOKEN"),
            get("MLFLOW_TRACKING_USERNAME"),
        ) {
            (Some(token), _) => Some(format!("Bearer {token}")),
            (None, Some(user)) => {
                let password = get("MLFLOW_TRACKING_PASSWORD").unwrap_or_default();
                Some(basic(&user, &password))
            }
            (None, None) => None,
        };
        self
    }

    /// The time without attempts after one has failed; half a minute otherwise.
    #[must_use]
    pub fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// The id of the run, once it has begun.
    pub fn run_id(&self) -> Option<&str> {
        self.run.as_deref()
    }

    /// The answer to a request; `Err(status)` with a text if it is not one of success.
    fn send(&self, path: &str, body: Option<&Value>) -> Result<Value, (u16, String)> {
        let url = format!("{}/api/2.0/mlflow/{path}", self.url);
        let failed = |error: ureq::Error| (0, format!("{}: {error}", self.url));
        let mut response = match body {
            Some(body) => {
                let mut post = self.agent.post(&url);
                if let Some(authorization) = &self.authorization {
                    post = post.header("Authorization", authorization);
                }
                post.send_json(body)
            }
            None => {
                let mut get = self.agent.get(&url);
                if let Some(authorization) = &self.authorization {
                    get = get.header("Authorization", authorization);
                }
                get.call()
            }
        }
        .map_err(failed)?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().map_err(failed)?;
        let answer = serde_json::from_str::<Value>(&text);
        match answer {
            Ok(answer) if status == 200 => Ok(answer),
            Ok(answer) => {
                let reason = answer["message"].as_str().unwrap_or_default();
                Err((status, format!("{url} answers {status}: {reason}")))
            }
            Err(_) => {
                let begin: String = text.chars().take(200).collect();
                Err((
                    status,
                    format!("{url} answers {status}, and not as MLflow does: {begin}"),
                ))
            }
        }
    }

    fn post(&self, path: &str, body: Value) -> Result<Value, String> {
        self.send(path, Some(&body)).map_err(|(_, reason)| reason)
    }

    /// The id of the experiment, which is created if it is not there.
    fn experiment(&self) -> Result<String, String> {
        let path = format!(
            "experiments/get-by-name?experiment_name={}",
            percent_encoded(&self.experiment)
        );
        let id = |answer: &Value, pointer: &str| {
            let id = answer.pointer(pointer).and_then(Value::as_str);
            id.map(str::to_string)
                .ok_or_else(|| format!("{}: an answer without {pointer}: is it MLflow?", self.url))
        };
        match self.send(&path, None) {
            Ok(found) => id(&found, "/experiment/experiment_id"),
            Err((404, _)) => {
                let made = self.post("experiments/create", json!({"name": self.experiment}))?;
                id(&made, "/experiment_id")
            }
            Err((_, reason)) => Err(reason),
        }
    }

    fn create(&mut self) -> Result<String, BoxError> {
        let experiment = self.experiment()?;
        let mut body = json!({
            "experiment_id": experiment,
            "start_time": now(),
            "tags": [{"key": "mlflow.source.name", "value": "ft"}],
        });
        if let Some(name) = &self.name {
            body["run_name"] = name.as_str().into();
        }
        let made = self.post("runs/create", body)?;
        let id = made.pointer("/run/info/run_id").and_then(Value::as_str);
        let id = id
            .ok_or("MLflow: an answer without the id of the run")?
            .to_string();
        let params: Vec<Value> = self
            .params
            .iter()
            .map(|(key, value)| json!({"key": key, "value": value}))
            .collect();
        for params in params.chunks(MOST_PARAMS) {
            self.post("runs/log-batch", json!({"run_id": id, "params": params}))?;
        }
        if let Some(folder) = self.file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let kept = json!({"url": self.url, "experiment": self.experiment, "run_id": id});
        write_file(&self.file, kept.to_string().as_bytes())?;
        Ok(id)
    }

    /// The id of the run that an earlier process began.
    fn earlier(&self) -> Option<String> {
        let kept: Value = serde_json::from_slice(&std::fs::read(&self.file).ok()?).ok()?;
        let same =
            kept["url"] == self.url.as_str() && kept["experiment"] == self.experiment.as_str();
        same.then(|| kept["run_id"].as_str().map(str::to_string))?
    }

    /// Sends what was not sent, unless an attempt failed a moment ago.
    fn flush(&mut self, at_once: bool) {
        let waits = self
            .failed
            .is_some_and(|failed| failed.elapsed() < self.pause);
        let Some(run) = self.run.clone().filter(|_| at_once || !waits) else {
            return;
        };
        while !self.unsent.is_empty() {
            let count = self.unsent.len().min(MOST_METRICS);
            let body = json!({"run_id": run, "metrics": self.unsent[..count]});
            match self.post("runs/log-batch", body) {
                Ok(_) => {
                    self.unsent.drain(..count);
                    self.failed = None;
                }
                Err(reason) => {
                    if self.failures == 0 {
                        eprintln!("MLflow: {reason}; the numbers are kept and sent again");
                    }
                    self.failures += 1;
                    self.failed = Some(Instant::now());
                    return;
                }
            }
        }
    }

    fn status(&self, status: &str) -> Result<(), String> {
        let Some(run) = &self.run else {
            return Ok(());
        };
        let mut body = json!({"run_id": run, "status": status});
        if status != "RUNNING" {
            body["end_time"] = now().into();
        }
        self.post("runs/update", body).map(|_| ())
    }
}

impl Tracker for MlflowTracker {
    fn begin(&mut self, after: usize) -> Result<(), BoxError> {
        self.run = (after > 0).then(|| self.earlier()).flatten();
        if self.run.is_some() && self.status("RUNNING").is_ok() {
            return Ok(());
        }
        // The run was removed on the server, or there was none.
        self.run = Some(self.create()?);
        Ok(())
    }

    fn log(&mut self, step: usize, scalars: &[(String, f64)]) -> Result<(), BoxError> {
        let timestamp = now();
        let metrics = scalars.iter().map(|(name, value)| {
            let number = match value.is_finite() {
                true => json!(value),
                // As JSON of protocol buffers has them.
                false if value.is_nan() => json!("NaN"),
                false => json!(if *value > 0.0 {
                    "Infinity"
                } else {
                    "-Infinity"
                }),
            };
            json!({"key": allowed(name), "value": number, "timestamp": timestamp, "step": step})
        });
        self.unsent.extend(metrics);
        self.flush(false);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        self.flush(true);
        if !self.unsent.is_empty() {
            eprintln!(
                "MLflow: {} numbers could not be delivered; they are in train_log.jsonl",
                self.unsent.len()
            );
        }
        if let Err(reason) = self.status("FINISHED") {
            eprintln!("MLflow: {reason}; the run is not marked as finished");
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for MlflowTracker {
    /// A run that an error ended is shown as failed.
    fn drop(&mut self) {
        if self.run.is_some() && !self.finished {
            self.flush(true);
            let _ = self.status("FAILED");
        }
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

/// A name with the characters that MLflow allows: letters, digits, `_ - . / : ` and blanks.
fn allowed(name: &str) -> String {
    let fits = |c: char| c.is_alphanumeric() || "_-./: ".contains(c);
    name.chars()
        .map(|c| if fits(c) { c } else { '_' })
        .collect()
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// RFC 7617.
fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_encoded_as_servers_expect() {
        assert_eq!(percent_encoded("my run/ü"), "my%20run%2F%C3%BC");
        assert_eq!(allowed("eval/loss (α)"), "eval/loss _α_");
        // The example of RFC 7617, section 2.
        let expected = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(basic("Aladdin", "open sesame"), expected);
    }

    #[test]
    fn long_settings_are_cut_at_a_character() {
        let tracker = MlflowTracker::new("http://x/", "e", "out").with_param("a", "ü".repeat(4000));
        assert_eq!(tracker.params["a"].len(), LONGEST_PARAM);
        assert_eq!(tracker.url, "http://x");
    }
}
