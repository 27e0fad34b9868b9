//! A student of some layers of its teacher, as wide as it is or narrower.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use ft_core::{
    AutoCausalLm, CausalLm, EncoderSequenceClassifier, EncoderTask, EncoderTaskConfig, ModelConfig,
    Parts, module_path,
};
use serde_json::{Map, Value};

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
    narrow_student_of(teacher, layers, &Map::new())
}

/// As [`student_of`], with other sizes: `sizes` are keys of `config.json` with smaller numbers than the teacher's. They are
/// `hidden_size`, `intermediate_size`, `num_attention_heads` and `num_key_value_heads`, or what the architecture calls them.
///
/// A weight of the student is the first rows and columns of the teacher's: the first channels of the hidden states, the first heads,
/// the first channels of the feed-forward layer. Heads keep their size, and as many of them share a key head as before. The start is
/// better than random weights, and far from the teacher until it is trained.
///
/// # Errors
///
/// As [`student_of`]; if a size is larger than the teacher's, heads would be cut, or a matrix of several parts (as `qkv_proj`) would get
/// narrower, whose first rows are of one part only.
pub fn narrow_student_of<M: Teacher>(
    teacher: &M,
    layers: &[usize],
    sizes: &Map<String, Value>,
) -> Result<M> {
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
    let narrow = with_sizes(&config, sizes)?;
    let student = M::with_settings(with_layers(narrow, count, layers), &device)?;
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
        error: Option<String>,
    }
    impl module_path::PathMapper for Fill<'_> {
        fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(data) = self.weights.get(&of_teacher(path, self.layers)) else {
                let error = || format!("the teacher has no {path}");
                self.error.get_or_insert_with(error);
                return param;
            };
            let (device, shape) = (param.lazy_device(), param.lazy_shape());
            if let Err(error) = part_of(path, data.shape(), &shape) {
                self.error.get_or_insert(error);
                return param;
            }
            let data = data.clone().convert::<f32>();
            let whole = Tensor::<D>::from_data(data, &device);
            Param::from_tensor(whole.slice(shape.dims::<D>().map(|size| 0..size)))
        }
    }
    let mut fill = Fill {
        weights,
        layers,
        error: None,
    };
    let student = module_path::map_params(student, &mut fill);
    match fill.error {
        None => Ok(student),
        Some(error) => Err(Error::Teacher(error)),
    }
}

/// Matrices that hold several parts, one behind the other.
const SEVERAL_PARTS: [&str; 6] = [
    "c_attn",
    "query_key_value",
    "qkv_proj",
    "gate_up_proj",
    "Wqkv",
    "Wi",
];

/// Checks that the first rows and columns of a weight of the teacher are a weight of the student.
fn part_of(path: &str, teacher: &[usize], student: &[usize]) -> std::result::Result<(), String> {
    if teacher.len() != student.len() || teacher.iter().zip(student).any(|(all, part)| part > all) {
        return Err(format!(
            "{path} has the shape {student:?} in the student and {teacher:?} in its teacher: a student is at most as wide"
        ));
    }
    let parts = path.split('.').any(|name| SEVERAL_PARTS.contains(&name));
    if parts && teacher != student {
        return Err(format!(
            "{path} holds several parts, one behind the other, so a narrower student cannot be cut from it: leave the sizes as \
             they are, or give a config.json for a student with random weights"
        ));
    }
    Ok(())
}

/// The names of sizes in `config.json`, which a narrower student has smaller.
const SIZES: [&str; 10] = [
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "dim",
    "hidden_dim",
    "n_heads",
    "n_embd",
    "n_inner",
    "n_head",
];

/// The configuration with other sizes.
fn with_sizes(config: &Value, sizes: &Map<String, Value>) -> Result<Value> {
    let mut narrow = config.clone();
    for (name, size) in sizes {
        let known = config.get(name).and_then(Value::as_u64);
        let known = known.filter(|_| SIZES.contains(&name.as_str()));
        let wanted = size.as_u64().filter(|&size| size > 0);
        let (Some(known), Some(wanted)) = (known, wanted) else {
            return Err(Error::Teacher(format!(
                "{name}: {size} is no size that makes a student narrower: give a smaller number for one of {} that the teacher's \
                 config.json has",
                SIZES.join(", ")
            )));
        };
        if wanted > known {
            return Err(Error::Teacher(format!(
                "{name}: {wanted} is larger than the teacher's {known}: a student is at most as wide"
            )));
        }
        narrow[name] = wanted.into();
    }
    let number = |config: &Value, names: &[&str]| {
        names
            .iter()
            .find_map(|name| config.get(*name).and_then(Value::as_u64))
    };
    let heads = |config: &Value| number(config, &["num_attention_heads", "n_heads", "n_head"]);
    let width = |config: &Value| number(config, &["hidden_size", "dim", "n_embd"]);
    let head_size = |config: &Value| {
        number(config, &["head_dim"]).or(Some(width(config)? / heads(config)?.max(1)))
    };
    if head_size(config) != head_size(&narrow) {
        return Err(Error::Teacher(format!(
            "heads would have {} numbers instead of {}: change `num_attention_heads` with `hidden_size`",
            head_size(&narrow).unwrap_or(0),
            head_size(config).unwrap_or(0),
        )));
    }
    let shared = |config: &Value| {
        let heads = heads(config)?;
        Some(heads / number(config, &["num_key_value_heads"])?.max(1))
    };
    if shared(config) != shared(&narrow) {
        return Err(Error::Teacher(
            "another number of heads would share a key head: change `num_key_value_heads` with `num_attention_heads`"
                .into(),
        ));
    }
    Ok(narrow)
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
    fn sizes_that_would_cut_heads_are_refused() {
        let config = json!({
            "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
            "vocab_size": 97, "num_hidden_layers": 4,
        });
        let narrow = |sizes: Value| with_sizes(&config, sizes.as_object().expect("sizes"));
        let half = json!({"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1});
        assert_eq!(narrow(half).expect("half")["hidden_size"], 32);
        for (sizes, reason) in [
            (
                json!({"hidden_size": 32}),
                "heads would have 8 numbers instead of 16",
            ),
            (
                json!({"hidden_size": 32, "num_attention_heads": 2}),
                "share a key head",
            ),
            (
                json!({"intermediate_size": 128}),
                "larger than the teacher's 96",
            ),
            (json!({"intermediate_size": 0}), "no size"),
            (json!({"wide": 1}), "no size"),
            (json!({"vocab_size": 5}), "no size"),
            (json!({"num_hidden_layers": 1}), "no size"),
        ] {
            let error = narrow(sizes).expect_err("refused").to_string();
            assert!(error.contains(reason), "{error}");
        }
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
