//! A run that is killed continues with every reply it had received.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ft_eval::judges::{CachedModel, Panel, judge_pairs};

use super::mock_server::{Act, MockServer, fair};
use super::unreliable::{client, expected, judge, pairs};

const PAIRS: usize = 60;
const THREADS: usize = 4;

fn run(
    url: &str,
    cache: &std::path::Path,
) -> (
    CachedModel<ft_eval::judges::OpenAiClient>,
    Vec<ft_eval::judges::Comparison>,
) {
    let model = CachedModel::open(client(url), cache).unwrap();
    let panel = Panel {
        concurrency: THREADS,
        ..Panel::default()
    };
    let found = judge_pairs(&model, &judge(), &pairs(PAIRS), &panel, &mut |_, _| ());
    (model, found)
}

/// The process that the other test starts and kills. On its own it has no effect.
#[test]
fn as_a_process_of_its_own() {
    if let (Ok(url), Ok(cache)) = (
        std::env::var("FT_TEST_JUDGE_URL"),
        std::env::var("FT_TEST_JUDGE_CACHE"),
    ) {
        run(&url, cache.as_ref());
    }
}

#[test]
fn a_killed_run_repeats_no_finished_request() {
    let server = MockServer::start(|request, _| {
        std::thread::sleep(Duration::from_millis(15));
        Act::Say(fair(request))
    });
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("replies.jsonl");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "judges::resume::as_a_process_of_its_own"])
        .env("FT_TEST_JUDGE_URL", &server.url)
        .env("FT_TEST_JUDGE_CACHE", &cache)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while server.answered() < 30 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "the child asks for nothing"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    // On Unix this is SIGKILL: no destructor runs, nothing is flushed.
    child.kill().unwrap();
    child.wait().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let kept = server.answered();
    assert!(kept < 2 * PAIRS, "it was too late");

    let (model, found) = run(&server.url, &cache);
    assert!(
        found
            .iter()
            .enumerate()
            .all(|(i, c)| c.verdict() == Some(expected(i)))
    );
    let (cached, asked) = (
        model.spent().cached as usize,
        model.spent().replies as usize,
    );
    assert_eq!(cached + asked, 2 * PAIRS);
    // Only requests in progress at the time of the kill are repeated.
    assert!(
        cached + THREADS >= kept,
        "{cached} of {kept} replies were kept"
    );
}
