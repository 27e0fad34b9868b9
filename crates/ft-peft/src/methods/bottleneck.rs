//! Bottleneck adapters: Parameter-Efficient Transfer Learning for NLP (Houlsby et al., 2019, arXiv:1902.00751), figure 2;
//! AdapterFusion (Pfeiffer et al., 2020, arXiv:2005.00247), figure 5; Towards a Unified View of Parameter-Efficient
//! Transfer Learning (He et al., 2021, arXiv:2110.04366), table 1.
//!
//! A sublayer that makes `o` of the stream `x` gets a small network beside it, `o + s·(U·f(D·h + d) + u)`. It reads
//! `h = o` (Houlsby), the stream after the sublayer, `h = norm(x + o)`, or `x + o` where the model norms first (Pfeiffer),
//! or the stream before it, `h = x` (He; also where the model norms first, as in AdapterHub).
//!
//! PEFT does not have them. They are saved in AdapterHub's form.

use burn::tensor::Tensor;
use ft_core::Part;
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor, LayerNorm};
use ft_kernels::Activation;
use serde::{Deserialize, Serialize};

use crate::adapter_config::json_settings;
use crate::method::{Draw, Method, NewAdapter, Site, method};
use crate::{Common, Result, TargetModules};

/// Settings of bottleneck adapters, in the names of AdapterHub. The default is Pfeiffer's adapter.
///
/// Llama and its relatives, GPT-2, BERT and RoBERTa have a place for them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BottleneckConfig {
    /// Whether attention gets an adapter.
    pub mh_adapter: bool,
    /// Whether the feed-forward layer gets one.
    pub output_adapter: bool,
    /// How many times narrower than the stream the adapter is.
    pub reduction_factor: f64,
    /// The activation in between.
    pub non_linearity: Activation,
    /// Whether it reads the stream after the sublayer, in place of the sublayer's output.
    pub original_ln_before: bool,
    /// Whether it reads the stream before the sublayer.
    pub is_parallel: bool,
    /// The factor of its output.
    pub scaling: f64,
    /// How it begins.
    pub init_weights: InitBottleneck,
    /// Dropout on its output while training.
    pub dropout: f64,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

/// How bottleneck adapters begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitBottleneck {
    /// Weights of deviation 0.02: near the identity, but not the identity.
    #[default]
    Bert,
    /// As the identity: the second layer begins at zero (He et al., 2021).
    MamAdapter,
    /// Weights of deviation 0.01, at most 0.02 (Houlsby et al., 2019).
    Houlsby,
}

impl Default for BottleneckConfig {
    fn default() -> Self {
        Self::pfeiffer()
    }
}

json_settings!(BottleneckConfig);

impl BottleneckConfig {
    /// An adapter after attention and one after the feed-forward layer (`double_seq_bn`).
    pub fn houlsby() -> Self {
        Self {
            mh_adapter: true,
            non_linearity: Activation::Silu,
            original_ln_before: false,
            ..Self::pfeiffer()
        }
    }

    /// An adapter after the feed-forward layer (`seq_bn`).
    pub fn pfeiffer() -> Self {
        Self {
            mh_adapter: false,
            output_adapter: true,
            reduction_factor: 16.0,
            non_linearity: Activation::Relu,
            original_ln_before: true,
            is_parallel: false,
            scaling: 1.0,
            init_weights: InitBottleneck::Bert,
            dropout: 0.0,
            common: Common::default(),
        }
    }

    /// An adapter beside the feed-forward layer (`par_bn`).
    pub fn parallel() -> Self {
        Self {
            reduction_factor: 2.0,
            original_ln_before: false,
            is_parallel: true,
            scaling: 4.0,
            init_weights: InitBottleneck::MamAdapter,
            ..Self::pfeiffer()
        }
    }

    /// The parts of a model that get an adapter.
    pub(crate) fn targets(&self) -> TargetModules {
        TargetModules::names(self.default_targets()[0].iter().copied())
    }

    fn input(&self) -> Input {
        match (self.is_parallel, self.original_ln_before) {
            (true, _) => Input::Before,
            (false, true) => Input::After,
            (false, false) => Input::Output,
        }
    }
}

impl Method for BottleneckConfig {
    method!("BOTTLENECK");

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if !(self.mh_adapter || self.output_adapter) {
            mistakes.push("one of mh_adapter and output_adapter must be true".to_string());
        }
        for (name, number) in [
            ("reduction_factor", self.reduction_factor),
            ("scaling", self.scaling),
        ] {
            if !(number.is_finite() && number > 0.0) {
                mistakes.push(format!("{name} must be above 0, not {number}"));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let dropout = self.dropout;
            mistakes.push(format!(
                "dropout must be at least 0 and below 1, not {dropout}"
            ));
        }
        mistakes
    }

    fn keys(&self) -> &'static [&'static str] {
        &[]
    }

    fn default_targets(&self) -> &'static [&'static [&'static str]] {
        match (self.mh_adapter, self.output_adapter) {
            (true, true) => &[&["attention_adapters", "output_adapters"]],
            (true, false) => &[&["attention_adapters"]],
            (false, _) => &[&["output_adapters"]],
        }
    }

    fn takes(&self, part: Part<'_>) -> bool {
        matches!(part, Part::Residual(_))
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let width = site.features().outputs;
        let inner = ((width as f64 / self.reduction_factor) as usize).max(1);
        let (down, up) = ([inner, width], [width, inner]);
        let (down, up) = match self.init_weights {
            InitBottleneck::Bert => (draw.normal(down, 0.02), draw.normal(up, 0.02)),
            InitBottleneck::MamAdapter => {
                let bound = (width as f64).powf(-0.5);
                (draw.uniform(down, bound), draw.zeros(up))
            }
            InitBottleneck::Houlsby => (
                draw.truncated_normal(down, 0.01),
                draw.truncated_normal(up, 0.01),
            ),
        };
        let tensors = vec![
            AdapterTensor::new(DOWN, down),
            AdapterTensor::new(DOWN_BIAS, draw.zeros([inner])),
            AdapterTensor::new(UP, up),
            AdapterTensor::new(UP_BIAS, draw.zeros([width])),
        ];
        let kind = Bottleneck {
            input: self.input(),
            act: self.non_linearity,
            scaling: self.scaling,
        };
        Ok(NewAdapter {
            dropout: self.dropout,
            ..NewAdapter::new(kind, tensors)
        })
    }
}

/// `[inner, width]`
const DOWN: &str = "adapter_down.0.weight";
/// `[inner]`
const DOWN_BIAS: &str = "adapter_down.0.bias";
/// `[width, inner]`
const UP: &str = "adapter_up.weight";
/// `[width]`
const UP_BIAS: &str = "adapter_up.bias";

/// What an adapter reads.
#[derive(Clone, Copy, Debug)]
enum Input {
    /// The stream before the sublayer.
    Before,
    /// The stream after it.
    After,
    /// The sublayer's output.
    Output,
}

/// A small network beside a sublayer.
#[derive(Clone, Copy, Debug)]
struct Bottleneck {
    input: Input,
    act: Activation,
    scaling: f64,
}

impl AdapterKind for Bottleneck {
    fn sublayer(
        &self,
        adapter: &Adapter,
        x: &Tensor<3>,
        o: Tensor<3>,
        norm: Option<&LayerNorm>,
    ) -> Tensor<3> {
        let input = match (self.input, norm) {
            (Input::Before, _) => x.clone(),
            (Input::Output, _) => o.clone(),
            (Input::After, None) => o.clone() + x.clone(),
            (Input::After, Some(norm)) => norm.forward(o.clone() + x.clone()),
        };
        let [batch, seq, width] = o.dims();
        let affine = |x: Tensor<2>, weight, bias| {
            let bias = adapter.val1(bias).unsqueeze();
            x.matmul(adapter.val2(weight).transpose()) + bias
        };
        let inner = affine(input.reshape([batch * seq, width]), DOWN, DOWN_BIAS);
        let change = affine(self.act.forward(inner), UP, UP_BIAS) * self.scaling;
        o + adapter.dropout.forward(change).reshape([batch, seq, width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_do_nothing_are_mistakes() {
        let config = BottleneckConfig {
            output_adapter: false,
            reduction_factor: 0.0,
            dropout: 1.0,
            ..BottleneckConfig::pfeiffer()
        };
        let message = config.validate().expect_err("wrong").to_string();
        for part in ["mh_adapter", "reduction_factor", "dropout"] {
            assert!(message.contains(part), "{message}");
        }
        for config in [
            BottleneckConfig::houlsby(),
            BottleneckConfig::pfeiffer(),
            BottleneckConfig::parallel(),
        ] {
            config.validate().expect("valid");
        }
    }
}
