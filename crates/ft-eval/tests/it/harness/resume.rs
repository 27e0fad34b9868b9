//! Interrupted runs.

use ft_eval::harness::{EvaluateOptions, evaluate};

use super::golden_runs::{golden, load, write_files};
use super::mock_model::Mock;

#[test]
fn an_interrupted_run_continues_with_the_stored_answers() {
    let golden = golden("harness");
    let dir = write_files(&golden);
    let set = load(dir.path(), &["mc_pair", "rolling", "gsm", "gen_number"]);
    let mut options = EvaluateOptions {
        bootstrap_iters: 0,
        limit: Some(5.0),
        ..EvaluateOptions::default()
    };
    let whole = Mock::default();
    let mut progress = Vec::new();
    let expected = evaluate(&whole, &set, &options, &mut |done, total| {
        progress.push((done, total))
    })
    .unwrap();
    let total = whole.asked.get();
    assert_eq!(
        progress,
        (0..=total).map(|done| (done, total)).collect::<Vec<_>>()
    );
    for cut in [0, 1, total / 3, total / 2, total - 1] {
        let cache = dir.path().join(format!("cache/{cut}.jsonl"));
        options.cache = Some(cache.clone());
        let first = Mock {
            fail_after: Some(cut),
            ..Mock::default()
        };
        assert!(evaluate(&first, &set, &options, &mut |_, _| {}).is_err());
        // An incomplete line, as if the process was killed while writing.
        let mut bytes = std::fs::read(&cache).unwrap();
        bytes.extend_from_slice(b"{\"key\":\"12");
        std::fs::write(&cache, bytes).unwrap();
        let second = Mock::default();
        let resumed = evaluate(&second, &set, &options, &mut |_, _| {}).unwrap();
        assert_eq!(second.asked.get(), total - cut, "cut after {cut}");
        assert_eq!(resumed.results, expected.results, "cut after {cut}");
        assert_eq!(resumed.samples, expected.samples, "cut after {cut}");
    }
}
