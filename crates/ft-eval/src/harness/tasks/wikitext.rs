//! WikiText: articles with their tokenization reversed, measured per word and byte of the original articles.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::json;

use super::text_of;
use crate::harness::functions::{
    Doc, Function, FunctionRegistry, FunctionResult, MetricValue, Metrics, Response,
};

pub(super) fn register(registry: &mut FunctionRegistry) {
    registry.insert(
        "wikitext/preprocess_wikitext.wikitext_detokenizer",
        Function::Doc(|doc| Ok(json!(detokenize(text_of(doc, "page")?)))),
    );
    registry.insert(
        "wikitext/preprocess_wikitext.process_results",
        Function::ProcessResults(process_results),
    );
}

/// The characters that `\s` of Python's `re` matches.
const SPACE: &str = r"[\s\x1c-\x1f]";

/// One step of reversing the tokenization.
enum Step {
    Text(&'static str, &'static str),
    Pattern(Regex, &'static str),
}

/// The steps in the order of the reference. In its `/' [0-9]/` the slashes are part of the pattern, and the replacement is the
/// literal text `[0-9]`. This mistake is reproduced.
fn steps() -> Vec<Step> {
    use Step::Text;
    let between = |open: &str, inside: &str, close: &str, with: &'static str| {
        let pattern = format!("{open}{SPACE}*({inside}*?){SPACE}*{close}");
        Step::Pattern(Regex::new(&pattern).expect("the pattern is right"), with)
    };
    vec![
        Text("s '", "s'"),
        Step::Pattern(
            Regex::new("/' [0-9]/").expect("the pattern is right"),
            "/'[0-9]/",
        ),
        Text(" @-@ ", "-"),
        Text(" @,@ ", ","),
        Text(" @.@ ", "."),
        Text(" : ", ": "),
        Text(" ; ", "; "),
        Text(" . ", ". "),
        Text(" ! ", "! "),
        Text(" ? ", "? "),
        Text(" , ", ", "),
        between(r"\(", r"[^\)]", r"\)", "($1)"),
        between(r"\[", r"[^\]]", r"\]", "[$1]"),
        between(r"\{", r"[^}]", r"\}", "{$1}"),
        between("\"", "[^\"]", "\"", "\"$1\""),
        between("'", "[^']", "'", "'$1'"),
        Text("= = = =", "===="),
        Text("= = =", "==="),
        Text("= =", "=="),
        Text(" \u{b0} ", "\u{b0}"),
        Text(" \n", "\n"),
        Text("\n ", "\n"),
        Text(" N ", " 1 "),
        Text(" 's", "'s"),
    ]
}

fn detokenize(page: &str) -> String {
    static STEPS: LazyLock<Vec<Step>> = LazyLock::new(steps);
    let mut text = page.to_string();
    for step in &*STEPS {
        match step {
            Step::Text(from, to) => text = text.replace(from, to),
            Step::Pattern(pattern, to) => {
                if let Cow::Owned(new) = pattern.replace_all(&text, *to) {
                    text = new;
                }
            }
        }
    }
    text
}

fn process_results(doc: &Doc, responses: &[Response]) -> FunctionResult<Metrics> {
    let [Response::Rolling(logp)] = responses else {
        return Err("the filters must leave one log-likelihood: use take_first".into());
    };
    static SPACES: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(&format!("{SPACE}+")).expect("the pattern is right"));
    let page = text_of(doc, "page")?;
    // `re.split` gives one part more than there are runs of space, including empty ones at the ends.
    let words = SPACES.find_iter(page).count() + 1;
    let per = |count: usize| {
        MetricValue::List(vec![
            MetricValue::Number(*logp),
            MetricValue::Int(count as i64),
        ])
    };
    Ok(vec![
        ("word_perplexity".to_string(), per(words)),
        ("byte_perplexity".to_string(), per(page.len())),
        ("bits_per_byte".to_string(), per(page.len())),
    ])
}
