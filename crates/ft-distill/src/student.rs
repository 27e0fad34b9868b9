//! A student of some layers of its teacher.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use ft_core::{
    AutoCausalLm, CausalLm, EncoderSequenceClassifier, EncoderTask, EncoderTaskConfig, ModelConfig,
    Parts, module_path,
};
use serde_json::Value;

use crate::{Error, Result};

/// Models whose layers make students: causal language models and classifiers of texts.
pub trait Teacher: Module + Parts {
    /// The configuration, as in `config.json`.
    fn settings(&self) -> Value;

    /// The number of layers.
    fn num_layers(&self) -> usize;

    /// A model with this configuration and random weights.
    ///
    /// # Errors
    ///
    /// If the configuration is not supported.
    fn with_settings(settings: Value, device: &Device) -> Result<Self>;
}

impl Teacher for AutoCausalLm {
    fn settings(&self) -> Value {
        self.config().to_json()
    }

    fn num_layers(&self) -> usize {
        self.dims().num_layers
    }

    fn with_settings(settings: Value, device: &Device) -> Result<Self> {
        let config = ModelConfig::from_json(settings)?;
        Ok(Self::from_config(&config, device)?)
    }
}

impl Teacher for EncoderSequenceClassifier {
    fn settings(&self) -> Value {
        self.config().to_json()
    }

    fn num_layers(&self) -> usize {
        self.dims().num_layers
    }

    fn with_settings(settings: Value, device: &Device) -> Result<Self> {
        let config = EncoderTaskConfig::from_json(settings, EncoderTask::SequenceClassification)?;
        Ok(Self::from_config(&config, device)?)
    }
}

/// A model of the teacher's layers `layers`, in this order, with its embeddings, final norm and head, in `f32`: the start of
/// DistilBERT's student (Sanh et al., 2019, arXiv:1910.01108, section 3), which has every second layer.
///
/// # Errors
///
/// If no layer is named or one that does not exist, or the teacher has adapters or weights in blocks of few bits; or if the
/// kind of a layer follows from its number, as with windows in every sixth layer, and the configuration does not list the kinds.
pub fn student_of<M: Teacher>(teacher: &M, layers: &[usize]) -> Result<M> {
    let count = teacher.num_layers();
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
    let config = teacher.settings();
    if let Some(setting) = by_number(&config) {
        return Err(Error::Teacher(format!(
            "the kind of a layer follows from its number ({setting}), which changes when others are left out: write \
             `layer_types` (for SmolLM3 `no_rope_layers`), a list with the kind of each layer, to the teacher's config.json, if \
             its architecture has it"
        )));
    }
    let device = teacher.devices().first().cloned().unwrap_or_default();
    let student = M::with_settings(with_layers(config, count, layers), &device)?;
    let mut adapted = None;
    teacher.for_each_part(&mut |path, part| {
        if !part.adapters().is_empty() {
            adapted.get_or_insert(path.to_string());
        }
    });
    if let Some(path) = adapted {
        return Err(Error::Teacher(format!(
            "the teacher has adapters ({path}): merge them first"
        )));
    }
    if let Some((path, _)) = module_path::packed_weights(teacher).first() {
        return Err(Error::Teacher(format!(
            "the teacher has weights in blocks of few bits ({path}): write it in 16 bits with the example `dequantize` first"
        )));
    }
    let wanted = module_path::shapes(&student).into_iter();
    let wanted = wanted.map(|(path, _)| of_teacher(&path, layers));
    let weights = copies(teacher, &wanted.collect());

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
            Param::from_tensor(Tensor::from_data(data, &device))
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

/// The weights of these paths.
fn copies(teacher: &impl Module, wanted: &BTreeSet<String>) -> BTreeMap<String, TensorData> {
    struct Copies<'a> {
        wanted: &'a BTreeSet<String>,
        found: BTreeMap<String, TensorData>,
    }
    impl module_path::PathVisitor for Copies<'_> {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if self.wanted.contains(path) {
                self.found.insert(path.to_string(), param.val().into_data());
            }
        }
    }
    let mut copies = Copies {
        wanted,
        found: BTreeMap::new(),
    };
    module_path::visit_params(teacher, &mut copies);
    copies.found
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

/// The setting by which the number of a layer decides what it is, unless a list does.
fn by_number(config: &Value) -> Option<&'static str> {
    let number = |name: &str| config[name].as_u64().filter(|&number| number > 0);
    let listed = config["layer_types"].is_array();
    let kind = config["model_type"].as_str().unwrap_or_default();
    if kind == "smollm3" && !config["no_rope_layers"].is_array() {
        return Some("no_rope_layer_interval");
    }
    if listed {
        return None;
    }
    if number("sliding_window_pattern").is_some()
        || kind.starts_with("gemma2")
        || kind.starts_with("gemma3")
    {
        return Some("sliding_window_pattern");
    }
    // Without the key, a number of the architecture decides.
    if number("global_attn_every_n_layers").is_some() {
        return Some("global_attn_every_n_layers");
    }
    let windows = config["use_sliding_window"].as_bool() == Some(true);
    (windows && config["max_window_layers"] != 0).then_some("max_window_layers")
}

/// The configuration with these layers. Lists with an entry for every layer get those of the layers.
fn with_layers(mut config: Value, count: usize, layers: &[usize]) -> Value {
    if let Some(settings) = config.as_object_mut() {
        for (name, value) in settings.iter_mut() {
            match value {
                Value::Number(_)
                    if ["num_hidden_layers", "n_layer", "n_layers"].contains(&name.as_str()) =>
                {
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
    fn layers_whose_kind_follows_from_their_number_are_found() {
        let windows = json!({"use_sliding_window": true, "max_window_layers": 2});
        assert_eq!(by_number(&windows), Some("max_window_layers"));
        assert_eq!(
            by_number(&json!({"use_sliding_window": true})),
            Some("max_window_layers")
        );
        let gemma = json!({"model_type": "gemma3_text"});
        assert_eq!(by_number(&gemma), Some("sliding_window_pattern"));
        let listed = json!({"model_type": "gemma3_text", "layer_types": ["a"]});
        assert_eq!(by_number(&listed), None);
        assert_eq!(
            by_number(&json!({"model_type": "llama", "max_window_layers": 2})),
            None
        );
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
