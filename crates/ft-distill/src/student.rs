//! A student of some layers of its teacher.

use std::collections::BTreeMap;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use ft_core::safetensors_folder::module_tensors;
use ft_core::{AutoCausalLm, CausalLm, ModelConfig, module_path};
use serde_json::Value;

use crate::{Error, Result};

/// A model of the teacher's layers `layers`, in this order, with its embeddings, final norm and head, in `f32`: the start of
/// DistilBERT's student (Sanh et al., 2019, arXiv:1910.01108, section 3), which has every second layer.
///
/// # Errors
///
/// If no layer is named or one that does not exist, or the teacher has adapters.
pub fn student_of(teacher: &AutoCausalLm, layers: &[usize]) -> Result<AutoCausalLm> {
    let count = teacher.dims().num_layers;
    if layers.is_empty() {
        return Err(Error::Teacher(
            "a student needs at least one layer of its teacher".into(),
        ));
    }
    if let Some(bad) = layers.iter().find(|&&layer| layer >= count) {
        return Err(Error::Teacher(format!(
            "the teacher has no layer {bad}: it has {count}, and the first is 0"
        )));
    }
    let config = ModelConfig::from_json(with_layers(teacher.config().to_json(), count, layers))?;
    let device = teacher.devices().first().cloned().unwrap_or_default();
    let student = AutoCausalLm::from_config(&config, &device)?;
    let weights: BTreeMap<String, TensorData> = module_tensors(teacher).into_iter().collect();
    if let Some(adapted) = weights.keys().find(|path| path.contains("adapters")) {
        return Err(Error::Teacher(format!(
            "the teacher has adapters ({adapted}): merge them first"
        )));
    }

    struct Fill<'a> {
        weights: BTreeMap<String, TensorData>,
        layers: &'a [usize],
        missing: Option<String>,
    }
    impl module_path::PathMapper for Fill<'_> {
        fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(data) = self.weights.get(&of_teacher(path, self.layers)) else {
                self.missing.get_or_insert(path.to_string());
                return param;
            };
            let device = param.lazy_device();
            let data = data.clone().convert::<f32>();
            Param::initialized(
                ParamId::new(),
                Tensor::from_data(data, &device).require_grad(),
            )
        }
    }
    let mut fill = Fill {
        weights,
        layers,
        missing: None,
    };
    let student = module_path::map_params(student, &mut fill);
    match fill.missing {
        None => Ok(student),
        Some(path) => Err(Error::Teacher(format!("the teacher has no {path}"))),
    }
}

/// The path of the teacher's layer that a path of the student is made of.
fn of_teacher(path: &str, layers: &[usize]) -> String {
    let mut names: Vec<String> = path.split('.').map(str::to_string).collect();
    let number = names.iter_mut().find_map(|name| {
        let number: usize = name.parse().ok()?;
        Some((name, number))
    });
    if let Some((name, number)) = number
        && let Some(layer) = layers.get(number)
    {
        *name = layer.to_string();
    }
    names.join(".")
}

/// The configuration with these layers. Lists with an entry for every layer get those of the layers.
fn with_layers(mut config: Value, count: usize, layers: &[usize]) -> Value {
    if let Some(settings) = config.as_object_mut() {
        for (name, value) in settings.iter_mut() {
            match value {
                Value::Number(_) if ["num_hidden_layers", "n_layer"].contains(&name.as_str()) => {
                    *value = layers.len().into();
                }
                Value::Array(entries) if entries.len() == count && name.contains("layer") => {
                    let kept = layers.iter().map(|&layer| entries[layer].clone());
                    *entries = kept.collect();
                }
                _ => {}
            }
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_number_of_a_path_is_the_layer() {
        let of = |path: &str| of_teacher(path, &[0, 3, 5]);
        assert_eq!(
            of("model.layers.1.mlp.up_proj.weight"),
            "model.layers.3.mlp.up_proj.weight"
        );
        assert_eq!(of("model.norm.weight"), "model.norm.weight");
    }

    #[test]
    fn lists_of_layers_keep_the_entries_of_the_layers() {
        let config =
            json!({"num_hidden_layers": 3, "layer_types": ["a", "b", "c"], "hidden_size": 3});
        let found = with_layers(config, 3, &[0, 2]);
        let expected = json!({"num_hidden_layers": 2, "layer_types": ["a", "c"], "hidden_size": 3});
        assert_eq!(found, expected);
    }
}
