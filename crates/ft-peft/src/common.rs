//! The settings that all methods have.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::TargetModules;

/// Settings that all methods have, in PEFT's names. Methods ignore none: a setting that a method does not have is an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Common {
    /// Which layers get the adapter. Without it the method chooses: see its settings.
    pub target_modules: Option<TargetModules>,
    /// Which of those are left out.
    pub exclude_modules: Option<TargetModules>,
    /// The numbers of the blocks whose layers get the adapter, where `target_modules` is a list; all if there are none.
    #[serde(with = "one_or_many")]
    pub layers_to_transform: Vec<usize>,
    /// What stands before the number of a block in a layer's path; any two names if there is none.
    #[serde(with = "one_or_many")]
    pub layers_pattern: Vec<String>,
    /// Layers that are trained and saved whole: the embedding, the output layer.
    pub modules_to_save: Vec<String>,
    /// Which biases train beside the adapter.
    pub bias: Bias,
    /// Where the base model came from, for whoever loads the adapter.
    pub base_model_name_or_path: Option<String>,
    /// Other settings of the file, which do not change what the adapter computes; kept for writing it again.
    #[serde(skip)]
    pub extra: Map<String, Value>,
}

/// Which biases of the model train beside an adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bias {
    /// None of them.
    #[default]
    None,
    /// All of the model.
    All,
    /// Those of the layers that have the adapter: `lora_only` and its like in PEFT.
    Only,
}

impl Serialize for Bias {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::None => "none",
            Self::All => "all",
            Self::Only => "only",
        })
    }
}

impl<'de> Deserialize<'de> for Bias {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "none" => Ok(Self::None),
            "all" => Ok(Self::All),
            name if name == "only" || name.ends_with("_only") => Ok(Self::Only),
            _ => Err(serde::de::Error::custom(format!(
                "expected none, all or METHOD_only, not {text:?}"
            ))),
        }
    }
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

/// Values for layers that differ from the others; each name is a regular expression that whole parts at the end of the
/// layer's path must match. The first match counts.
pub type Pattern<T> = Vec<(String, T)>;

/// A [`Pattern`] is an object in JSON.
pub(crate) mod pattern {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
    use serde::ser::{Serialize, SerializeMap, Serializer};

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        pattern: &[(String, T)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(pattern.len()))?;
        for (name, value) in pattern {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, T)>, D::Error> {
        struct Pairs<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Vec<(String, T)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of names and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}
