//! The built-in tasks: their files in `tasks/` of this crate, and their functions.
//!
//! [`files`] lists the files by path. A family of tasks with functions has a module here, whose `register` adds them to
//! the registry. The names of the functions are those of lm-evaluation-harness, so that its own files of these tasks run
//! as well.

mod aime;
mod cb;
mod copa;
mod harmbench;
mod hellaswag;
mod hendrycks_math;
mod ifeval;
mod logiqa;
mod math_answer;
mod math_equality;
mod mmlu;
mod mmlu_pro;
mod race;
mod truthfulqa;
mod wikitext;
mod winogrande;

use std::borrow::Cow;
use std::sync::LazyLock;

use super::functions::{Doc, FunctionRegistry, FunctionResult, Response};

/// A task file: `FOLDER/FILE`, and its text.
pub(super) type TaskText = (Cow<'static, str>, Cow<'static, str>);

macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("../../tasks/", $name)))
    };
}

/// The handwritten files.
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
    file!("hendrycks_math/hendrycks_math.yaml"),
    file!("hendrycks_math/hendrycks_math500.yaml"),
    file!("hendrycks_math/hendrycks_math_algebra.yaml"),
    file!("hendrycks_math/hendrycks_math_counting_and_prob.yaml"),
    file!("hendrycks_math/hendrycks_math_geometry.yaml"),
    file!("hendrycks_math/hendrycks_math_intermediate_algebra.yaml"),
    file!("hendrycks_math/hendrycks_math_num_theory.yaml"),
    file!("hendrycks_math/hendrycks_math_prealgebra.yaml"),
    file!("hendrycks_math/hendrycks_math_precalc.yaml"),
    file!("ifeval/ifeval.yaml"),
    file!("lambada/lambada_openai.yaml"),
    file!("lambada/lambada_standard.yaml"),
    file!("logiqa/logiqa.yaml"),
    file!("mmlu/_template"),
    file!("mmlu_pro/_template"),
    file!("nq_open/nq_open.yaml"),
    file!("openbookqa/openbookqa.yaml"),
    file!("piqa/piqa.yaml"),
    file!("race/race.yaml"),
    file!("sciq/sciq.yaml"),
    file!("siqa/social_iqa.yaml"),
    file!("super_glue/boolq.yaml"),
    file!("super_glue/cb.yaml"),
    file!("super_glue/copa.yaml"),
    file!("super_glue/sglue_rte.yaml"),
    file!("super_glue/wic.yaml"),
    file!("swag/swag.yaml"),
    file!("triviaqa/triviaqa.yaml"),
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
        written
            .chain(mmlu::files())
            .chain(mmlu_pro::files())
            .collect()
    });
    &FILES
}

/// The functions of the built-in tasks.
pub(super) fn functions() -> FunctionRegistry {
    let mut registry = FunctionRegistry::new();
    aime::register(&mut registry);
    cb::register(&mut registry);
    copa::register(&mut registry);
    harmbench::register(&mut registry);
    hellaswag::register(&mut registry);
    hendrycks_math::register(&mut registry);
    ifeval::register(&mut registry);
    logiqa::register(&mut registry);
    mmlu_pro::register(&mut registry);
    race::register(&mut registry);
    truthfulqa::register(&mut registry);
    wikitext::register(&mut registry);
    winogrande::register(&mut registry);
    registry
}

/// A field that must be a text.
fn text_of<'d>(doc: &'d Doc, field: &str) -> FunctionResult<&'d str> {
    doc.get(field)
        .and_then(|value| value.as_str())
        .ok_or_else(|| format!("the document has no text in the field {field:?}").into())
}

/// The generated text of a request with one text.
fn text_response(responses: &[Response]) -> FunctionResult<&str> {
    match responses {
        [Response::Text(text)] => Ok(text),
        _ => Err("the filters must leave one text: use take_first".into()),
    }
}

#[cfg(test)]
mod tests {
    use crate::harness::TaskIndex;

    #[test]
    fn every_built_in_task_is_in_the_readme() {
        let list = include_str!("../../tasks/README.md");
        let index = TaskIndex::new(&[] as &[&str]).unwrap();
        // Many of one kind share a row, and tags are not tasks.
        let kinds = ["mmlu_", "mmlu_pro_", "hendrycks_math_"];
        let tags = [
            "ai2_arc",
            "lambada",
            "math_word_problems",
            "multiple_choice",
            "safety",
            "super-glue-lm-eval-v1",
            "truthfulqa",
        ];
        let mut named = 0;
        for task in index.names() {
            if tags.contains(&task) || kinds.iter().any(|kind| task.starts_with(kind)) {
                continue;
            }
            assert!(list.contains(&format!("`{task}`")), "{task}");
            named += 1;
        }
        assert_eq!(named, 33);
    }
}
