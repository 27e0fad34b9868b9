//! A disk that is full and a folder that is read-only end a run with an error, and what was there before remains: the run is resumed
//! and ends as one that was not interrupted.
//!
//! The full disk is a limit on the size of files (`ulimit -f`), with its signal ignored, so that writing fails as on a full disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use crate::examples::{DATA, command, path};
use crate::kills::sorted;
use crate::shipped_model::folder;

/// Blocks of 1024 bytes: the log and the manifest fit, a checkpoint does not.
const LIMIT: &str = "256";

fn arguments(output: &Path, more: &[&str]) -> Vec<String> {
    let model = folder();
    let mut arguments = vec![
        "--model",
        path(&model),
        "--data",
        DATA,
        "--output",
        path(output),
    ];
    arguments.extend(["--max-steps", "6", "--batch-size", "2", "--seq-len", "64"]);
    arguments.extend([
        "--save-every",
        "2",
        "--dropout",
        "0.1",
        "--eval-fraction",
        "0.02",
    ]);
    arguments.extend(more);
    arguments.into_iter().map(String::from).collect()
}

fn sft(output: &Path, more: &[&str]) -> Command {
    let arguments = arguments(output, more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    command("sft", &arguments)
}

/// The same run on a disk without room for a checkpoint.
fn on_a_full_disk(output: &Path, more: &[&str]) -> Output {
    let run = sft(output, more);
    let script = format!("trap '' XFSZ; ulimit -f {LIMIT}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).arg(run.get_program());
    shell.args(run.get_args()).output().expect("runs")
}

fn error_of(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{error}");
    error
}

fn checkpoints(output: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(output.join("checkpoints")) else {
        return Vec::new();
    };
    let all = entries.map(|entry| entry.expect("reads").path());
    let whole = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("step-")
    };
    let mut found: Vec<PathBuf> = all.filter(whole).collect();
    found.sort();
    found
}

fn adapter(output: &Path) -> Vec<u8> {
    sorted(&fs::read(output.join("adapter_model.safetensors")).expect("reads"))
}

/// Ends a run once it has a checkpoint.
fn interrupted(output: &Path) {
    let mut child = sft(output, &[]).spawn().expect("starts");
    while checkpoints(output).is_empty() {
        assert!(
            child.try_wait().expect("is a child").is_none(),
            "it has ended"
        );
        sleep(Duration::from_millis(2));
    }
    child.kill().expect("is a child");
    child.wait().expect("ends");
}

#[test]
fn a_full_disk_loses_nothing() {
    let work = TempDir::new().expect("temporary folder");
    let at = |name: &str| work.path().join(name);
    let whole = sft(&at("whole"), &[]).output().expect("runs");
    assert!(
        whole.status.success(),
        "{}",
        String::from_utf8_lossy(&whole.stderr)
    );
    let expected = adapter(&at("whole"));

    // Full from the beginning: no half checkpoint, and the run begins again.
    let error = error_of(&on_a_full_disk(&at("first"), &[]));
    assert!(error.contains("cannot write"), "{error}");
    assert!(checkpoints(&at("first")).is_empty());
    let again = sft(&at("first"), &["--resume"]).output().expect("runs");
    assert!(
        again.status.success(),
        "{}",
        String::from_utf8_lossy(&again.stderr)
    );
    assert!(adapter(&at("first")) == expected);

    // Full later: the checkpoint of before remains, byte by byte.
    interrupted(&at("later"));
    let before = checkpoints(&at("later"));
    let kept = fs::read(before[0].join("trainable.safetensors")).expect("reads");
    let error = error_of(&on_a_full_disk(&at("later"), &["--resume"]));
    assert!(error.contains("cannot write"), "{error}");
    assert_eq!(checkpoints(&at("later")), before);
    assert_eq!(
        fs::read(before[0].join("trainable.safetensors")).expect("reads"),
        kept
    );
    let again = sft(&at("later"), &["--resume"]).output().expect("runs");
    assert!(
        again.status.success(),
        "{}",
        String::from_utf8_lossy(&again.stderr)
    );
    assert!(adapter(&at("later")) == expected);
}

/// The superuser writes into folders that are read-only, so that there the run is one of another user.
#[test]
fn a_read_only_folder_loses_nothing() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    let work = TempDir::new().expect("temporary folder");
    let output = work.path().join("run");
    interrupted(&output);
    let before = checkpoints(&output);
    let log = fs::read(output.join("train_log.jsonl")).expect("reads");
    let allow = |folder: &Path, mode| {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).expect("sets permissions");
    };
    allow(work.path(), 0o755);
    let folders = [output.clone(), output.join("checkpoints")];
    folders.iter().for_each(|folder| allow(folder, 0o555));
    let mut run = sft(&output, &["--resume"]);
    if fs::write(output.join("probe"), "").is_ok() {
        fs::remove_file(output.join("probe")).expect("removes");
        run.uid(NOBODY).gid(NOBODY);
    }
    match run.output() {
        Ok(ended) => {
            let error = error_of(&ended);
            assert!(
                error.contains("cannot write") || error.contains("Permission denied"),
                "{error}"
            );
        }
        Err(error) => eprintln!("skipped: another user cannot run the program: {error}"),
    }
    assert_eq!(checkpoints(&output), before);
    assert_eq!(
        fs::read(output.join("train_log.jsonl")).expect("reads"),
        log
    );
    folders.iter().for_each(|folder| allow(folder, 0o755));
    let again = sft(&output, &["--resume"]).output().expect("runs");
    assert!(
        again.status.success(),
        "{}",
        String::from_utf8_lossy(&again.stderr)
    );
    assert!(output.join("adapter_model.safetensors").is_file());

    // A place where nobody can write is refused before anything is read.
    let error = error_of(
        &sft(Path::new("/proc/no-place"), &[])
            .output()
            .expect("runs"),
    );
    assert!(error.contains("cannot write to /proc/no-place"), "{error}");
}
