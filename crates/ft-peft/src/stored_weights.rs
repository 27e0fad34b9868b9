//! Weights of the base that are stored in an adapter's file beside its tensors: embeddings and output layers that were
//! resized or have factors of their own.
//!
//! Their keys are `base_model.model.<layer>.weight`, or `….base_layer.weight` where the layer has factors. As in PEFT they
//! take the place of the base's weights. Unlike in PEFT, an embedding with another number of rows resizes the model's. What
//! `modules_to_save` names becomes a copy in the adapter; the base gets only the rows that it lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use ft_core::Parts;
use ft_core::module_path::{self, PathMapper};
use serde_json::Value;

use crate::adapter_files::{PREFIX, unfit};
use crate::beside::{Beside, TYING, unknown_modules};
use crate::methods::TOKENS_DELTA;
use crate::targets::ends_with_name;
use crate::vocabulary::Vocabulary;
use crate::{Common, Error, Result};

/// Tensors by the path of the parameter whose place they take.
#[derive(Debug, Default)]
pub(crate) struct StoredWeights {
    tensors: BTreeMap<String, TensorData>,
    /// Those from which the base gets only the rows that it lacks.
    copied: BTreeSet<String>,
}

/// The path of a parameter without its last part.
fn layer_of(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(layer, _)| layer)
}

/// The path of the base's parameter that a key of the file names.
fn base_path(key: &str) -> Option<String> {
    let path = key.strip_prefix(PREFIX)?;
    Some(
        path.replace(".token_adapter.base_layer.", ".")
            .replace(".base_layer.", "."),
    )
}

/// The names that PEFT adds to `modules_to_save` for a task, whether the model has such layers or not.
fn added_by_peft(common: &Common) -> &'static [&'static str] {
    match common.extra.get("task_type").and_then(Value::as_str) {
        Some("SEQ_CLS" | "TOKEN_CLS") => &["classifier", "score"],
        Some("QUESTION_ANS") => &["qa_outputs"],
        _ => &[],
    }
}

impl StoredWeights {
    /// Removes the weights of the base from the tensors of the file `file`. Trained copies stay among the tensors.
    ///
    /// # Errors
    ///
    /// [`Error::Factors`] if a weight has another shape than the model's, more tokens aside, or `modules_to_save` names
    /// what is not there; [`Error::Tied`] if the adapter needs an output layer that is not the embedding.
    pub(crate) fn take(
        model: &impl Parts,
        shapes: &BTreeMap<String, Vec<usize>>,
        common: &Common,
        beside: &Beside,
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
        let copies = beside.tensors().into_iter();
        let copies: BTreeSet<String> = copies
            .map(|(path, name)| format!("{PREFIX}{path}.{name}"))
            .collect();
        let keys: Vec<String> = tensors.keys().cloned().collect();
        let mut head = None;
        for key in keys {
            let Some(path) = base_path(&key) else {
                continue;
            };
            let of_output = path
                .strip_prefix(vocabulary.output)
                .filter(|_| vocabulary.tied);
            let of_output = of_output.and_then(|rest| rest.strip_prefix('.'));
            match of_output {
                Some("weight") => head = tensors.remove(&key),
                Some(TOKENS_DELTA) => {
                    let embedding = vocabulary.embedding.as_deref().unwrap_or_default();
                    let same = format!("{PREFIX}{embedding}.{TOKENS_DELTA}");
                    if tensors.remove(&key) != tensors.get(&same).cloned() {
                        return tied("has an embedding and an output layer that differ");
                    }
                }
                Some(_) => return tied("has tensors for the output layer"),
                None if copies.contains(&key) => {}
                None if shapes.contains_key(&path) => {
                    stored
                        .tensors
                        .extend(tensors.remove(&key).map(|data| (path, data)));
                }
                None => {}
            }
        }
        if vocabulary.tied
            && let Some(embedding) = &vocabulary.embedding
        {
            let path = format!("{embedding}.weight");
            let key = format!("{PREFIX}{path}");
            let names = |layer: &str| {
                common
                    .modules_to_save
                    .iter()
                    .any(|name| ends_with_name(layer, name))
            };
            let table = stored.tensors.get(&path).or_else(|| tensors.get(&key));
            let alone = match (table, &head) {
                (Some(table), Some(head)) if table != head => {
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
            match head {
                Some(head) if table.is_none() && copies.contains(&key) => {
                    tensors.insert(key, head);
                }
                Some(head) if table.is_none() => {
                    stored.tensors.insert(path, head);
                }
                _ => {}
            }
        }
        for key in &copies {
            let path = key.strip_prefix(PREFIX).unwrap_or(key);
            if let (Some(data), Some(shape)) = (tensors.get(key), shapes.get(path))
                && vocabulary.counts_tokens(layer_of(path))
                && data.shape().first() != shape.first()
            {
                stored.copied.insert(path.to_string());
                stored.tensors.insert(path.to_string(), data.clone());
            }
        }
        let (unknown, _) = unknown_modules(model, common);
        let missing = unknown
            .into_iter()
            .filter(|name| !added_by_peft(common).contains(&name.as_str()))
            .map(|name| format!("{name} of modules_to_save"))
            .collect();
        match unfit(
            file,
            missing,
            Vec::new(),
            stored.misshapen(shapes, &vocabulary),
        ) {
            Some(error) => Err(error),
            None => Ok(stored),
        }
    }

    /// What has another shape than in the model.
    fn misshapen(
        &self,
        shapes: &BTreeMap<String, Vec<usize>>,
        vocabulary: &Vocabulary,
    ) -> Vec<String> {
        let mut misshapen = Vec::new();
        let mut rows = BTreeSet::new();
        if self.tensors.is_empty() {
            return misshapen;
        }
        for (path, shape) in shapes {
            let found = self
                .tensors
                .get(path)
                .map_or(&shape[..], |data| data.shape());
            let counts_tokens = vocabulary.counts_tokens(layer_of(path));
            let alike = found.len() == shape.len()
                && (counts_tokens && found[1..] == shape[1..] || found[..] == shape[..]);
            if alike && counts_tokens {
                rows.insert(found[0]);
            }
            if !alike {
                misshapen.push(format!("{path} (model {shape:?}, file {:?})", &found));
            }
        }
        if rows.len() > 1 && misshapen.is_empty() {
            misshapen.push(format!(
                "embedding and output layer have different numbers of tokens: {rows:?}"
            ));
        }
        misshapen
    }

    /// Puts the weights into the model. They are not marked to train.
    pub(crate) fn put<M: Module + Parts>(&self, model: M) -> M {
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
                let own = param.val().detach();
                // In `f16` numbers could become infinite.
                let dtype = match own.dtype() {
                    DType::BF16 => DType::BF16,
                    _ => DType::F32,
                };
                let data = data.clone().convert_dtype(dtype);
                let mut tensor = Tensor::<D>::from_data(data, (&device, dtype));
                if self.0.copied.contains(path) {
                    let (has, gets) = (own.dims()[0], tensor.dims()[0]);
                    let own = own.narrow(0, 0, has.min(gets)).cast(dtype);
                    tensor = match has < gets {
                        true => Tensor::cat(vec![own, tensor.narrow(0, has, gets - has)], 0),
                        false => own,
                    };
                }
                param.transform_for_load(tensor, ParamId::new())
            }
        }
        if self.tensors.is_empty() {
            return model;
        }
        let mut model = model;
        // Blocks make room for a parameter.
        model.for_each_part_mut(&mut |layer, mut part| {
            let path = format!("{layer}.weight");
            if let Some(weight) = part.weight()
                && weight.packed().is_some()
                && self.tensors.contains_key(&path)
            {
                // Rows that are not stored stay.
                let value = match self.copied.contains(&path) {
                    true => weight.val(),
                    false => Tensor::empty(weight.lazy_shape(), &weight.lazy_device()),
                };
                let id = weight.id();
                weight.replace(value, id);
            }
        });
        module_path::map_params(model, &mut Put(self))
    }
}
