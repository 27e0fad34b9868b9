//! What trains beside a method's own tensors, under the adapter's name: copies of the modules that `modules_to_save` names,
//! copies of biases, and rows of tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ft_core::Parts;
use ft_core::layers::{Adapter, Settings};

use crate::copies::{Copies, has_bias};
use crate::targets::{Chosen, ends_with_name, kinds, lies_in};
use crate::token_rows::{TokenIndices, TokenRows};
use crate::vocabulary::Vocabulary;
use crate::{Bias, Common, Error, Method, Result};

/// The setting that keeps a trained embedding and a tied output layer the same.
pub(crate) const TYING: &str = "ensure_weight_tying";

/// The copy of a weight, which has PEFT's plain key.
const WEIGHT: &str = "weight";
/// The copy of a bias.
const BIAS: &str = "bias";
/// The copy of a bias of a layer with tensors of the method's own.
const BASE_BIAS: &str = "base_layer.bias";
/// Rows of tokens beside other tensors.
const TOKENS: &str = "token_adapter.trainable_tokens_delta";

/// What trains beside a method's own tensors, by the paths of layers.
#[derive(Debug)]
pub(crate) struct Beside {
    copies: BTreeMap<String, Copies>,
    tokens: BTreeMap<String, Vec<usize>>,
    /// Tensors of the method that have the names of tensors of the base.
    named_as_base: BTreeSet<(String, &'static str)>,
}

impl Beside {
    /// What the settings put on the layers of a model. The method's own tensors are on the chosen ones.
    pub(crate) fn of(model: &impl Parts, method: &dyn Method, chosen: &Chosen) -> Self {
        let common = method.common();
        let vocabulary = Vocabulary::of(model);
        let (mut copies, mut tokens) = (BTreeMap::new(), BTreeMap::new());
        model.for_each_part(&mut |path, part| {
            let whole = !named(common, &vocabulary, path).is_empty();
            let bias = match common.bias {
                Bias::None => false,
                Bias::All => true,
                Bias::Only => chosen.contains(path),
            };
            let bias_name = match chosen.contains(path) {
                true => BASE_BIAS,
                false => BIAS,
            };
            let copied = Copies {
                weight: whole.then_some(WEIGHT),
                bias: ((whole || bias) && has_bias(part)).then_some(bias_name),
            };
            if copied != Copies::default() {
                copies.insert(path.to_string(), copied);
            }
            let found = method
                .token_indices()
                .and_then(|indices| of_layer(indices, &vocabulary, path));
            if let Some(found) = found {
                tokens.insert(path.to_string(), found.clone());
            }
        });
        let named_as_base = chosen.iter().flat_map(|path| {
            let names = method.names_of_base().iter();
            names.map(|name| (path.clone(), *name))
        });
        Self {
            copies,
            tokens,
            named_as_base: named_as_base.collect(),
        }
    }

    /// The tensors of the adapter that a file could have for the base, by layer and name.
    pub(crate) fn tensors(&self) -> BTreeSet<(String, &'static str)> {
        let copies = self.copies.iter().flat_map(|(path, copies)| {
            let names = copies.weight.into_iter().chain(copies.bias);
            names.map(|name| (path.clone(), name))
        });
        copies.chain(self.named_as_base.iter().cloned()).collect()
    }

    /// Puts it on the layers.
    ///
    /// # Errors
    ///
    /// If a layer has no row for a token.
    pub(crate) fn put(
        &self,
        model: &mut impl Parts,
        name: &str,
        settings: &Settings,
    ) -> Result<()> {
        let mut result = Ok(());
        model.for_each_part_mut(&mut |path, mut part| {
            if let Some(copies) = self.copies.get(path) {
                let tensors = copies.tensors(part.as_part());
                let adapter = Adapter::new(name, Arc::new(*copies), tensors, 0.0, settings.clone());
                part.adapters().push(adapter);
            }
            if let Some(tokens) = self.tokens.get(path) {
                match TokenRows::on(path, part.as_part(), tokens, TOKENS) {
                    Ok((kind, tensor)) => {
                        let adapter =
                            Adapter::new(name, Arc::new(kind), vec![tensor], 0.0, settings.clone());
                        part.adapters().push(adapter);
                    }
                    Err(error) => result = Err(error),
                }
            }
        });
        result
    }
}

/// The tokens of a layer.
fn of_layer<'a>(
    indices: &'a TokenIndices,
    vocabulary: &Vocabulary,
    path: &str,
) -> Option<&'a Vec<usize>> {
    match indices {
        TokenIndices::Embedding(tokens) => vocabulary.is_embedding(path).then_some(tokens),
        TokenIndices::Layers(layers) => layers
            .iter()
            .find(|(name, _)| ends_with_name(path, name))
            .map(|(_, tokens)| tokens),
    }
}

/// The names of `modules_to_save` that match the layer. That of a tied output layer matches the embedding.
fn named<'a>(common: &'a Common, vocabulary: &Vocabulary, path: &str) -> Vec<&'a str> {
    let means = |name: &&str| {
        lies_in(path, name) || vocabulary.is_tied(path) && ends_with_name(vocabulary.output, name)
    };
    common
        .modules_to_save
        .iter()
        .map(String::as_str)
        .filter(means)
        .collect()
}

/// The names of `modules_to_save` that match no layer, and the last parts of the names of layers.
pub(crate) fn unknown_modules(model: &impl Parts, common: &Common) -> (Vec<String>, Vec<String>) {
    let vocabulary = Vocabulary::of(model);
    let (mut used, mut paths) = (BTreeSet::new(), Vec::new());
    model.for_each_part(&mut |path, _| {
        used.extend(
            named(common, &vocabulary, path)
                .into_iter()
                .map(str::to_string),
        );
        paths.push(path.to_string());
    });
    let unknown = common
        .modules_to_save
        .iter()
        .filter(|name| !used.contains(*name));
    (unknown.cloned().collect(), kinds(&paths))
}

/// The paths of all modules: of layers, and of what contains them.
fn all_modules(model: &impl Parts) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    let mut add = |path: &str| {
        let dots = path.match_indices('.').map(|(dot, _)| dot);
        modules.extend(dots.chain([path.len()]).map(|end| path[..end].to_string()));
    };
    model.for_each_part(&mut |path, _| add(path));
    // A tied output layer is no part, and a module in PEFT.
    add(model.output_layer());
    modules.remove("");
    modules
}

/// `modules_to_save` of a file. PEFT trains every module whose name ends in the letters of one of these, so that `norm` stands
/// for `input_layernorm` too: the names of such modules are given whole.
pub(crate) fn modules_of_peft(model: &impl Parts, common: &Common) -> Vec<String> {
    let modules = all_modules(model);
    let meant = common.modules_to_save.iter().flat_map(|name| {
        let ends = modules.iter().filter(|path| path.ends_with(name.as_str()));
        let ends: Vec<&String> = ends.collect();
        match ends.iter().all(|path| ends_with_name(path, name)) || name.is_empty() {
            true => vec![name.clone()],
            false => ends.into_iter().cloned().collect(),
        }
    });
    meant.collect()
}

/// `modules_to_save` for a file. PEFT matches every module whose name ends in one of these, so that `norm` matches
/// `input_layernorm` too: such names are written as whole paths.
pub(crate) fn modules_for_peft(model: &impl Parts, common: &Common) -> Vec<String> {
    let modules = all_modules(model);
    let written = common.modules_to_save.iter().flat_map(|name| {
        let ends = modules.iter().filter(|path| path.ends_with(name.as_str()));
        let (meant, others): (Vec<_>, Vec<_>) = ends.partition(|path| ends_with_name(path, name));
        match others.is_empty() {
            true => vec![name.clone()],
            false => meant.into_iter().cloned().collect(),
        }
    });
    written.collect()
}

/// Checks that every name in the settings of a new adapter matches a layer, so that typing errors are reported. Marks
/// settings that train a tied embedding, so that PEFT keeps it tied.
///
/// # Errors
///
/// If a name is that of no layer, or no layer has a bias that could train.
pub(crate) fn check(model: &impl Parts, method: &mut dyn Method, chosen: &Chosen) -> Result<()> {
    let (unknown, available) = unknown_modules(model, method.common());
    let no_target = |setting, unknown: Vec<String>| {
        Err(Error::NoTarget {
            setting,
            targets: unknown.join(", "),
            available: available.join(", "),
        })
    };
    if !unknown.is_empty() {
        return no_target("modules_to_save", unknown);
    }
    let vocabulary = Vocabulary::of(model);
    let beside = Beside::of(model, method, chosen);
    if let Some(TokenIndices::Layers(layers)) = method.token_indices() {
        let known = |name: &str| {
            beside.tokens.keys().any(|path| ends_with_name(path, name))
                || vocabulary.tied && ends_with_name(vocabulary.output, name)
        };
        let unknown: Vec<_> = layers.keys().filter(|name| !known(name)).cloned().collect();
        if !unknown.is_empty() {
            return no_target("trainable_token_indices", unknown);
        }
        let of_head = layers
            .iter()
            .find(|(name, _)| ends_with_name(vocabulary.output, name));
        if let Some((name, tokens)) = of_head.filter(|_| vocabulary.tied)
            && !beside
                .tokens
                .values()
                .any(|of_embedding| of_embedding == tokens)
        {
            return Err(Error::Settings(format!(
                "trainable_token_indices: {name} is the model's embedding, so both train the same tokens: give the \
                 embedding's tokens alone"
            )));
        }
    }
    if let Some(path) = beside.tokens.keys().find(|path| {
        beside.copies.get(*path).is_some_and(|c| c.weight.is_some()) || chosen.contains(*path)
    }) {
        return Err(Error::Settings(format!(
            "trainable_token_indices: {path} is among target_modules or modules_to_save too; train it in one way"
        )));
    }
    if method.common().bias != Bias::None
        && !beside.copies.values().any(|copies| copies.bias.is_some())
    {
        return Err(Error::Settings(
            "bias: none of these layers has a bias that could train: set it to \"none\"; BITFIT can add biases".into(),
        ));
    }
    let tied = beside.copies.keys().any(|path| vocabulary.is_tied(path));
    if tied {
        method.common_mut().extra.insert(TYING.into(), true.into());
    }
    Ok(())
}
