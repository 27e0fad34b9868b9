//! The built-in tasks: their files in `tasks/` of this crate, and the functions that those name.
//!
//! A file that lies there stands in [`files`] by its path, and a family of tasks that needs code has
//! a module here with `register`, which adds its functions to the registry. Their names are those of
//! lm-evaluation-harness, so its own file of such a task runs as well.

mod aime;
mod harmbench;
mod hellaswag;
mod ifeval;
mod mmlu;
mod truthfulqa;
mod wikitext;
mod winogrande;

use std::borrow::Cow;
use std::sync::LazyLock;

use super::functions::{Doc, FunctionRegistry, FunctionResult};

/// A task file: `FOLDER/FILE`, and its text.
pub(super) type TaskText = (Cow<'static, str>, Cow<'static, str>);

macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("../../tasks/", $name)))
    };
}

/// The files that are written by hand.
const WRITTEN: &[(&str, &str)] = &[
    file!("aime/aime.yaml"),
    file!("aime/aime24.yaml"),
    file!("aime/aime25.yaml"),
    file!("arc/arc_challenge.yaml"),
    file!("arc/arc_easy.yaml"),
    file!("commonsense_qa/commonsense_qa.yaml"),
    file!("gsm8k/gsm8k.yaml"),
    file!("harmbench/harmbench.yaml"),
    file!("hellaswag/hellaswag.yaml"),
    file!("ifeval/ifeval.yaml"),
    file!("lambada/lambada_openai.yaml"),
    file!("lambada/lambada_standard.yaml"),
    file!("mmlu/_template"),
    file!("openbookqa/openbookqa.yaml"),
    file!("piqa/piqa.yaml"),
    file!("sciq/sciq.yaml"),
    file!("super_glue/boolq.yaml"),
    file!("truthfulqa/truthfulqa_mc1.yaml"),
    file!("truthfulqa/truthfulqa_mc2.yaml"),
    file!("wikitext/wikitext.yaml"),
    file!("winogrande/winogrande.yaml"),
];

/// The built-in task files.
pub(super) fn files() -> &'static [TaskText] {
    static FILES: LazyLock<Vec<TaskText>> = LazyLock::new(|| {
        let written = WRITTEN
            .iter()
            .map(|&(name, text)| (name.into(), text.into()));
        written.chain(mmlu::files()).collect()
    });
    &FILES
}

/// The functions of the built-in tasks.
pub(super) fn functions() -> FunctionRegistry {
    let mut registry = FunctionRegistry::new();
    aime::register(&mut registry);
    harmbench::register(&mut registry);
    hellaswag::register(&mut registry);
    ifeval::register(&mut registry);
    truthfulqa::register(&mut registry);
    wikitext::register(&mut registry);
    winogrande::register(&mut registry);
    registry
}

/// A field that has to be a text.
fn text_of<'d>(doc: &'d Doc, field: &str) -> FunctionResult<&'d str> {
    doc.get(field)
        .and_then(|value| value.as_str())
        .ok_or_else(|| format!("the document has no text in the field {field:?}"))
}
