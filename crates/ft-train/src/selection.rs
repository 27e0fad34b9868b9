//! Rules that select parameters: by what they are, by their block, or by their path.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use burn::module::Module;
use ft_core::{Parts, module_path};
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::param_kind::{ParamKind, Parameter, parameters};
use crate::{Error, Result, UnknownName};

/// Which parameters a rule selects. In settings it is a text.
///
/// ```
/// use ft_train::Selection;
///
/// assert_eq!("top:4".parse(), Ok(Selection::Top(4)));
/// let regex = r"regex:model\.layers\.\d+\.mlp\..*";
/// assert_eq!(regex.parse::<Selection>().unwrap().to_string(), regex);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Selection {
    /// `all`
    All,
    /// `head`: the output layer, if it is not tied to the embedding.
    Head,
    /// `embeddings`: tables of vectors, of tokens and of positions.
    Embeddings,
    /// `norms`: weights and biases of norms.
    Norms,
    /// `biases`: all of them, those of norms too (BitFit; Ben Zaken et al., 2021, arXiv:2106.10199).
    Biases,
    /// `adapters`
    Adapters,
    /// `top:N`: the last N blocks.
    Top(usize),
    /// `bottom:N`: the first N blocks.
    Bottom(usize),
    /// `regex:PATTERN`: parameters whose path, or whose module's path, the pattern matches as a whole.
    /// `model.layers.0.mlp.up_proj.weight` is a path, `model.layers.0.mlp.up_proj` that of its module.
    Regex(String),
}

const KNOWN: &str =
    "all, head, embeddings, norms, biases, adapters, top:N, bottom:N or regex:PATTERN";

impl FromStr for Selection {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let blocks = || argument.and_then(|n| n.parse().ok()).filter(|n| *n > 0);
        let rule = match (name, argument) {
            ("all", None) => Some(Self::All),
            ("head", None) => Some(Self::Head),
            ("embeddings", None) => Some(Self::Embeddings),
            ("norms", None) => Some(Self::Norms),
            ("biases", None) => Some(Self::Biases),
            ("adapters", None) => Some(Self::Adapters),
            ("top", _) => blocks().map(Self::Top),
            ("bottom", _) => blocks().map(Self::Bottom),
            ("regex", Some(pattern)) => Some(Self::Regex(pattern.to_string())),
            _ => None,
        };
        rule.ok_or_else(|| UnknownName {
            kind: "selection of parameters",
            name: text.to_string(),
            known: KNOWN,
        })
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Head => f.write_str("head"),
            Self::Embeddings => f.write_str("embeddings"),
            Self::Norms => f.write_str("norms"),
            Self::Biases => f.write_str("biases"),
            Self::Adapters => f.write_str("adapters"),
            Self::Top(blocks) => write!(f, "top:{blocks}"),
            Self::Bottom(blocks) => write!(f, "bottom:{blocks}"),
            Self::Regex(pattern) => write!(f, "regex:{pattern}"),
        }
    }
}

impl TryFrom<String> for Selection {
    type Error = UnknownName;

    fn try_from(text: String) -> Result<Self, UnknownName> {
        text.parse()
    }
}

impl From<Selection> for String {
    fn from(selection: Selection) -> Self {
        selection.to_string()
    }
}

impl Selection {
    /// Paths of the parameters of `model` that the rule selects, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::MatchesNothing`] if there is none, and [`Error::Regex`].
    pub fn paths(&self, model: &(impl Module + Parts)) -> Result<Vec<String>> {
        let all = parameters(model);
        let chosen = self.among(&all)?;
        Ok(chosen.into_iter().map(|i| all[i].path.clone()).collect())
    }

    /// Places of the selected parameters.
    pub(crate) fn among(&self, all: &[Parameter]) -> Result<Vec<usize>> {
        self.places(all, |_| true)
    }

    /// The places of those parameters that this rule selects and that train. Blocks are counted over all parameters.
    ///
    /// # Errors
    ///
    /// As [`among`](Self::among), of what trains.
    pub(crate) fn training(&self, all: &[Parameter]) -> Result<Vec<usize>> {
        self.places(all, |one| one.trains)
    }

    fn places(&self, all: &[Parameter], counts: fn(&Parameter) -> bool) -> Result<Vec<usize>> {
        let blocks = all
            .iter()
            .filter_map(|one| one.block)
            .max()
            .map_or(0, |last| last + 1);
        let regex = match self {
            Self::Regex(pattern) => Some(whole_match(pattern)?),
            _ => None,
        };
        let wanted = |one: &Parameter| match self {
            Self::All => true,
            Self::Head => one.kind == ParamKind::Head,
            Self::Embeddings => one.kind == ParamKind::Embedding,
            Self::Norms => one.kind == ParamKind::Norm,
            Self::Biases => one.is_bias(),
            Self::Adapters => one.kind == ParamKind::Adapter,
            Self::Top(n) => one.block.is_some_and(|block| block + n >= blocks),
            Self::Bottom(n) => one.block.is_some_and(|block| block < *n),
            Self::Regex(_) => (regex.as_ref()).is_some_and(|regex| {
                regex.is_match(&one.path) || regex.is_match(one.module_path())
            }),
        };
        let too_many = matches!(self, Self::Top(n) | Self::Bottom(n) if *n > blocks);
        let chosen: Vec<usize> = (0..all.len())
            .filter(|i| counts(&all[*i]) && wanted(&all[*i]))
            .collect();
        if chosen.is_empty() || too_many {
            let mut existing = described(all.iter().filter(|one| counts(one)), blocks);
            if *self == Self::Head {
                existing.push("a head that is tied to the embedding is `embeddings`".to_string());
            }
            return Err(Error::MatchesNothing {
                rule: self.to_string(),
                existing,
            });
        }
        Ok(chosen)
    }
}

/// Lets exactly the parameters that one of `rules` selects train, and freezes all others.
///
/// # Errors
///
/// [`Error::MatchesNothing`] if a rule selects nothing, and [`Error::HeldIn16Bits`] if it selects weights that
/// were not loaded in `f32`.
pub fn train_only<M: Module + Parts>(model: M, rules: &[Selection]) -> Result<M> {
    struct Train<'a>(&'a BTreeMap<String, bool>);
    impl module_path::PathMapper for Train<'_> {
        fn map<const D: usize>(
            &mut self,
            path: &str,
            param: burn::module::Param<burn::tensor::Tensor<D>>,
        ) -> burn::module::Param<burn::tensor::Tensor<D>> {
            param.set_require_grad(self.0.get(path).copied().unwrap_or_default())
        }
    }
    let all = parameters(&model);
    let mut trains: BTreeMap<String, bool> =
        all.iter().map(|one| (one.path.clone(), false)).collect();
    for rule in rules {
        for place in rule.among(&all)? {
            trains.insert(all[place].path.clone(), true);
        }
    }
    crate::param_kind::check_trainable(&model, &trains)?;
    Ok(module_path::map_params(model, &mut Train(&trains)))
}

fn whole_match(pattern: &str) -> Result<Regex> {
    Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(|source| Error::Regex {
        pattern: pattern.to_string(),
        source,
    })
}

/// What a rule could select: kinds with their numbers of tensors, blocks, and the first paths.
fn described<'a>(all: impl Iterator<Item = &'a Parameter>, blocks: usize) -> Vec<String> {
    const SHOWN: usize = 12;
    let mut kinds = BTreeMap::<ParamKind, usize>::new();
    let mut names = Vec::new();
    for one in all {
        *kinds.entry(one.kind).or_default() += 1;
        names.push(one.without_block());
    }
    let mut lines: Vec<String> = kinds
        .iter()
        .map(|(kind, count)| format!("{count} tensors of kind {kind}"))
        .collect();
    lines.push(format!("{blocks} blocks"));
    names.sort();
    names.dedup();
    lines.extend(names.iter().take(SHOWN).cloned());
    if names.len() > SHOWN {
        lines.push(format!("and {} more", names.len() - SHOWN));
    }
    lines
}
