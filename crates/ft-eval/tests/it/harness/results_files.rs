//! Files of results, and the comparison of two.

use ft_eval::harness::{EvaluateOptions, SavedResults, compare, evaluate};

use super::golden_runs::{golden, load, write_files};
use super::mock_model::Mock;

#[test]
fn files_have_lm_evals_names_and_are_read_for_the_gate() {
    let golden = golden("harness");
    let dir = write_files(&golden);
    let set = load(dir.path(), &["mc_all", "gsm", "rolling"]);
    let mut options = EvaluateOptions {
        model_name: "org/model:1".to_string(),
        bootstrap_iters: 0,
        ..EvaluateOptions::default()
    };
    let baseline = evaluate(&Mock::default(), &set, &options, &mut |_, _| {}).unwrap();
    // A copy for `tests/golden/harness_files.py`, if the variable is set.
    let out = std::env::var_os("FT_HARNESS_OUT").map_or(dir.path().join("out"), Into::into);
    let files = baseline.write(&out, true).unwrap();
    let name = files.results.file_name().unwrap().to_str().unwrap();
    assert!(
        files.results.starts_with(out.join("org__model__1")),
        "{files:?}"
    );
    assert!(
        name.starts_with("results_20") && name.ends_with(".json"),
        "{name}"
    );
    assert_eq!(files.samples.len(), 3);
    let lines = std::fs::read_to_string(&files.samples[0]).unwrap();
    assert_eq!(lines.lines().count(), 26);

    options.num_fewshot = Some(3);
    let new = evaluate(&Mock::default(), &set, &options, &mut |_, _| {}).unwrap();
    let read = SavedResults::read(&files.results).unwrap();
    let comparison = compare(&read, &SavedResults::from(&new));
    // The results from the files equal those of the run.
    assert_eq!(
        comparison,
        compare(&SavedResults::from(&baseline), &SavedResults::from(&new))
    );
    assert!(
        comparison
            .notes
            .iter()
            .any(|note| note.starts_with("mc_all: the number of examples"))
    );
    let acc = comparison
        .metrics
        .iter()
        .find(|m| m.task == "mc_all" && m.metric == "acc")
        .unwrap();
    assert!(acc.p_value.is_some() && !acc.primary);
    let norm = comparison
        .metrics
        .iter()
        .find(|m| m.metric == "acc_norm")
        .unwrap();
    assert!(norm.primary);
    let same = compare(&read, &read);
    assert!(same.regressions(0.0).is_empty() && same.notes.is_empty());
    assert!(
        same.metrics
            .iter()
            .all(|m| m.gain == 0.0 && m.p_value.is_none_or(|p| p == 1.0))
    );
}
