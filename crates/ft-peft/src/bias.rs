//! The setting of biases that train beside an adapter.

use serde::{Deserialize, Serialize};

/// Which biases of the model train beside an adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bias {
    /// None of them.
    #[default]
    None,
    /// All of the model.
    All,
    /// Those of the layers that have the adapter: in PEFT `lora_only`, and such names for other methods.
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
