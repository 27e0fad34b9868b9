//! Repeats the runs of the golden files.

use std::path::Path;

use ft_eval::harness::{EvaluateOptions, Evaluation, TaskIndex, TaskSet, evaluate};
use serde_json::Value;

use super::mock_model::Mock;
use super::own_functions::functions;

pub(crate) fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
        .with_extension("json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) fn write_files(golden: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in golden["files"].as_object().unwrap() {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text.as_str().unwrap()).unwrap();
    }
    dir
}

pub(crate) fn load(dir: &Path, tasks: &[&str]) -> TaskSet {
    let index = TaskIndex::with_functions(&[dir.join("tasks")], functions()).unwrap();
    index.load(tasks, dir).unwrap()
}

pub(crate) fn options(run: &Value) -> EvaluateOptions {
    let given = &run["options"];
    let mut options = EvaluateOptions::default();
    if let Some(count) = given["num_fewshot"].as_u64() {
        options.num_fewshot = Some(count as usize);
    }
    options.limit = given["limit"].as_f64();
    options.system_instruction = given["system_instruction"].as_str().map(str::to_string);
    options.apply_chat_template = given["apply_chat_template"].as_bool().unwrap_or(false);
    options.fewshot_as_multiturn = given["fewshot_as_multiturn"].as_bool().unwrap_or(true);
    if let Some(seed) = given["fewshot_random_seed"].as_u64() {
        options.fewshot_seed = seed;
    }
    if let Some(count) = given["bootstrap_iters"].as_u64() {
        options.bootstrap_iters = count as usize;
    }
    if let Some(kwargs) = given["gen_kwargs"].as_object() {
        options.generation_kwargs = kwargs.clone();
    }
    options
}

pub(crate) fn names(run: &Value) -> Vec<&str> {
    run["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect()
}

pub(crate) fn run(dir: &Path, run: &Value) -> Evaluation {
    evaluate(
        &Mock::default(),
        &load(dir, &names(run)),
        &options(run),
        &mut |_, _| {},
    )
    .unwrap()
}
