//! How the factors of LoRA begin.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::method::{Draw, Features};

/// How the factors are initialized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitLoraWeights {
    /// `A` uniform in `±1/√in_features` (Kaiming with a = √5), `B` zero: PEFT's default.
    #[default]
    Kaiming,
    /// `A` normal with standard deviation `1/r`, `B` zero.
    Gaussian,
}

impl Serialize for InitLoraWeights {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Kaiming => serializer.serialize_bool(true),
            Self::Gaussian => serializer.serialize_str("gaussian"),
        }
    }
}

/// Most ways to begin are history once the adapter is saved, but some took the first factors out of the base weights, so
/// that the adapter is of use only on a base changed in the same way.
impl<'de> Deserialize<'de> for InitLoraWeights {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        let name = match Value::deserialize(deserializer)? {
            Value::Bool(_) => return Ok(Self::Kaiming),
            Value::String(name) => name.to_ascii_lowercase(),
            other => {
                let message = format!("must be true, false or a name, not {other}");
                return Err(serde::de::Error::custom(message));
            }
        };
        match name.as_str() {
            "gaussian" => Ok(Self::Gaussian),
            "eva" | "mica" | "orthogonal" => Ok(Self::Kaiming),
            _ => Err(serde::de::Error::custom(
                "it is not supported: the adapter may need a changed base. Save it from PEFT with \
                 path_initial_model_for_weight_conversion",
            )),
        }
    }
}

impl InitLoraWeights {
    /// `A` `[r, in_features]` and `B` `[out_features, r]`.
    pub(super) fn factors(
        self,
        features: Features,
        r: usize,
        draw: &mut Draw<'_>,
    ) -> [Tensor<2>; 2] {
        let Features { inputs, outputs } = features;
        let a = match self {
            Self::Kaiming => draw.uniform([r, inputs], 1.0 / (inputs as f64).sqrt()),
            Self::Gaussian => draw.normal([r, inputs], 1.0 / r as f64),
        };
        [a, draw.zeros([outputs, r])]
    }
}
