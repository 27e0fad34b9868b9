//! Prompts: description, examples and question, as plain text or as a conversation.
//!
//! As in lm-evaluation-harness 0.4.13, every part is a message with a delimiter. The delimiter follows it in plain
//! text and is omitted in a chat template. In a conversation the examples are separate turns
//! (`fewshot_as_multiturn`), or all parts except the system's are one message of the user.

use serde_json::Value;

use super::LanguageModel;
use super::functions::Doc;
use super::python_random::PythonRandom;
use super::python_value::is_space;
use super::task::Task;
use crate::Result;

/// Settings of prompts, for all tasks of a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PromptOptions<'a> {
    pub(super) num_fewshot: usize,
    pub(super) system_instruction: Option<&'a str>,
    pub(super) apply_chat_template: bool,
    pub(super) fewshot_as_multiturn: bool,
}

#[derive(Clone, Debug)]
struct Message {
    role: &'static str,
    content: String,
    delimiter: String,
}

impl Message {
    fn new(role: &'static str, content: String, delimiter: &str) -> Self {
        Self {
            role,
            content,
            delimiter: delimiter.to_string(),
        }
    }
}

/// Whether two texts need a delimiter: only if neither has white space there.
fn needs_delimiter(before: &str, after: &str) -> bool {
    let space_before = before.chars().next_back().is_some_and(is_space);
    let space_after = after.chars().next().is_some_and(is_space);
    !(space_before || space_after)
}

/// Joins two texts, with the delimiter if it is needed.
fn join(before: &str, after: &str, delimiter: &str) -> String {
    if before.is_empty() || after.is_empty() || !needs_delimiter(before, after) {
        return format!("{before}{after}");
    }
    format!("{before}{delimiter}{after}")
}

/// Draws the examples of a task's documents, one document after the other.
pub(super) struct Sampler {
    random: PythonRandom,
}

impl Sampler {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: PythonRandom::new(seed),
        }
    }

    /// `count` examples for a document, without the document itself.
    fn sample<'t>(
        &mut self,
        task: &'t Task,
        count: usize,
        doc: &Doc,
    ) -> Result<Vec<&'t Doc>, String> {
        let pool = task.fewshot_docs.as_ref().map_err(String::clone)?;
        // The document is excluded if the examples come from the tested split, or if neither split is named.
        let excluded = (task.config.fewshot.split == task.config.test_split).then_some(doc);
        let others = |pool: Vec<&'t Doc>| -> Vec<&'t Doc> {
            pool.into_iter()
                .filter(|example| Some(*example) != excluded)
                .collect()
        };
        let too_few =
            |there: usize| format!("{count} examples are required, but there are {there}");
        if task.config.fewshot.first_n {
            let mut pool = others(pool.iter().collect());
            if pool.len() < count {
                return Err(too_few(pool.len()));
            }
            pool.truncate(count);
            return Ok(pool);
        }
        let excluded_is_empty = excluded
            .and_then(Value::as_object)
            .is_none_or(|doc| doc.is_empty());
        let drawn = if excluded_is_empty { count } else { count + 1 };
        if pool.len() < drawn {
            return Err(too_few(pool.len() - (drawn - count).min(pool.len())));
        }
        let mut draw = |pool: &[&'t Doc], count: usize| -> Vec<&'t Doc> {
            self.random
                .sample(pool.len(), count)
                .into_iter()
                .map(|i| pool[i])
                .collect()
        };
        let all: Vec<&Doc> = pool.iter().collect();
        let mut examples = draw(&all, drawn);
        if !excluded_is_empty {
            examples = others(examples);
            examples.truncate(count);
        }
        if examples.len() < count {
            let rest = others(all);
            if rest.len() < count {
                return Err(too_few(rest.len()));
            }
            examples = draw(&rest, count);
        }
        Ok(examples)
    }
}

/// The prompt of a document, or one for each choice if the choices are prompts.
pub(super) fn contexts(
    task: &Task,
    doc: &Doc,
    options: &PromptOptions<'_>,
    sampler: &mut Sampler,
    model: &dyn LanguageModel,
) -> Result<Vec<String>> {
    let failed = |reason: String| task.error(reason);
    let config = &task.config;
    let gen_prefix = task.doc_to_prefix(doc).map_err(failed)?;
    let gen_prefix = gen_prefix.as_deref();

    let mut messages = Vec::new();
    let description = Task::resolve(Some(&config.description), doc).map_err(failed)?;
    // The reference's delimiter here is the one between examples.
    let system = join(
        options.system_instruction.unwrap_or(""),
        &description.unwrap_or_default(),
        &config.fewshot_delimiter,
    );
    if !system.is_empty() {
        messages.push(Message::new("system", system, ""));
    }
    if options.num_fewshot > 0 {
        for example in sampler
            .sample(task, options.num_fewshot, doc)
            .map_err(failed)?
        {
            let turns = example_turns(task, example)
                .map_err(|reason| task.error(format!("in the example {example}: {reason}")))?;
            messages.extend(turns);
        }
    }

    let last_turns: Vec<Vec<Message>> = if task.multiple_input {
        task.doc_to_choice(doc, None)
            .map_err(failed)?
            .into_iter()
            .map(|choice| question_turn(choice, gen_prefix, ""))
            .collect()
    } else {
        let question = task.doc_to_text(doc, None).map_err(failed)?;
        let Value::String(question) = question else {
            return Err(task.error(format!("doc_to_text has to give a text, not {question}")));
        };
        vec![question_turn(
            question,
            gen_prefix,
            &config.target_delimiter,
        )]
    };
    last_turns
        .into_iter()
        .map(|turns| {
            let mut messages = messages.clone();
            messages.extend(turns);
            if !options.apply_chat_template {
                return Ok(messages
                    .iter()
                    .map(|m| format!("{}{}", m.content, m.delimiter))
                    .collect());
            }
            let conversation = if options.fewshot_as_multiturn {
                messages
                    .into_iter()
                    .map(|m| (m.role.to_string(), m.content))
                    .collect()
            } else {
                single_turn(messages)
            };
            let open = gen_prefix.is_none_or(str::is_empty);
            model.apply_chat_template(&conversation, open)
        })
        .collect()
}

/// An example: its question and its answer.
fn example_turns(task: &Task, example: &Doc) -> Result<Vec<Message>, String> {
    let own = &task.config.fewshot;
    let mut question = task.doc_to_text(example, own.doc_to_text.as_ref())?;
    let mut choices = match &own.doc_to_choice {
        Some(field) => Some(task.doc_to_choice(example, Some(field))?),
        None => None,
    };
    let answer = task.doc_to_target(example, own.doc_to_target.as_ref())?;
    let gen_prefix = Task::resolve(own.gen_prefix.as_deref(), example)?;
    if task.multiple_input {
        let choices = choices.take().ok_or("doc_to_choice is missing")?;
        question = Value::String(choice(&choices, &question)?);
    }
    let Value::String(question) = question else {
        return Err(format!("doc_to_text has to give a text, not {question}"));
    };
    let prefix = gen_prefix.as_deref().filter(|prefix| !prefix.is_empty());
    if answer.is_null() || answer == "" {
        return Ok(question_turn(question, prefix, &own.target_delimiter));
    }
    let answer = match (&answer, &choices) {
        (Value::Number(_) | Value::Bool(_), Some(choices)) => choice(choices, &answer)?,
        (Value::Array(targets), _) => match targets.first() {
            Some(Value::String(target)) => target.clone(),
            _ => {
                return Err(format!(
                    "the first of several answers has to be a text: {answer}"
                ));
            }
        },
        (Value::String(answer), _) => answer.clone(),
        _ => return Err(format!("the answer has to be a text, not {answer}")),
    };
    let delimiter = match prefix {
        Some(prefix) if question.is_empty() || !needs_delimiter(&question, prefix) => "",
        _ => &own.target_delimiter,
    };
    Ok(vec![
        Message::new("user", question, delimiter),
        Message::new(
            "assistant",
            join(prefix.unwrap_or(""), &answer, " "),
            &own.fewshot_delimiter,
        ),
    ])
}

/// The choice with an index. A negative index counts from the end.
fn choice(choices: &[String], index: &Value) -> Result<String, String> {
    let index = match index {
        Value::Bool(index) => i64::from(*index),
        other => other
            .as_i64()
            .ok_or_else(|| format!("{other} is not the index of a choice"))?,
    };
    let from_start = if index < 0 {
        index + choices.len() as i64
    } else {
        index
    };
    usize::try_from(from_start)
        .ok()
        .and_then(|index| choices.get(index))
        .cloned()
        .ok_or_else(|| format!("there is no choice {index}: there are {}", choices.len()))
}

/// A question and the beginning of its answer.
fn question_turn(question: String, gen_prefix: Option<&str>, delimiter: &str) -> Vec<Message> {
    let Some(prefix) = gen_prefix.filter(|prefix| !prefix.is_empty()) else {
        return vec![Message::new("user", question, "")];
    };
    let delimiter = if !question.is_empty() && needs_delimiter(&question, prefix) {
        delimiter
    } else {
        ""
    };
    vec![
        Message::new("user", question, delimiter),
        Message::new("assistant", prefix.to_string(), ""),
    ]
}

/// All parts except the system's and the beginning of the answer as one message of the user.
fn single_turn(mut messages: Vec<Message>) -> Vec<(String, String)> {
    let mut conversation = Vec::new();
    if messages.first().is_some_and(|first| first.role == "system") {
        conversation.push(("system".to_string(), messages.remove(0).content));
    }
    let answer = messages.pop_if(|last| last.role == "assistant");
    if let Some(last) = messages.last_mut() {
        last.delimiter.clear();
    }
    let all = messages
        .iter()
        .map(|m| format!("{}{}", m.content, m.delimiter))
        .collect();
    conversation.push(("user".to_string(), all));
    conversation.extend(answer.map(|answer| (answer.role.to_string(), answer.content)));
    conversation
}
