//! Prompts, numbers, hashes and tables compared with lm-evaluation-harness 0.4.13.

use serde_json::{Value, json};

use super::golden_runs::{golden, run, write_files};
use super::same::{assert_same, compare_sample};

#[test]
fn every_number_prompt_and_hash_is_that_of_lm_eval() {
    let golden = golden("harness");
    let dir = write_files(&golden);
    let mut compared = 0;
    for golden in golden["runs"].as_array().unwrap() {
        let name = golden["name"].as_str().unwrap();
        let evaluation = run(dir.path(), golden);
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
    }
    assert!(compared > 900, "{compared}");
}

#[test]
fn the_results_file_has_lm_eval_s_keys_and_numbers() {
    let golden = golden("harness");
    let dir = write_files(&golden);
    for golden in golden["runs"].as_array().unwrap() {
        let name = golden["name"].as_str().unwrap();
        let mut ours: Value = serde_json::from_str(&run(dir.path(), golden).to_json()).unwrap();
        for config in ours["configs"].as_object_mut().unwrap().values_mut() {
            config["metadata"]
                .as_object_mut()
                .unwrap()
                .shift_remove("config_source");
        }
        for (key, value) in golden["results"].as_object().unwrap() {
            if key == "configs" {
                for (task, config) in value.as_object().unwrap() {
                    assert_same(&ours[key][task], config, &format!("{name}, configs.{task}"));
                }
            } else {
                assert_same(&ours[key], value, &format!("{name}, {key}"));
            }
        }
        let of_python = [
            "pretty_env_info",
            "transformers_version",
            "lm_eval_version",
            "upper_git_hash",
        ];
        let of_tokenizer = [
            "tokenizer_pad_token",
            "tokenizer_eos_token",
            "tokenizer_bos_token",
            "eot_token_id",
            "max_length",
        ];
        for key in golden["keys"].as_array().unwrap() {
            let key = key.as_str().unwrap();
            if !of_python.contains(&key) && !of_tokenizer.contains(&key) {
                assert!(ours.get(key).is_some(), "{name}: {key} is missing");
            }
        }
        let keys: Vec<Value> = ours["config"]
            .as_object()
            .unwrap()
            .keys()
            .map(|key| json!(key))
            .collect();
        assert_eq!(&keys, golden["config_keys"].as_array().unwrap(), "{name}");
    }
}

/// The cells of a Markdown table. Numbers are parsed, since the reference's table library omits zeros.
fn cells(table: &str) -> Vec<Vec<String>> {
    let rows = table
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|-"));
    rows.map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells
            .map(|cell| match cell.trim().parse::<f64>() {
                Ok(number) => format!("{number:.4}"),
                Err(_) => cell.trim_end().to_string(),
            })
            .enumerate()
            // Only the indentation of names matters.
            .map(|(i, cell)| {
                if i == 0 {
                    cell
                } else {
                    cell.trim().to_string()
                }
            })
            .collect()
    })
    .skip(1)
    .collect()
}

#[test]
fn the_table_has_lm_eval_s_rows() {
    let golden = golden("harness");
    let dir = write_files(&golden);
    for golden in golden["runs"].as_array().unwrap() {
        let evaluation = run(dir.path(), golden);
        let name = &golden["name"];
        assert_eq!(
            cells(&evaluation.table()),
            cells(golden["table"].as_str().unwrap()),
            "{name}"
        );
        match (evaluation.groups_table(), golden["groups_table"].as_str()) {
            (Some(ours), Some(golden)) => assert_eq!(cells(&ours), cells(golden), "{name}"),
            (ours, golden) => assert_eq!(ours.is_some(), golden.is_some(), "{name}"),
        }
    }
}
