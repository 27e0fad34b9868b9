//! MMLU-Pro: 14 task files and their group, generated from one template and a list of subjects. The rows of a subject are
//! selected from one file.

use serde_json::{Value, json};

use super::{TaskText, text_of};
use crate::harness::functions::{Doc, Function, FunctionRegistry, FunctionResult};
use crate::harness::python_value::strip;

/// The names of the subjects in tasks and in rows, and the functions that select the rows.
macro_rules! subjects {
    ($($name:literal of $category:literal),* $(,)?) => {
        const SUBJECTS: &[(&str, fn(Vec<Doc>) -> FunctionResult<Vec<Doc>>)] =
            &[$(($name, |docs| Ok(of_category(docs, $category)))),*];
    };
}

subjects! {
    "biology" of "biology",
    "business" of "business",
    "chemistry" of "chemistry",
    "computer_science" of "computer science",
    "economics" of "economics",
    "engineering" of "engineering",
    "health" of "health",
    "history" of "history",
    "law" of "law",
    "math" of "math",
    "other" of "other",
    "philosophy" of "philosophy",
    "physics" of "physics",
    "psychology" of "psychology",
}

fn of_category(mut docs: Vec<Doc>, category: &str) -> Vec<Doc> {
    docs.retain(|doc| doc["category"] == category);
    docs
}

pub(super) fn register(registry: &mut FunctionRegistry) {
    for (subject, pick) in SUBJECTS {
        registry.insert(
            format!("mmlu_pro/utils.process_{subject}"),
            Function::ProcessDocs(*pick),
        );
    }
    for (name, function) in [
        ("doc_to_text", question as fn(&Doc) -> _),
        ("fewshot_to_text", question),
        ("fewshot_to_target", reasoning),
    ] {
        registry.insert(format!("mmlu_pro/utils.{name}"), Function::Doc(function));
    }
}

/// The files of the subjects and of the group.
pub(super) fn files() -> impl Iterator<Item = TaskText> {
    let subjects = SUBJECTS.iter().map(|(subject, _)| {
        let text = format!(
            "include: _template\n\
             task: mmlu_pro_{subject}\n\
             task_alias: {subject}\n\
             process_docs: !function utils.process_{subject}\n\
             description: \"The following are multiple choice questions (with answers) about {}. \
             Think step by step and then finish your answer with \\\"the answer is (X)\\\" where X \
             is the correct letter choice.\\n\"\n",
            subject.replace('_', " ")
        );
        (
            format!("mmlu_pro/mmlu_pro_{subject}.yaml").into(),
            text.into(),
        )
    });
    let members: Vec<String> = SUBJECTS
        .iter()
        .map(|(subject, _)| format!("mmlu_pro_{subject}"))
        .collect();
    let group = format!(
        "group: mmlu_pro\n\
         task: [{}]\n\
         aggregate_metric_list:\n\
         \x20 - {{metric: exact_match, aggregation: mean, weight_by_size: true, filter_list: custom-extract}}\n\
         metadata: {{version: 2.0}}\n",
        members.join(", ")
    );
    subjects.chain([("mmlu_pro/_mmlu_pro.yaml".into(), group.into())])
}

/// The question with its choices, at most ten, and the beginning of the reasoning.
fn question(doc: &Doc) -> FunctionResult<Value> {
    let options = doc["options"].as_array();
    let options = options.ok_or("the field \"options\" is not a list")?;
    let mut text = format!("Question:\n{}\nOptions:\n", text_of(doc, "question")?);
    for (letter, option) in ('A'..='J').zip(options) {
        let option = option.as_str().ok_or("an option is not a text")?;
        text += &format!("{letter}. {}\n", strip(option));
    }
    Ok(json!(text + "Answer: Let's think step by step."))
}

/// The reasoning without its beginning, which is part of the question.
fn reasoning(doc: &Doc) -> FunctionResult<Value> {
    let reasoning = text_of(doc, "cot_content")?;
    Ok(json!(
        reasoning.replace("A: Let's think step by step. ", "")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_14_subjects_and_a_group() {
        assert_eq!(files().count(), 15);
    }
}
