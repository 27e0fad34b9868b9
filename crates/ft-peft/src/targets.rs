//! Which layers get an adapter, by PEFT's rules.

use std::collections::BTreeSet;

use ft_core::{Part, Parts};
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{Common, Error, Method, Result};

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

/// The group of the number of a block.
const BLOCK: &str = "block_of_layer";

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

    /// Whether this stands for every linear layer except the output layer.
    pub(crate) fn is_all_linear(&self) -> bool {
        matches!(self, Self::Pattern(all) if all.eq_ignore_ascii_case(ALL_LINEAR))
    }

    /// A predicate on layer names, given the name of the output layer.
    ///
    /// # Errors
    ///
    /// If the regular expression does not parse.
    pub(crate) fn matcher(&self, output_layer: &str) -> Result<Matcher, String> {
        Ok(match self {
            Self::Pattern(_) if self.is_all_linear() => {
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

/// A regular expression that must match a whole text; the error quotes `pattern`.
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

/// Whether `name` is that of the layer at `path`, or of a module that contains it.
pub(crate) fn lies_in(path: &str, name: &str) -> bool {
    let ends = path.match_indices('.').map(|(dot, _)| dot);
    ends.chain([path.len()])
        .any(|end| ends_with_name(&path[..end], name))
}

/// The layers of a model that a method can be put on.
#[derive(Debug)]
pub(crate) struct Layers {
    paths: Vec<String>,
    /// Those that are linear.
    linear: BTreeSet<String>,
    output_layer: &'static str,
    /// Whether there is nothing to choose.
    given: bool,
}

/// The paths of the layers that get an adapter.
pub(crate) type Chosen = BTreeSet<String>;

impl Layers {
    pub(crate) fn of(model: &impl Parts, method: &dyn Method) -> Self {
        let mut layers = Self {
            paths: Vec::new(),
            linear: BTreeSet::new(),
            output_layer: model.output_layer(),
            given: method.on_first(),
        };
        model.for_each_part(&mut |path, part| {
            let takes = match path == layers.output_layer {
                true => method.takes_output(part),
                false => method.takes(part),
            };
            if takes {
                layers.paths.push(path.to_string());
                if matches!(part, Part::Linear(_)) {
                    layers.linear.insert(path.to_string());
                }
            }
        });
        if layers.given {
            layers.paths.truncate(1);
        }
        layers
    }

    /// Linear layers of these paths.
    pub(crate) fn linear(paths: Vec<String>, output_layer: &'static str) -> Self {
        Self {
            linear: paths.iter().cloned().collect(),
            paths,
            output_layer,
            given: false,
        }
    }

    /// The layers that the settings choose.
    ///
    /// # Errors
    ///
    /// If a pattern does not parse, or no layer is left.
    pub(crate) fn select(&self, common: &Common) -> Result<Chosen> {
        let Some(targets) = &common.target_modules else {
            if self.given {
                return Ok(self.paths.iter().cloned().collect());
            }
            return Err(Error::Settings("target_modules is missing".into()));
        };
        let matcher =
            |targets: &TargetModules| targets.matcher(self.output_layer).map_err(Error::Settings);
        let wanted = matcher(targets)?;
        let all_linear = targets.is_all_linear();
        let saved = |path: &str| {
            common
                .modules_to_save
                .iter()
                .any(|name| lies_in(path, name))
        };
        let paths = self
            .paths
            .iter()
            .filter(|path| !saved(path) && wanted(path));
        let paths = paths.filter(|path| !all_linear || self.linear.contains(*path));
        let mut chosen: Chosen = paths.cloned().collect();
        if chosen.is_empty() {
            return Err(self.no_target("target_modules", &targets.describe()));
        }
        if let TargetModules::Names(names) = targets {
            let of_block = self.of_blocks(common)?;
            chosen.retain(|path| names.contains(path) || of_block(path));
            if chosen.is_empty() {
                return Err(Error::Settings(format!(
                    "layers_to_transform ({:?}) leaves none of the layers of target_modules ({})",
                    common.layers_to_transform,
                    targets.describe()
                )));
            }
        } else if !common.layers_to_transform.is_empty() {
            return Err(Error::Settings(
                "layers_to_transform is for target_modules that are a list of names: give a list, or put the numbers \
                 into the regular expression"
                    .into(),
            ));
        }
        if let Some(exclude) = &common.exclude_modules {
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

    /// Whether a layer is of the blocks of `layers_to_transform`, by PEFT's rule: the number of its block is the first after
    /// `layers_pattern`, or after any two names. A later number is that of an expert.
    fn of_blocks(&self, common: &Common) -> Result<Matcher> {
        if common.layers_to_transform.is_empty() {
            return Ok(Box::new(|_| true));
        }
        let patterns: Vec<String> = match &common.layers_pattern[..] {
            [] => vec![format!(r".*?\.[^.]*\.(?<{BLOCK}>\d+)\.")],
            names => names
                .iter()
                .map(|name| format!(r"(?:|.*?\.){name}\.(?<{BLOCK}>\d+)\."))
                .collect(),
        };
        let patterns = patterns.iter().map(|pattern| {
            Regex::new(&format!(r"\A(?:{pattern})")).map_err(|e| {
                Error::Settings(format!(
                    "layers_pattern: {pattern:?} is not a regular expression: {e}"
                ))
            })
        });
        let patterns = patterns.collect::<Result<Vec<Regex>>>()?;
        let numbers = common.layers_to_transform.clone();
        Ok(Box::new(move |path| {
            let captures = patterns.iter().find_map(|pattern| pattern.captures(path));
            // A pattern can have groups of its own, and alternatives without the number.
            let number =
                captures.and_then(|found| found.name(BLOCK)?.as_str().parse::<usize>().ok());
            number.is_some_and(|number| numbers.contains(&number))
        }))
    }

    /// As [`select`](Self::select), for new adapters: settings without `target_modules` get the method's own, and every name
    /// must match a layer, so that a typing error among several names is reported.
    ///
    /// # Errors
    ///
    /// As [`select`](Self::select), and [`Error::NoTarget`] with what matches nothing.
    pub(crate) fn select_strictly(&self, method: &mut dyn Method) -> Result<Chosen> {
        if method.common().target_modules.is_none() && !self.given {
            method.common_mut().target_modules = Some(self.default_of(method)?);
        }
        method.settle();
        let common = method.common();
        let chosen = self.select(common)?;
        let targets = [
            ("target_modules", common.target_modules.as_ref()),
            ("exclude_modules", common.exclude_modules.as_ref()),
        ];
        for (setting, targets) in targets {
            let unmatched =
                targets.map_or(Vec::new(), |t| t.unmatched(&self.paths, self.output_layer));
            if !unmatched.is_empty() {
                return Err(self.no_target(setting, &unmatched.join(", ")));
            }
        }
        for (setting, pattern) in method.patterns() {
            let unused = ends_with_pattern(pattern)
                .is_ok_and(|regex| !chosen.iter().any(|path| regex.is_match(path)));
            if unused {
                let paths = self.paths.iter().filter(|path| chosen.contains(*path));
                return Err(no_target(setting, pattern, paths));
            }
        }
        Ok(chosen)
    }

    /// The targets of settings without `target_modules`.
    fn default_of(&self, method: &dyn Method) -> Result<TargetModules> {
        let candidates = method.default_targets();
        if candidates.is_empty() {
            return Ok(match self.linear.is_empty() {
                true => TargetModules::Names(kinds(&self.paths)),
                false => TargetModules::all_linear(),
            });
        }
        let found = candidates.iter().find(|names| {
            let targets = TargetModules::names(names.iter().copied());
            targets.unmatched(&self.paths, self.output_layer).is_empty()
        });
        match found {
            None if self.paths.is_empty() => Err(Error::Settings(format!(
                "the model has no part that {} can be put on",
                method.peft_type()
            ))),
            Some(names) => Ok(TargetModules::names(names.iter().copied())),
            None => Err(Error::Settings(format!(
                "target_modules is missing, and {} has no default for this model; there are: {}",
                method.peft_type(),
                kinds(&self.paths).join(", ")
            ))),
        }
    }

    fn no_target(&self, setting: &'static str, given: &str) -> Error {
        no_target(setting, given, self.paths.iter())
    }
}

/// The last parts of `paths`, each once.
pub(crate) fn kinds<'a>(paths: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut kinds: Vec<String> = Vec::new();
    for path in paths {
        let kind = path.rsplit('.').next().unwrap_or(path);
        if !kinds.iter().any(|known| known == kind) {
            kinds.push(kind.to_string());
        }
    }
    kinds
}

fn no_target<'a>(
    setting: &'static str,
    given: &str,
    paths: impl Iterator<Item = &'a String>,
) -> Error {
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
    fn a_layer_lies_in_the_modules_around_it() {
        let path = "model.layers.0.mlp.up_proj";
        for name in ["up_proj", "mlp", "0.mlp", "layers", "model"] {
            assert!(lies_in(path, name), "{name}");
        }
        for name in ["proj", "lp", "self_attn", "mlp.up"] {
            assert!(!lies_in(path, name), "{name}");
        }
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

    /// A pattern has groups of its own, of which one does not always match.
    #[test]
    fn the_number_of_a_block_is_found_beside_other_groups() {
        let paths = [
            "model.layers.0.q_proj",
            "model.layers.1.q_proj",
            "model.h.1.q_proj",
        ];
        let layers = Layers::linear(paths.map(String::from).into(), "lm_head");
        let common = |pattern: &str| Common {
            target_modules: Some(TargetModules::names(["q_proj"])),
            layers_to_transform: vec![1],
            layers_pattern: vec![pattern.into()],
            ..Common::default()
        };
        let chosen = |pattern| layers.select(&common(pattern)).expect("some");
        assert_eq!(chosen("(x)?layers").len(), 1);
        assert_eq!(chosen("(lay(ers)?|h)").len(), 2);
        assert!(layers.select(&common("nothing|(layers)")).is_err());
    }

    /// The number is the first, not that of an expert, and a path may begin with the pattern.
    #[test]
    fn the_number_of_a_block_is_the_first_in_a_path() {
        let paths = [
            "layers.0.attn.Wqkv",
            "layers.1.attn.Wqkv",
            "model.layers.0.experts.1.Wqkv",
            "model.layers.1.experts.0.Wqkv",
        ];
        let layers = Layers::linear(paths.map(String::from).into(), "lm_head");
        let chosen = |layers_pattern: Vec<String>| {
            let common = Common {
                target_modules: Some(TargetModules::names(["Wqkv"])),
                layers_to_transform: vec![1],
                layers_pattern,
                ..Common::default()
            };
            let chosen = layers.select(&common).expect("some");
            chosen.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(chosen(vec!["layers".into()]), [paths[1], paths[3]]);
        // Any two names: a path needs one before that of the blocks.
        assert_eq!(chosen(Vec::new()), [paths[3]]);
    }
}
