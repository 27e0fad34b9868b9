//! The built-in tasks compared with lm-evaluation-harness's files of the same names, on the same rows.

use ft_eval::harness::{TaskIndex, evaluate};

use super::golden_runs::{golden, names, options, write_files};
use super::mock_model::Mock;
use super::same::{assert_same, compare_sample};

/// Runs the tasks of a golden file, and returns the number of samples.
fn compare(file: &str) -> usize {
    let golden = golden(file);
    let dir = write_files(&golden);
    let index = TaskIndex::new(&[] as &[&str]).unwrap();
    let mut compared = 0;
    for golden in golden["runs"].as_array().unwrap() {
        let name = golden["name"].as_str().unwrap();
        let tasks = index.load(&names(golden), dir.path()).unwrap();
        let evaluation =
            evaluate(&Mock::default(), &tasks, &options(golden), &mut |_, _| {}).unwrap();
        assert_eq!(
            evaluation.samples.len(),
            golden["samples"].as_object().unwrap().len(),
            "{name}"
        );
        for (task, samples) in &evaluation.samples {
            let expected = golden["samples"][task].as_array().unwrap();
            assert_eq!(samples.len(), expected.len(), "{name}, {task}");
            for (sample, expected) in samples.iter().zip(expected) {
                let place = format!(
                    "{name}, {task}, document {}, {}",
                    sample.doc_id, sample.filter
                );
                compare_sample(&sample.to_line(), expected, &place);
                compared += 1;
            }
        }
        let ours: serde_json::Value = serde_json::from_str(&evaluation.to_json()).unwrap();
        for (key, value) in golden["results"].as_object().unwrap() {
            for (task, value) in value.as_object().unwrap() {
                assert_same(&ours[key][task], value, &format!("{name}, {key}.{task}"));
            }
        }
    }
    compared
}

#[test]
fn tasks_of_choices_and_numbers_equal_those_of_lm_eval() {
    assert_eq!(compare("built_in_choices"), 801);
}

#[test]
fn tasks_with_functions_equal_those_of_lm_eval() {
    assert_eq!(compare("built_in_code"), 798);
}

#[test]
fn the_57_tasks_of_mmlu_and_its_groups_equal_those_of_lm_eval() {
    assert_eq!(compare("built_in_mmlu"), 294);
}

#[test]
fn more_tasks_equal_those_of_lm_eval() {
    assert_eq!(compare("built_in_more"), 590);
}

#[test]
fn math_and_mmlu_pro_and_their_groups_equal_those_of_lm_eval() {
    assert_eq!(compare("built_in_groups"), 393);
}
