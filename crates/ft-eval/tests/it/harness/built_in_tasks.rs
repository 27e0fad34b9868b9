//! The built-in tasks against lm-evaluation-harness's own files of the same names, on the same rows.

use ft_eval::harness::{TaskIndex, evaluate};

use super::golden_runs::{golden, names, options, write_files};
use super::mock_model::Mock;
use super::same::{assert_same, compare_sample};

#[test]
fn built_in_tasks_ask_and_score_as_those_of_lm_eval() {
    let golden = golden("built_in_tasks");
    let dir = write_files(&golden);
    let index = TaskIndex::new(&[] as &[&str]).unwrap();
    let mut compared = 0;
    for golden in golden["runs"].as_array().unwrap() {
        let name = golden["name"].as_str().unwrap();
        let tasks = index.load(&names(golden), dir.path()).unwrap();
        let evaluation =
            evaluate(&Mock::default(), &tasks, &options(golden), &mut |_, _| {}).unwrap();
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
    assert_eq!(compared, 1078);
}
