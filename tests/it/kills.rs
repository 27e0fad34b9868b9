//! Runs that are killed at random moments and resumed end as one that was not, to the bit.
//!
//! `FT_KILLS` is how many kills there are, of a run over two windows of a stream that has more rows than the buffer of its shuffle. The
//! usual run of the test has 2 kills of a shorter one, over fewer rows.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ft::core::mix_seed;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::examples::{command, path};
use crate::shipped_model::folder;

/// A streamed, shuffled, packed and mixed run with dropout, bad rows, evaluations and the best model.
struct Runs {
    work: TempDir,
    model: PathBuf,
    steps: String,
}

impl Runs {
    /// A run of `steps` over `count` rows and a few more, which are mixed in.
    fn new(steps: usize, count: usize) -> Self {
        let work = TempDir::new().expect("temporary folder");
        let row = |n: usize| {
            let number = n % 1000;
            let answer = "so ".repeat(1 + n % 3);
            let messages = [("user", format!("{number}?")), ("assistant", answer)];
            let messages = messages.map(|(role, text)| json!({"role": role, "content": text}));
            json!({ "messages": messages }).to_string()
        };
        let rows: Vec<String> = (0..count + 60).map(row).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        fs::create_dir(work.path().join("data")).expect("makes a folder");
        let write = |name: &str, rows: &[&str]| {
            fs::write(work.path().join(name), rows.join("\n")).expect("writes");
        };
        let (data, rest) = rows.split_at(count);
        write(
            "data/a.jsonl",
            &[&data[..100], &["{\"messages\": ["]].concat(),
        );
        write("data/b.jsonl", &data[100..]);
        write("mix.jsonl", &rest[..50]);
        write("held_out.jsonl", &rest[50..]);
        Self {
            work,
            model: folder(),
            steps: steps.to_string(),
        }
    }

    /// Begins or resumes the run in a folder.
    fn start(&self, name: &str, resume: bool) -> Child {
        let at = |name: &str| self.work.path().join(name);
        let output = at(name);
        let (data, mix, held_out) = (at("data"), at("mix.jsonl"), at("held_out.jsonl"));
        let csv = at(&format!("{name}.csv"));
        let mut arguments = vec!["--model", path(&self.model), "--data", path(&data)];
        arguments.extend(["--stream", "--mix", path(&mix), "--mix-share", "0.3"]);
        arguments.extend(["--max-bad-rows", "0.1", "--packing", "--seq-len", "128"]);
        arguments.extend([
            "--batch-size",
            "4",
            "--grad-accum",
            "2",
            "--max-steps",
            self.steps.as_str(),
        ]);
        arguments.extend(["--dropout", "0.1", "--eval-data", path(&held_out)]);
        arguments.extend(["--eval-every", "4", "--load-best", "--save-every", "3"]);
        arguments.extend(["--csv", path(&csv), "--output", path(&output)]);
        arguments.extend(resume.then_some("--resume"));
        let errors = File::create(at(&format!("{name}.err"))).expect("creates");
        command("sft", &arguments)
            .stderr(errors)
            .spawn()
            .expect("starts")
    }

    fn errors(&self, name: &str) -> String {
        fs::read_to_string(self.work.path().join(format!("{name}.err"))).expect("reads")
    }

    /// All that a run left, without its times: by file, the bytes or the lines.
    fn state(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let output = self.work.path().join(name);
        let mut state = BTreeMap::new();
        collect(&output, &output, &mut state);
        let csv = fs::read(self.work.path().join(format!("{name}.csv"))).expect("reads");
        let csv = String::from_utf8(csv).expect("is text");
        let csv = csv
            .split_inclusive('\n')
            .filter(|line| !line.contains("tokens_per_s"));
        state.insert("csv".into(), csv.collect::<String>().into_bytes());
        state
    }
}

/// The files below a folder.
fn collect(root: &Path, folder: &Path, state: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("reads") {
        let path = entry.expect("reads").path();
        let name = path
            .strip_prefix(root)
            .expect("is below")
            .display()
            .to_string();
        if path.is_dir() {
            collect(root, &path, state);
        } else if name.ends_with("train_log.jsonl") {
            let text = fs::read_to_string(&path).expect("reads");
            let lines = text.lines().map(|line| without_times(line) + "\n");
            state.insert(name, lines.collect::<String>().into_bytes());
        } else if name.ends_with("trainer_state.json") {
            let text = fs::read_to_string(&path).expect("reads");
            state.insert(name, without_times(&text).into_bytes());
        } else if name.ends_with(".safetensors") {
            state.insert(name, sorted(&fs::read(&path).expect("reads")));
        } else {
            state.insert(name, fs::read(&path).expect("reads"));
        }
    }
}

/// A file of tensors with its header in the order of names, since that of the metadata is any.
pub(crate) fn sorted(bytes: &[u8]) -> Vec<u8> {
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
    let (header, numbers) = rest.split_at(length as usize);
    let header: BTreeMap<String, BTreeMap<String, Value>> =
        serde_json::from_slice(header).expect("is JSON");
    let header = serde_json::to_vec(&header).expect("is JSON");
    [&header, numbers].concat()
}

fn without_times(json: &str) -> String {
    let mut json: Value = serde_json::from_str(json).expect("is JSON");
    let fields = json.as_object_mut().expect("is an object");
    fields.remove("tokens_per_s");
    fields.remove("elapsed_s");
    json.to_string()
}

#[test]
fn a_run_that_is_killed_at_random_moments_ends_with_the_same_bits() {
    let kills = std::env::var("FT_KILLS").ok();
    // 24 steps take a window of 1000 rows, and the buffer of the shuffle has 10000.
    let (steps, rows) = if kills.is_some() {
        (27, 10_400)
    } else {
        (8, 300)
    };
    let kills = kills.map_or(2, |kills| kills.parse().expect("a number"));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("is later");
    let seed = now.as_nanos() as u64;
    println!("seed {seed}");
    let runs = Runs::new(steps, rows);
    let began = Instant::now();
    let whole = runs.start("whole", false).wait().expect("ends");
    assert!(whole.success(), "{}", runs.errors("whole"));
    let duration = began.elapsed();
    let expected = runs.state("whole");
    assert!(expected.contains_key("adapter_model.safetensors"));
    let position = &expected[&format!("checkpoints/step-{steps}/method/stream.json")];
    let position: Value = serde_json::from_slice(position).expect("is JSON");
    let read = position["rows"].as_u64().expect("a number");
    assert_eq!(
        read >= 1000,
        steps > 8,
        "{read} rows before the last window"
    );

    let (mut killed, mut resumed, mut round) = (0, 0, 0);
    while killed < kills {
        let name = format!("killed-{round}");
        round += 1;
        let mut resume = false;
        loop {
            let mut child = runs.start(&name, resume);
            resumed += usize::from(resume);
            // Several kills a run.
            let share = mix_seed(seed, killed as u64) as f64 / u64::MAX as f64 / 3.0;
            let began = Instant::now();
            let ended = loop {
                if let Some(status) = child.try_wait().expect("is a child") {
                    assert!(status.success(), "{name}: {}", runs.errors(&name));
                    break true;
                }
                if killed < kills && began.elapsed() >= duration.mul_f64(share) {
                    child.kill().expect("is a child");
                    child.wait().expect("ends");
                    killed += 1;
                    break false;
                }
                sleep(Duration::from_millis(2));
            };
            if ended {
                break;
            }
            // As a user sees it: there is a run, or there is none yet.
            resume = runs
                .work
                .path()
                .join(&name)
                .join("train_log.jsonl")
                .exists();
        }
        let state = runs.state(&name);
        assert_eq!(
            state.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{name}, seed {seed}"
        );
        for (file, bytes) in &expected {
            assert!(state[file] == *bytes, "{name}: {file} differs, seed {seed}");
        }
    }
    let whole = duration.as_secs_f64();
    println!("{killed} kills in {round} runs of {whole:.1} s, {resumed} times resumed");
}
