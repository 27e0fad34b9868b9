//! Whether the code of a completion passes the tests of its row.
//!
//! **This runs what the model wrote.** The child process has limited time, no output, a cleared environment and an empty
//! working folder. That is order, not security: it can read and write every file that the user can, use the network, and
//! leave its process group to outlive the time limit. Run it under a sandbox (`bwrap`, `nsjail`, a container) by putting its command
//! before the interpreter's: `["bwrap", "--unshare-all", ..., "python3"]`. Memory is limited in the same way:
//! `["prlimit", "--as=1000000000", "python3"]`.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::fenced_block::fenced_blocks;
use super::{BoxError, Completion, Reward};
use crate::{Error, Result};

/// 1 if the code of the completion passes the tests of the row, else 0. Unix only.
///
/// The code is the last closed block of the completion in one of the languages. The program is the code, the tests and a
/// last line that creates a file of a random name. It passes if it ends with success within the time limit and has
/// created the file: code that ends the program before the tests does not pass. The reward does not apply to rows without
/// tests.
///
/// The environment has only `PATH`, and `HOME` and `TMPDIR`, which are the working folder. When the program has ended or
/// its time is over, its process group is killed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Settings")]
pub struct CodeTests(Settings);

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    command: Vec<String>,
    #[serde(default = "python")]
    languages: Vec<String>,
    #[serde(default = "tests")]
    column: String,
    #[serde(default = "python_done")]
    done: String,
    #[serde(default = "ten_seconds")]
    time_limit_s: f64,
}

fn python() -> Vec<String> {
    ["python", "python3", "py"].map(String::from).to_vec()
}

fn tests() -> String {
    "tests".to_string()
}

fn python_done() -> String {
    "open('{done}', 'w').close()".to_string()
}

fn ten_seconds() -> f64 {
    10.0
}

impl CodeTests {
    /// Tests in Python, run by this command with the program's path as its last argument, in ten seconds. The tests are in
    /// the column `tests`: a text, or a list of texts.
    ///
    /// # Errors
    ///
    /// If the command is empty.
    pub fn python<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::checked(Settings {
            command: command.into_iter().map(Into::into).collect(),
            languages: python(),
            column: tests(),
            done: python_done(),
            time_limit_s: ten_seconds(),
        })
    }

    /// Another language: the names by which blocks of code have it, and the line that creates the file `{done}`. For a
    /// shell, `: > {done}`.
    ///
    /// # Errors
    ///
    /// If there are no languages or the line lacks `{done}`.
    pub fn with_language<S: Into<String>>(
        mut self,
        languages: impl IntoIterator<Item = S>,
        done: impl Into<String>,
    ) -> Result<Self> {
        self.0.languages = languages.into_iter().map(Into::into).collect();
        self.0.done = done.into();
        Self::checked(self.0)
    }

    /// Another column.
    #[must_use]
    pub fn with_column(mut self, column: impl Into<String>) -> Self {
        self.0.column = column.into();
        self
    }

    /// Another time limit.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.0.time_limit_s = limit.as_secs_f64();
        self
    }

    fn checked(settings: Settings) -> Result<Self> {
        let mistakes = [
            (
                settings.command.is_empty(),
                "`command` is empty: name the interpreter, such as [\"python3\"]",
            ),
            (
                settings.languages.is_empty(),
                "`languages` is empty: name those of the blocks of code, such as [\"python\"]",
            ),
            (
                !settings.done.contains("{done}"),
                "`done` lacks {done}: it is the line of code that creates the file of that name",
            ),
            (
                settings.time_limit_s.is_nan() || settings.time_limit_s <= 0.0,
                "`time_limit_s` is not above 0",
            ),
        ];
        match mistakes.into_iter().find(|(wrong, _)| *wrong) {
            None => Ok(Self(settings)),
            Some((_, reason)) => Err(Error::Reward {
                reward: "code".to_string(),
                reason: reason.to_string(),
            }),
        }
    }

    fn passes(&self, code: &str, tests: &str) -> std::io::Result<bool> {
        let folder = tempfile::tempdir()?;
        let done = format!("done-{:016x}", RandomState::new().build_hasher().finish());
        let last = self.0.done.replace("{done}", &done);
        let program = format!("{code}\n{tests}\n{last}\n");
        fs::write(folder.path().join("program"), program)?;
        let mut command = Command::new(&self.0.command[0]);
        command
            .args(&self.0.command[1..])
            .arg("program")
            .current_dir(folder.path())
            .env_clear()
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let mut child = command.spawn()?;
        let limit = Duration::try_from_secs_f64(self.0.time_limit_s).unwrap_or(Duration::MAX);
        let success = ended_with_success(&mut child, limit);
        kill_group(child.id());
        child.kill().ok();
        child.wait()?;
        Ok(success? && folder.path().join(done).exists())
    }
}

impl TryFrom<Settings> for CodeTests {
    type Error = String;

    fn try_from(settings: Settings) -> std::result::Result<Self, String> {
        Self::checked(settings).map_err(Error::into_reason)
    }
}

impl Reward for CodeTests {
    fn name(&self) -> &str {
        "code"
    }

    fn score(&self, completion: &Completion<'_>) -> std::result::Result<Option<f64>, BoxError> {
        let Some(column) = completion.column(&self.0.column) else {
            return Ok(None);
        };
        let texts = match column {
            Value::Array(texts) => texts.iter().map(Value::as_str).collect(),
            one => one.as_str().map(|text| vec![text]),
        };
        let Some(tests) = texts else {
            return Err(format!(
                "the column `{}` is no text, nor a list of texts",
                self.0.column
            )
            .into());
        };
        let blocks = fenced_blocks(completion.text);
        let code = blocks.into_iter().rev().find(|(language, _)| {
            let mut languages = self.0.languages.iter();
            languages.any(|known| known.eq_ignore_ascii_case(language))
        });
        let Some((_, code)) = code else {
            return Ok(Some(0.0));
        };
        let passes = self.passes(code, &tests.join("\n")).map_err(|error| {
            format!(
                "`{}` cannot run in a temporary folder: {error}",
                self.0.command.join(" ")
            )
        })?;
        Ok(Some(f64::from(u8::from(passes))))
    }
}

/// Whether the process ends in time, and with success.
fn ended_with_success(child: &mut Child, limit: Duration) -> std::io::Result<bool> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Kills a process group. The standard library has no call for that; the shell has.
fn kill_group(leader: u32) {
    let mut kill = Command::new("/bin/sh");
    kill.args(["-c", "kill -s KILL -- \"-$1\"", "sh", &leader.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // It fails if no process of the group is left.
    kill.status().ok();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::completion::score_of;
    use super::*;

    /// Tests in the language of the shell, which every Unix has.
    fn shell() -> CodeTests {
        let tests = CodeTests::python(["/bin/sh"]).expect("a command");
        tests
            .with_language(["sh"], ": > {done}")
            .expect("a language")
    }

    fn score(reward: &CodeTests, code: &str, tests: Value) -> f64 {
        let text = format!("My code:\n```sh\n{code}\n```\nIt prints\n```\n1\n```");
        let score = score_of(reward, &text, json!({ "tests": tests }));
        score.expect("no error").expect("applies")
    }

    #[test]
    fn code_passes_if_all_tests_do() {
        let code = "double() { echo $(($1 * 2)); }";
        let test = |n: i32, m: i32| format!("[ \"$(double {n})\" = {m} ] || exit 1");
        assert_eq!(score(&shell(), code, json!(test(2, 4))), 1.0);
        assert_eq!(score(&shell(), code, json!([test(2, 4), test(3, 6)])), 1.0);
        assert_eq!(score(&shell(), code, json!([test(2, 5), test(3, 6)])), 0.0);
        assert_eq!(score(&shell(), "double() {", json!(test(2, 4))), 0.0);
    }

    #[test]
    fn code_that_ends_the_program_before_the_tests_does_not_pass() {
        assert_eq!(score(&shell(), "exit 0", json!("exit 1")), 0.0);
    }

    #[test]
    fn completions_without_closed_code_have_no_point_and_rows_without_tests_do_not_count() {
        let columns = json!({"tests": ":"});
        for text in ["", ":", "```sh\n:", "```python\n:\n```"] {
            assert_eq!(
                score_of(&shell(), text, columns.clone()),
                Ok(Some(0.0)),
                "{text}"
            );
        }
        assert_eq!(score_of(&shell(), "```sh\n:\n```", columns), Ok(Some(1.0)));
        assert_eq!(score_of(&shell(), "```sh\n:\n```", json!({})), Ok(None));
        let error = score_of(&shell(), "", json!({"tests": 1})).expect_err("an error");
        assert!(error.contains("`tests`"), "{error}");
    }

    #[test]
    fn the_environment_is_cleared_and_the_folder_empty() {
        // A shell sets PWD and its like itself.
        let tests = json!([
            "env | grep -qvE '^(PATH|HOME|TMPDIR|PWD|OLDPWD|SHLVL|_)=' && exit 1",
            "[ \"$(ls)\" = program ] || exit 2",
            "[ \"$HOME\" = \"$TMPDIR\" ] || exit 3",
        ]);
        assert_eq!(score(&shell(), ":", tests), 1.0);
    }

    /// What the program leaves in the background is killed with it, in time or not.
    #[test]
    fn programs_that_do_not_end_are_killed_with_their_children() {
        let folder = tempfile::tempdir().expect("a folder");
        let reward = shell().with_time_limit(Duration::from_millis(300));
        for (code, passes) in [("sleep 60", 0.0), ("while :; do :; done", 0.0), (":", 1.0)] {
            let file = folder.path().join("late");
            let late = format!("(sleep 1; : > '{}') &\n{code}", file.display());
            let start = Instant::now();
            assert_eq!(score(&reward, &late, json!(":")), passes, "{code}");
            assert!(start.elapsed() < Duration::from_secs(30), "{code}");
            std::thread::sleep(Duration::from_millis(1500));
            assert!(!file.exists(), "a child of `{code}` survived");
        }
    }

    /// A full pipe would stop the program; there is none.
    #[test]
    fn endless_output_is_thrown_away() {
        let code = "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i + 1)); done";
        assert_eq!(score(&shell(), code, json!(":")), 1.0);
    }

    #[test]
    fn python_is_the_language_without_settings() {
        if !Command::new("python3")
            .arg("-V")
            .status()
            .is_ok_and(|status| status.success())
        {
            eprintln!("skipped: there is no python3");
            return;
        }
        let reward = CodeTests::python(["python3"]).expect("a command");
        let from_json: CodeTests =
            serde_json::from_value(json!({"command": ["python3"]})).expect("settings");
        assert_eq!(from_json, reward);
        for (code, score) in [
            ("def double(n):\n    return 2 * n", 1.0),
            ("def double(n):\n    return n", 0.0),
            ("import os\nos._exit(0)", 0.0),
        ] {
            let text = format!("```python\n{code}\n```");
            let tests = json!({"tests": ["assert double(2) == 4", "assert double(0) == 0"]});
            assert_eq!(score_of(&reward, &text, tests), Ok(Some(score)), "{code}");
        }
    }

    #[test]
    fn mistakes_are_errors() {
        let none: [&str; 0] = [];
        assert!(CodeTests::python(none).is_err());
        assert!(shell().with_language(["sh"], ":").is_err());
        assert!(shell().with_language(none, "{done}").is_err());
        let reward = CodeTests::python(["/no/such/interpreter"]).expect("a command");
        let text = "```python\npass\n```";
        let error = score_of(&reward, text, json!({"tests": ""})).expect_err("an error");
        assert!(error.contains("/no/such/interpreter"), "{error}");
    }
}
