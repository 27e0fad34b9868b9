//! Weights of the base that lie in an adapter's file beside its factors: embeddings and output layers that were resized,
//! trained (`modules_to_save`), or have factors of their own.
//!
//! Their keys are `base_model.model.<layer>.weight`, or `….base_layer.weight` where the layer has factors. As in PEFT
//! they take the place of the base's weights. Unlike there, an embedding that has other rows resizes the model's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use ft_core::module_path::{self, PathMapper};
use ft_core::{Part, Parts};

use crate::adapter_files::{PREFIX, unfit};
use crate::targets::ends_with_name;
use crate::{Common, Error, Result};

/// The setting that keeps a trained embedding and a tied output layer the same.
const TYING: &str = "ensure_weight_tying";

/// Tensors by the path of the parameter whose place they take.
#[derive(Debug, Default)]
pub(crate) struct StoredWeights {
    tensors: BTreeMap<String, TensorData>,
    /// Those that `modules_to_save` names.
    trained: BTreeSet<String>,
}

/// What of a model has to do with its vocabulary.
struct Vocabulary {
    /// The path of the embedding of tokens, the first embedding of a model.
    embedding: Option<String>,
    output: &'static str,
    /// Whether the output layer is the embedding.
    tied: bool,
}

impl Vocabulary {
    fn of(model: &impl Parts) -> Self {
        let mut embedding = None;
        let output = model.output_layer();
        let mut tied = true;
        model.for_each_part(&mut |path, part| match part {
            Part::Embedding(_) if embedding.is_none() => embedding = Some(path.to_string()),
            Part::Linear(_) if path == output => tied = false,
            _ => {}
        });
        Self {
            embedding,
            output,
            tied,
        }
    }

    /// The path of the tied embedding's weight, if `layer` is the output layer.
    fn tied_to(&self, layer: &str) -> Option<String> {
        let embedding = self.embedding.as_ref()?;
        (self.tied && layer == self.output).then(|| format!("{embedding}.weight"))
    }

    /// Whether a parameter has a row for every token.
    fn counts_tokens(&self, path: &str) -> bool {
        let layer = layer_of(path);
        layer == self.output || self.embedding.as_deref() == Some(layer)
    }
}

/// The path of a parameter without its last part.
fn layer_of(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(layer, _)| layer)
}

/// The path of the base's parameter that a key of the file would mean.
pub(crate) fn base_path(key: &str) -> Option<String> {
    Some(key.strip_prefix(PREFIX)?.replace(".base_layer.", "."))
}

impl StoredWeights {
    /// Takes the weights of the base from the tensors of the file `file`.
    ///
    /// # Errors
    ///
    /// [`Error::Factors`] if a weight has another shape than the model's, more tokens aside, or `modules_to_save` names
    /// what is not there; [`Error::Tied`] if the adapter needs an output layer that is not the embedding.
    pub(crate) fn take(
        model: &impl Parts,
        shapes: &BTreeMap<String, Vec<usize>>,
        common: &Common,
        tensors: &mut BTreeMap<String, TensorData>,
        file: &Path,
    ) -> Result<Self> {
        let vocabulary = Vocabulary::of(model);
        let tied = |reason: &str| {
            Err(Error::Tied {
                path: file.to_path_buf(),
                layer: vocabulary.output,
                reason: reason.to_string(),
            })
        };
        let mut stored = Self::default();
        // With `save_embedding_layers` PEFT writes a trained module three times: as it was, and twice as it is.
        tensors.retain(|key, _| {
            !(key.contains(".original_module.") || key.contains(".modules_to_save."))
        });
        let keys: Vec<String> = tensors.keys().cloned().collect();
        let mut head = None;
        for key in keys {
            let Some(path) = base_path(&key) else {
                continue;
            };
            let of_output = path.strip_prefix(vocabulary.output);
            let tensor = of_output.and_then(|rest| rest.strip_prefix('.'));
            if vocabulary.tied && tensor.is_some_and(|name| name.contains('.')) {
                return tied("has tensors for the output layer");
            }
            if let Some(embedding) = vocabulary.tied_to(layer_of(&path)) {
                head = tensors.remove(&key).map(|data| (embedding, data));
            } else if shapes.contains_key(&path)
                && let Some(data) = tensors.remove(&key)
            {
                stored.tensors.insert(path, data);
            }
        }
        let names = |layer: &str| {
            common
                .modules_to_save
                .iter()
                .any(|name| ends_with_name(layer, name))
        };
        if vocabulary.tied
            && let Some(embedding) = &vocabulary.embedding
        {
            let alone = match (stored.tensors.get(&format!("{embedding}.weight")), &head) {
                (Some(table), Some((_, head))) if table != head => {
                    return tied("has an embedding and an output layer that differ");
                }
                (Some(_), None) => names(embedding),
                (None, Some(_)) => names(vocabulary.output),
                _ => false,
            };
            let ensured = common.extra.get(TYING).is_some_and(|value| value == true);
            if alone && !ensured {
                return tied("has one of embedding and output layer trained without the other");
            }
        }
        stored.tensors.extend(head);
        stored.trained = (stored.tensors.keys())
            .filter(|path| {
                let layer = layer_of(path);
                let as_head = vocabulary.embedding.as_deref() == Some(layer) && vocabulary.tied;
                names(layer) || as_head && names(vocabulary.output)
            })
            .cloned()
            .collect();
        if stored.tensors.is_empty() && common.modules_to_save.is_empty() {
            return Ok(stored);
        }
        let (missing, misshapen) = stored.compare(shapes, common, &vocabulary);
        match unfit(file, missing, Vec::new(), misshapen) {
            Some(error) => Err(error),
            None => Ok(stored),
        }
    }

    /// What `modules_to_save` names and the file lacks, and what has another shape than in the model.
    fn compare(
        &self,
        shapes: &BTreeMap<String, Vec<usize>>,
        common: &Common,
        vocabulary: &Vocabulary,
    ) -> (Vec<String>, Vec<String>) {
        let missing = (common.modules_to_save.iter())
            .filter(|name| {
                let found = |path: &String| ends_with_name(layer_of(path), name);
                let as_head = vocabulary.tied && ends_with_name(vocabulary.output, name);
                let embedding = vocabulary.embedding.as_deref();
                let tied = |path: &String| Some(layer_of(path)) == embedding;
                !(self.trained.iter().any(found) || as_head && self.trained.iter().any(tied))
            })
            .map(|name| format!("{name} of modules_to_save"))
            .collect();
        let mut misshapen = Vec::new();
        let mut rows = BTreeSet::new();
        for (path, shape) in shapes {
            let found = self
                .tensors
                .get(path)
                .map_or(&shape[..], |data| data.shape());
            let counts_tokens = vocabulary.counts_tokens(path);
            if counts_tokens {
                rows.insert(found[0]);
            }
            let alike = found.len() == shape.len()
                && (counts_tokens && found[1..] == shape[1..] || found[..] == shape[..]);
            if !alike {
                misshapen.push(format!("{path} (model {shape:?}, file {:?})", &found));
            }
        }
        if rows.len() > 1 && misshapen.is_empty() {
            misshapen.push(format!(
                "embedding and output layer have different numbers of tokens: {rows:?}"
            ));
        }
        (missing, misshapen)
    }

    /// Puts the weights into the model. They are not marked to train.
    pub(crate) fn put<M: Module>(&self, model: M) -> M {
        struct Put<'a>(&'a StoredWeights);
        impl PathMapper for Put<'_> {
            fn map<const D: usize>(
                &mut self,
                path: &str,
                param: Param<Tensor<D>>,
            ) -> Param<Tensor<D>> {
                let Some(data) = self.0.tensors.get(path) else {
                    return param;
                };
                let device = param.lazy_device();
                // What trains is held in `f32`, and in `f16` numbers could become infinite.
                let dtype = match param.val().dtype() {
                    DType::BF16 if !self.0.trained.contains(path) => DType::BF16,
                    _ => DType::F32,
                };
                let data = data.clone().convert_dtype(dtype);
                let tensor = Tensor::from_data(data, (&device, dtype));
                param.transform_for_load(tensor, ParamId::new())
            }
        }
        if self.tensors.is_empty() {
            return model;
        }
        module_path::map_params(model, &mut Put(self))
    }

    /// Lets those train that `modules_to_save` names.
    pub(crate) fn train<M: Module>(&self, model: M) -> M {
        struct Train<'a>(&'a BTreeSet<String>);
        impl PathMapper for Train<'_> {
            fn map<const D: usize>(
                &mut self,
                path: &str,
                param: Param<Tensor<D>>,
            ) -> Param<Tensor<D>> {
                match self.0.contains(path) {
                    true => param.set_require_grad(true),
                    false => param,
                }
            }
        }
        if self.trained.is_empty() {
            return model;
        }
        module_path::map_params(model, &mut Train(&self.trained))
    }
}

/// The weights that `modules_to_save` names, by their keys in an adapter's file. A tied output layer is written as the
/// embedding, and the settings then say that they are one.
///
/// # Errors
///
/// [`Error::NoTarget`] if a name is that of no layer.
pub(crate) fn collect<M: Module + Parts>(
    model: &M,
    common: &mut Common,
) -> Result<Vec<(String, TensorData)>> {
    struct Collect<'a> {
        vocabulary: &'a Vocabulary,
        names: &'a [String],
        used: BTreeSet<String>,
        tensors: Vec<(String, TensorData)>,
        tied: bool,
    }
    impl module_path::PathVisitor for Collect<'_> {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            let layer = layer_of(path);
            let vocabulary = self.vocabulary;
            let is_tied = vocabulary.tied && vocabulary.embedding.as_deref() == Some(layer);
            let named: Vec<_> = (self.names.iter())
                .filter(|name| {
                    ends_with_name(layer, name)
                        || is_tied && ends_with_name(vocabulary.output, name)
                })
                .cloned()
                .collect();
            if named.is_empty() || path.contains(".adapters.") {
                return;
            }
            self.used.extend(named);
            let data = param.val().into_data();
            if is_tied {
                let key = format!("{PREFIX}{}.weight", vocabulary.output);
                self.tensors.push((key, data.clone()));
                self.tied = true;
            }
            self.tensors.push((format!("{PREFIX}{path}"), data));
        }
    }
    if common.modules_to_save.is_empty() {
        return Ok(Vec::new());
    }
    let vocabulary = Vocabulary::of(model);
    let mut collect = Collect {
        vocabulary: &vocabulary,
        names: &common.modules_to_save,
        used: BTreeSet::new(),
        tensors: Vec::new(),
        tied: false,
    };
    module_path::visit_params(model, &mut collect);
    let Collect {
        used,
        tensors,
        tied,
        ..
    } = collect;
    if let Some(name) = (common.modules_to_save.iter()).find(|name| !used.contains(*name)) {
        let layers: BTreeSet<String> = (module_path::shapes(model).iter())
            .filter(|(path, _)| !path.contains(".adapters."))
            .filter_map(|(path, _)| layer_of(path).rsplit('.').next().map(str::to_string))
            .collect();
        return Err(Error::NoTarget {
            setting: "modules_to_save",
            targets: name.clone(),
            available: layers.into_iter().collect::<Vec<_>>().join(", "),
        });
    }
    if tied {
        common.extra.insert(TYING.into(), true.into());
    }
    Ok(tensors)
}
