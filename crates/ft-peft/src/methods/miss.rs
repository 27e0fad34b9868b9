//! MiSS: Matrix Shard Sharing (Kang and Yin, 2024, arXiv:2409.15371): `y = Wx + Dᵀ·Σᵢxᵢ`, where the `xᵢ` are the shards of
//! `r` numbers of the input, padded with zeros.
//!
//! - `mini`: `D` is `[r, mini_r]`, and repeated over the outputs.
//! - `bat`: for each shard `o` of the output `ΔWₒᵢ = WₒᵢDₒ + Dₒ`, where the `Wₒᵢ` are the blocks `[r, r]` of the weight.
//!   With several adapters on a layer each one's `W` is that of the base, so that their order does not matter; in PEFT it
//!   includes the changes of the adapters before it.

use burn::tensor::ops::PadMode;
use burn::tensor::{DType, Tensor};
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor, At, Merged};
use ft_kernels::Weight;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::adapter_config::json_settings;
use crate::method::{Draw, Method, NewAdapter, QUERIES_AND_VALUES, Site, method};
use crate::remade::remade;
use crate::{Common, Error, Result};

/// Which form the adapter has, and how it is initialized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitMissWeights {
    /// One block for all shards, zero: PEFT's default.
    #[default]
    Default,
    /// The same, random.
    Random,
    /// A block for each shard of the output, whose change depends on the weight.
    Bat,
    /// One block of `mini_r` columns, repeated over the outputs.
    Mini,
}

impl Serialize for InitMissWeights {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Default => serializer.serialize_bool(true),
            Self::Random => serializer.serialize_bool(false),
            Self::Bat => serializer.serialize_str("bat"),
            Self::Mini => serializer.serialize_str("mini"),
        }
    }
}

impl<'de> Deserialize<'de> for InitMissWeights {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(true) => Ok(Self::Default),
            Value::Bool(false) => Ok(Self::Random),
            Value::String(name) if name == "bat" => Ok(Self::Bat),
            Value::String(name) if name == "mini" => Ok(Self::Mini),
            other => Err(serde::de::Error::custom(format!(
                "must be true, false, \"bat\" or \"mini\", not {other}"
            ))),
        }
    }
}

/// Settings of a MiSS adapter (Kang and Yin, 2024, arXiv:2409.15371).
///
/// The defaults are PEFT's: without `target_modules` it is put on queries and values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MissConfig {
    /// The size of the shards.
    pub r: usize,
    /// Columns of the block of the form `mini`.
    pub mini_r: usize,
    /// Dropout on the adapter's input while training.
    pub miss_dropout: f64,
    /// The form of the adapter.
    pub init_weights: InitMissWeights,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for MissConfig {
    fn default() -> Self {
        Self {
            r: 64,
            mini_r: 1,
            miss_dropout: 0.0,
            init_weights: InitMissWeights::default(),
            common: Common::default(),
        }
    }
}

json_settings!(MissConfig);

impl Method for MissConfig {
    method!("MISS");

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (name, value) in [("r", self.r), ("mini_r", self.mini_r)] {
            if value == 0 {
                mistakes.push(format!("{name} must be at least 1"));
            }
        }
        if !(0.0..1.0).contains(&self.miss_dropout) {
            mistakes.push(format!(
                "miss_dropout must be at least 0 and below 1, not {}",
                self.miss_dropout
            ));
        }
        if self.init_weights == InitMissWeights::Bat && self.miss_dropout > 0.0 {
            mistakes.push("miss_dropout has no effect with init_weights = \"bat\": set it to 0".to_string());
        }
        mistakes
    }

    fn bias_only(&self) -> Option<&'static str> {
        Some("MiSS_only")
    }

    fn default_targets(&self) -> &'static [&'static [&'static str]] {
        &QUERIES_AND_VALUES
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let linear = site.linear()?;
        let (inputs, outputs, r) = (linear.in_features(), linear.out_features(), self.r);
        let wrong = |what: String| Err(Error::Settings(format!("{}: {what}", site.path)));
        if r > inputs {
            return wrong(format!("r ({r}) is above its {inputs} input features"));
        }
        let (form, block) = match self.init_weights {
            InitMissWeights::Default => (Form::Shards, AdapterTensor::new(BLOCK, draw.zeros([r, outputs]))),
            InitMissWeights::Random => {
                let bound = 1.0 / (outputs as f64).sqrt();
                (Form::Shards, AdapterTensor::new(BLOCK, draw.uniform([r, outputs], bound)))
            }
            InitMissWeights::Mini => {
                if !outputs.is_multiple_of(self.mini_r) {
                    let mini_r = self.mini_r;
                    return wrong(format!("mini_r ({mini_r}) does not divide its {outputs} output features"));
                }
                (Form::Shards, AdapterTensor::new(BLOCK, draw.zeros([r, self.mini_r])))
            }
            InitMissWeights::Bat => {
                if !inputs.is_multiple_of(r) || !outputs.is_multiple_of(r) {
                    return wrong(format!(
                        "r ({r}) does not divide its {inputs} input and {outputs} output features, which \"bat\" needs"
                    ));
                }
                (Form::Bat, AdapterTensor::new(BLOCK, draw.zeros([outputs / r, r, r])))
            }
        };
        Ok(NewAdapter {
            dropout: self.miss_dropout,
            ..NewAdapter::new(Miss { form }, vec![block])
        })
    }
}

/// `[r, out_features]`, or `[r, mini_r]`, or `[out_features / r, r, r]`.
const BLOCK: &str = "miss_block";

#[derive(Clone, Copy, Debug)]
enum Form {
    /// One block for all shards, with as many columns as outputs or a divisor of that.
    Shards,
    Bat,
}

/// `ΔW·x`, added to the product.
#[derive(Clone, Copy, Debug)]
struct Miss {
    form: Form,
}

/// The sum of the shards of each row, `[rows, r]`.
fn folded(x: Tensor<2>, r: usize) -> Tensor<2> {
    let [rows, inputs] = x.dims();
    let shards = inputs.div_ceil(r);
    let x = match shards * r - inputs {
        0 => x,
        missing => x.pad((0, missing, 0, 0), PadMode::Constant(0.0)),
    };
    x.reshape([rows, shards, r]).sum_dim(1).squeeze_dim(1)
}

/// `ΔWₒᵢ = WₒᵢDₒ + Dₒ`, for the base weight, `[out, in]`.
fn bat(base: Tensor<2>, adapter: &Adapter) -> Tensor<2> {
    let block = adapter.val3(BLOCK);
    let [outputs, inputs] = base.dims();
    let [shards, r, _] = block.dims();
    let rows = base.reshape([shards, r * (inputs / r), r]);
    let product = rows.matmul(block.clone()).reshape([shards, r, inputs / r, r]);
    (product + block.unsqueeze_dim(2)).reshape([outputs, inputs])
}

impl AdapterKind for Miss {
    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        match self.form {
            Form::Shards => {
                let block = at.adapter.val2(BLOCK);
                let [r, columns] = block.dims();
                let x = at.adapter.dropout.forward(x.clone());
                let z = ft_kernels::linear(folded(x, r), block.transpose(), None);
                match at.layer.out_features() / columns {
                    1 => y + z,
                    times => y + z.repeat(&[1, times]),
                }
            }
            Form::Bat => {
                let weight = at.layer.product_weight();
                // Blocks are decoded when they are needed, and not kept until the backward pass.
                let delta = remade(at.adapter, &x.device(), move |adapter| {
                    let matrix = match weight.clone() {
                        Weight::Dense(weight) => weight.detach(),
                        Weight::Packed(packed) => {
                            ft_kernels::constant(packed.dequantize(), &adapter.val2(BLOCK))
                        }
                    };
                    bat(matrix.cast(DType::F32), adapter)
                });
                y + ft_kernels::linear(x.clone(), delta, None)
            }
        }
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        let inputs = at.layer.in_features();
        let delta = match self.form {
            Form::Shards => {
                let block = at.adapter.val2(BLOCK);
                let [r, columns] = block.dims();
                let times = [inputs.div_ceil(r), at.layer.out_features() / columns];
                block.repeat(&times).narrow(0, 0, inputs).transpose()
            }
            Form::Bat => bat(merged.base.clone(), at.adapter),
        };
        Some(Merged {
            weight: merged.weight + delta,
            ..merged
        })
    }
}
