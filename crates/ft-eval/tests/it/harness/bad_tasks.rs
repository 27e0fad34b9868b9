//! Invalid tasks, data and settings are errors that name the place.

use ft_eval::harness::{EvaluateOptions, FunctionRegistry, TaskIndex, evaluate};

use super::golden_runs::{golden, load, write_files};
use super::mock_model::Mock;
use super::own_functions::functions;

/// Loads a task with this text and one document, and runs it.
fn attempt(yaml: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!("task: bad\ntest_split: test\n{yaml}");
    std::fs::write(dir.path().join("bad.yaml"), yaml).unwrap();
    std::fs::create_dir(dir.path().join("bad")).unwrap();
    let row = r#"{"q": "x", "choices": ["a", "b"], "label": 1, "n": 1}"#;
    std::fs::write(dir.path().join("bad/test.jsonl"), row).unwrap();
    let set = TaskIndex::with_functions(&[dir.path()], FunctionRegistry::new())
        .and_then(|index| index.load(&["bad"], dir.path()));
    match set.and_then(|set| {
        evaluate(
            &Mock::default(),
            &set,
            &EvaluateOptions::default(),
            &mut |_, _| {},
        )
    }) {
        Ok(_) => "nothing is wrong".to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn invalid_tasks_are_errors_that_name_the_place() {
    const GOOD: &str = "output_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: choices\ndoc_to_target: label\n";
    assert_eq!(attempt(GOOD), "nothing is wrong");
    for (extra, words) in [
        (
            "doc_to_txt: x",
            &["bad.yaml", "'doc_to_txt'", "doc_to_text"][..],
        ),
        (
            "fewshot_config: {samplr: x}",
            &["fewshot_config.samplr", "sampler"],
        ),
        (
            "fewshot_config: {sampler: balanced}",
            &["balanced", "first_n"],
        ),
        (
            "process_docs: !function utils.f",
            &["process_docs", "bad/utils.f", "native function"],
        ),
        ("process_docs: utils.f", &["'process_docs'", "!function"]),
        ("doc_to_image: q", &["doc_to_image", "images"]),
        ("class: x", &["class", "Python"]),
        ("output_type: ranking", &["ranking", "multiple_choice"]),
        ("metric_list: [{metric: rouge}]", &["rouge", "acc_norm"]),
        (
            "metric_list: [{metric: acc, aggregation: max}]",
            &["max", "median"],
        ),
        (
            "metric_list: [{metric: perplexity}]",
            &["perplexity", "multiple_choice"],
        ),
        (
            "metric_list: [{metric: likelihood}]",
            &["task bad", "likelihood", "aggregation"],
        ),
        (
            "filter_list: [{name: x, filter: [{function: custom}]}]",
            &["custom", "multi_choice_regex"],
        ),
        (
            "filter_list: [{name: x, filter: [{function: regex, pattern: a}]}]",
            &["regex.pattern", "regex_pattern"],
        ),
        (
            "filter_list: [{name: x, filter: [{function: lowercase}, {function: take_first}]}]",
            &["lowercase", "is not a text"],
        ),
        (
            "filter_list: [{name: x, filter: [{function: regex, regex_pattern: '(('}]}]",
            &["((", "cannot be used"],
        ),
        (
            "doc_to_text: '{{question}}'",
            &["task bad", "question", "the fields: q, choices, label, n"],
        ),
        ("doc_to_choice: '{{q}}'", &["doc_to_choice", "not a list"]),
        ("doc_to_target: missing", &["nothing is wrong"]),
        ("doc_to_target: null", &["doc_to_target is missing"]),
        (
            "dataset_kwargs: {streaming: true}",
            &["streaming", "data_files"],
        ),
        ("num_fewshot: 5", &["examples are required"]),
        ("num_fewshot: -1", &["num_fewshot", "0 or more"]),
        ("repeats: 0", &["repeats"]),
        ("include: none.yaml", &["bad"]),
        ("doc_to_text: '{{ 1'", &["template"]),
    ] {
        // A later key would be a duplicate: the good one is removed.
        let key = extra.split(':').next().unwrap();
        let rest: String = GOOD
            .lines()
            .filter(|line| line.split(':').next() != Some(key))
            .map(|line| format!("{line}\n"))
            .collect();
        let message = attempt(&format!("{rest}{extra}\n"));
        for word in words {
            assert!(
                message.contains(word),
                "{extra}: {message:?} does not contain {word:?}"
            );
        }
    }
    for yaml in [
        "doc_to_text: q\ndoc_to_target: q\ngeneration_kwargs: {num_beams: 3}",
        "doc_to_text: q\ndoc_to_target: q\ngeneration_kwargs: {until: 3}",
        "doc_to_text: n\ndoc_to_target: q",
        "output_type: loglikelihood\ndoc_to_text: q\ndoc_to_target: n",
        "output_type: multiple_choice\ndoc_to_text: q\ndoc_to_target: label",
    ] {
        assert!(
            attempt(yaml).contains("task bad"),
            "{yaml}: {}",
            attempt(yaml)
        );
    }
}

#[test]
fn unknown_names_missing_files_and_duplicate_tasks_are_errors() {
    let golden = golden("harness");
    let dir = write_files(&golden);
    let index = TaskIndex::with_functions(&[dir.path().join("tasks")], functions()).unwrap();
    let message = |names: &[&str]| index.load(names, dir.path()).unwrap_err().to_string();
    assert!(message(&["no_such_task"]).contains("mc_all"));
    assert!(message(&["everything", "mc_all"]).contains("requested twice"));
    assert!(message(&[]).contains("name at least one"));
    assert!(index.load(&["mc_a*"], dir.path()).unwrap().tasks().len() == 1);
    let elsewhere = tempfile::tempdir().unwrap();
    let error = index
        .load(&["gsm"], elsewhere.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("data/sums_test.jsonl") && error.contains("\"test\""),
        "{error}"
    );
    // A file by its path.
    let path = dir.path().join("tasks/gsm.yaml");
    assert_eq!(
        index
            .load(&[path.to_str().unwrap()], dir.path())
            .unwrap()
            .tasks()[0]
            .name(),
        "gsm"
    );
}

#[test]
fn limits_without_documents_are_errors() {
    let golden = golden("harness");
    let dir = write_files(&golden);
    let set = load(dir.path(), &["ll"]);
    for limit in [0.0, -1.0, f64::NAN] {
        let options = EvaluateOptions {
            limit: Some(limit),
            ..EvaluateOptions::default()
        };
        assert!(
            evaluate(&Mock::default(), &set, &options, &mut |_, _| {}).is_err(),
            "{limit}"
        );
    }
}
