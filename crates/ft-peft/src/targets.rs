//! Which linear layers get an adapter, by PEFT's rules.

use ft_core::Parts;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{Error, LoraConfig, Result};

/// Names of layers as `target_modules` and `exclude_modules` give them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// Matches a layer if its name is one of these or ends with a dot and one of these.
    Names(Vec<String>),
    /// A regular expression that the whole name must match; `all-linear` matches every linear layer
    /// except the output layer.
    Pattern(String),
}

/// Whether a layer of this path is chosen.
type Matcher = Box<dyn Fn(&str) -> bool>;

/// PEFT's name for every linear layer except the output layer.
const ALL_LINEAR: &str = "all-linear";

impl TargetModules {
    /// Every linear layer except the output layer.
    pub fn all_linear() -> Self {
        Self::Pattern(ALL_LINEAR.into())
    }

    /// These names.
    pub fn names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Names(names.into_iter().map(Into::into).collect())
    }

    /// A predicate on layer names, given the name of the output layer.
    ///
    /// # Errors
    ///
    /// If the regular expression does not parse.
    pub(crate) fn matcher(&self, output_layer: &str) -> Result<Matcher, String> {
        Ok(match self {
            Self::Pattern(all) if all.eq_ignore_ascii_case(ALL_LINEAR) => {
                let output_layer = output_layer.to_string();
                Box::new(move |path| path != output_layer)
            }
            Self::Pattern(pattern) => {
                let regex = whole_match(pattern, pattern)?;
                Box::new(move |path| regex.is_match(path))
            }
            Self::Names(names) => {
                let names = names.clone();
                Box::new(move |path| names.iter().any(|name| ends_with_name(path, name)))
            }
        })
    }

    /// The targets that match none of `paths`: single names, or the pattern.
    pub(crate) fn unmatched(&self, paths: &[String], output_layer: &str) -> Vec<String> {
        let parts: Vec<Self> = match self {
            Self::Names(names) => names.iter().map(|name| Self::names([name])).collect(),
            Self::Pattern(_) => vec![self.clone()],
        };
        parts
            .iter()
            .filter(|part| {
                part.matcher(output_layer)
                    .is_ok_and(|wanted| !paths.iter().any(|path| wanted(path)))
            })
            .map(Self::describe)
            .collect()
    }

    fn describe(&self) -> String {
        match self {
            Self::Names(names) => names.join(", "),
            Self::Pattern(pattern) => pattern.clone(),
        }
    }
}

/// A regular expression that must match a whole text, for `pattern` as a person wrote it.
fn whole_match(regex: &str, pattern: &str) -> Result<Regex, String> {
    Regex::new(&format!(r"\A(?:{regex})\z"))
        .map_err(|e| format!("{pattern:?} is not a regular expression: {e}"))
}

/// PEFT's rule for `rank_pattern` and `alpha_pattern`: the pattern matches whole parts at the end.
pub(crate) fn ends_with_pattern(pattern: &str) -> Result<Regex, String> {
    whole_match(&format!(r"(?:.*\.)?(?:{pattern})"), pattern)
}

/// Whether `path` is `name` or ends with `.name`.
pub(crate) fn ends_with_name(path: &str, name: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The layers of `paths` that the settings choose.
///
/// # Errors
///
/// If a pattern does not parse, or no layer is left.
pub(crate) fn select(
    paths: &[String],
    output_layer: &str,
    config: &LoraConfig,
) -> Result<Vec<String>> {
    let matcher = |targets: &TargetModules| targets.matcher(output_layer).map_err(Error::Settings);
    let targets = &config.target_modules;
    let wanted = matcher(targets)?;
    let mut chosen: Vec<String> = paths.iter().filter(|path| wanted(path)).cloned().collect();
    if chosen.is_empty() {
        return Err(no_target("target_modules", &targets.describe(), paths));
    }
    if let Some(exclude) = &config.exclude_modules {
        let excluded = matcher(exclude)?;
        chosen.retain(|path| !excluded(path));
        if chosen.is_empty() {
            return Err(Error::Settings(format!(
                "exclude_modules ({}) leaves none of the layers of target_modules ({})",
                exclude.describe(),
                targets.describe()
            )));
        }
    }
    Ok(chosen)
}

/// As [`select`], for new adapters: every name and pattern must match a layer, so that a typing error
/// among several names is reported.
///
/// # Errors
///
/// As [`select`], and [`Error::NoTarget`] with what matches nothing. If the settings have `modules_to_save`.
pub(crate) fn select_strictly(
    paths: &[String],
    output_layer: &str,
    config: &LoraConfig,
) -> Result<Vec<String>> {
    if !config.modules_to_save.is_empty() {
        return Err(Error::Settings(
            "modules_to_save is for adapters that are loaded or saved: attach the new adapter without it, and \
             name in it what else to write when the adapter is saved"
                .into(),
        ));
    }
    let chosen = select(paths, output_layer, config)?;
    let targets = [
        ("target_modules", Some(&config.target_modules)),
        ("exclude_modules", config.exclude_modules.as_ref()),
    ];
    for (setting, targets) in targets {
        let unmatched = targets.map_or(Vec::new(), |t| t.unmatched(paths, output_layer));
        if !unmatched.is_empty() {
            return Err(no_target(setting, &unmatched.join(", "), paths));
        }
    }
    let unused = |pattern: &&String| {
        ends_with_pattern(pattern)
            .is_ok_and(|regex| !chosen.iter().any(|path| regex.is_match(path)))
    };
    let ranks = config.rank_pattern.iter().map(|(name, _)| name);
    if let Some(pattern) = ranks.into_iter().find(unused) {
        return Err(no_target("rank_pattern", pattern, &chosen));
    }
    let alphas = config.alpha_pattern.iter().map(|(name, _)| name);
    if let Some(pattern) = alphas.into_iter().find(unused) {
        return Err(no_target("alpha_pattern", pattern, &chosen));
    }
    Ok(chosen)
}

/// Paths of all layers, in the order of the forward pass.
pub(crate) fn paths(model: &impl Parts) -> Vec<String> {
    let mut paths = Vec::new();
    model.for_each_linear(&mut |path, _| paths.push(path.to_string()));
    paths
}

/// The last parts of `paths`, each once.
pub(crate) fn kinds(paths: &[String]) -> Vec<String> {
    let mut kinds: Vec<String> = Vec::new();
    for path in paths {
        let kind = path.rsplit('.').next().unwrap_or(path);
        if !kinds.iter().any(|known| known == kind) {
            kinds.push(kind.to_string());
        }
    }
    kinds
}

fn no_target(setting: &'static str, given: &str, paths: &[String]) -> Error {
    Error::NoTarget {
        setting,
        targets: given.to_string(),
        available: kinds(paths).join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(targets: &TargetModules, path: &str) -> bool {
        targets.matcher("lm_head").expect("parses")(path)
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
    fn rank_patterns_match_whole_parts_at_the_end() {
        let matches = |pattern, path| ends_with_pattern(pattern).expect("parses").is_match(path);
        assert!(matches("q_proj|k_proj", "model.layers.0.self_attn.k_proj"));
        assert!(matches(
            r"layers\.[01]\..*",
            "model.layers.1.self_attn.q_proj"
        ));
        assert!(!matches("proj", "model.layers.0.self_attn.k_proj"));
        assert!(!matches("self_attn", "model.layers.0.self_attn.k_proj"));
    }

    #[test]
    fn targets_that_match_nothing_are_found_one_by_one() {
        let paths = ["a.q_proj".to_string(), "head".to_string()];
        let targets = TargetModules::names(["q_proj", "vproj", "k"]);
        assert_eq!(targets.unmatched(&paths, "head"), ["vproj", "k"]);
        let pattern = TargetModules::Pattern("q_proj".into());
        assert_eq!(pattern.unmatched(&paths, "head"), ["q_proj"]);
        assert!(
            TargetModules::all_linear()
                .unmatched(&paths, "head")
                .is_empty()
        );
    }

    #[test]
    fn all_linear_leaves_out_the_output_layer() {
        assert!(matches(
            &TargetModules::all_linear(),
            "model.layers.0.mlp.down_proj"
        ));
        assert!(!matches(&TargetModules::all_linear(), "lm_head"));
    }
}
