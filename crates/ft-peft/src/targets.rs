//! Which linear layers get an adapter, by PEFT's rules.

use ft_core::Linears;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Names of layers as `target_modules` and `exclude_modules` give them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// A layer is meant if its name is one of these or ends with a dot and one of these.
    Names(Vec<String>),
    /// A regular expression that the whole name must match; `all-linear` means every linear layer
    /// but the output layer.
    Pattern(String),
}

/// Whether a layer of this path is meant.
type Matcher = Box<dyn Fn(&str) -> bool>;

/// PEFT's word for every linear layer but the output layer.
const ALL_LINEAR: &str = "all-linear";

impl TargetModules {
    /// Every linear layer but the output layer.
    pub fn all_linear() -> Self {
        Self::Pattern(ALL_LINEAR.into())
    }

    /// These names.
    pub fn names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Names(names.into_iter().map(Into::into).collect())
    }

    /// A predicate on layer names.
    ///
    /// # Errors
    ///
    /// If the regular expression does not parse.
    pub(crate) fn matcher(&self) -> Result<Matcher, String> {
        Ok(match self {
            Self::Pattern(all) if all.eq_ignore_ascii_case(ALL_LINEAR) => {
                Box::new(|path| path != OUTPUT_LAYER)
            }
            Self::Pattern(pattern) => {
                let regex = Regex::new(&format!("^(?:{pattern})$"))
                    .map_err(|e| format!("{pattern:?} is not a regular expression: {e}"))?;
                Box::new(move |path| regex.is_match(path))
            }
            Self::Names(names) => {
                let names = names.clone();
                Box::new(move |path| names.iter().any(|name| ends_with_name(path, name)))
            }
        })
    }

    fn describe(&self) -> String {
        match self {
            Self::Names(names) => format!("{names:?}"),
            Self::Pattern(pattern) => format!("{pattern:?}"),
        }
    }
}

const OUTPUT_LAYER: &str = "lm_head";

/// Whether `path` is `name` or ends with `.name`.
pub(crate) fn ends_with_name(path: &str, name: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The paths of the layers that are meant.
///
/// # Errors
///
/// If a pattern does not parse, or nothing matches.
pub(crate) fn select(
    model: &impl Linears,
    targets: &TargetModules,
    exclude: Option<&TargetModules>,
) -> Result<Vec<String>> {
    let wanted = targets.matcher().map_err(Error::Settings)?;
    let excluded = match exclude {
        Some(exclude) => exclude.matcher().map_err(Error::Settings)?,
        None => Box::new(|_: &str| false),
    };
    let (mut chosen, mut kinds) = (Vec::new(), Vec::new());
    model.for_each_linear(&mut |path, _| {
        let kind = path.rsplit('.').next().unwrap_or(path).to_string();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
        if wanted(path) && !excluded(path) {
            chosen.push(path.to_string());
        }
    });
    if chosen.is_empty() {
        return Err(Error::NoTarget {
            targets: targets.describe(),
            available: kinds.join(", "),
        });
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(targets: &TargetModules, path: &str) -> bool {
        targets.matcher().expect("parses")(path)
    }

    #[test]
    fn names_are_whole_parts_at_the_end() {
        let targets = TargetModules::names(["q_proj", "mlp.up_proj"]);
        assert!(matches(&targets, "model.layers.0.self_attn.q_proj"));
        assert!(matches(&targets, "q_proj"));
        assert!(matches(&targets, "model.layers.0.mlp.up_proj"));
        assert!(!matches(&targets, "model.layers.0.self_attn.seq_proj"));
        assert!(!matches(&targets, "model.layers.0.up_proj"));
    }

    #[test]
    fn a_pattern_must_match_the_whole_name() {
        let targets = TargetModules::Pattern(r".*\.[01]\..*q_proj|lm_head".into());
        assert!(matches(&targets, "model.layers.1.self_attn.q_proj"));
        assert!(matches(&targets, "lm_head"));
        assert!(!matches(&targets, "model.layers.2.self_attn.q_proj"));
        assert!(!matches(&targets, "model.layers.1.self_attn.q_proj_extra"));
    }

    #[test]
    fn all_linear_spares_the_output_layer() {
        assert!(matches(
            &TargetModules::all_linear(),
            "model.layers.0.mlp.down_proj"
        ));
        assert!(!matches(&TargetModules::all_linear(), "lm_head"));
    }
}
