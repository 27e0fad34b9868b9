//! The settings that all methods have.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Bias, TargetModules};

/// Settings that all methods have, in PEFT's names. None is ignored: a setting that a method does not have is an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Common {
    /// Which layers get the adapter. The default depends on the method: see its settings.
    pub target_modules: Option<TargetModules>,
    /// Which of those are left out.
    pub exclude_modules: Option<TargetModules>,
    /// The numbers of the blocks whose layers get the adapter, where `target_modules` is a list; all if there are none.
    #[serde(with = "one_or_many")]
    pub layers_to_transform: Vec<usize>,
    /// The names before the number of a block in a layer's path; any two names if there are none.
    #[serde(with = "one_or_many")]
    pub layers_pattern: Vec<String>,
    /// Layers that are trained and saved whole: the embedding, the output layer.
    pub modules_to_save: Vec<String>,
    /// Which biases train beside the adapter.
    pub bias: Bias,
    /// The hub id or path of the base model, for programs that load the adapter.
    pub base_model_name_or_path: Option<String>,
    /// Other settings of the file, which do not change what the adapter computes; kept for writing it again.
    #[serde(skip)]
    pub extra: Map<String, Value>,
}

/// One value or a list of them.
mod one_or_many {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany<T> {
        One(T),
        Many(Vec<T>),
    }

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        values: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match values {
            [] => serializer.serialize_none(),
            values => values.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        Ok(match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(value) => vec![value],
            OneOrMany::Many(values) => values,
        })
    }
}
