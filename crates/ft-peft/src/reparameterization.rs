//! The same adapter for other Burn modules, as a Burn reparameterization.
//!
//! In Burn a parameter can be computed from a stored base: here `W = W₀ + s·AB`, with `W₀` frozen and `A`, `B` trained. This
//! works on any Burn module without changes to its code. The cost: the sum `W` and its gradient, both of the size of `W₀`,
//! exist in every step. In models of ft-core they do not ([`attach`](crate::attach)).
//!
//! Unlike `Module::apply_lora`, which takes every parameter of rank 2, embeddings included, this
//! takes the weights of Burn's own `Linear` layers only, and of those the ones that are named.
//! `Module::materialize` merges. Burn keeps its weights as `[in, out]`, so the factors are the
//! transposes of PEFT's: `W + s·AB` with `A` `[in, r]` and `B` `[r, out]`.

use burn::module::{Module, ModuleVisitor, Param, Reparameterization, Reparameterizer};
use burn::tensor::{Device, Distribution, Tensor};

use crate::targets::Layers;
use crate::{Error, InitLoraWeights, LoraConfig, Result};

const OUTPUT_LAYER: &str = "lm_head";

/// The trained part of a reparameterized weight, in Burn's layout `[in, out]`.
#[derive(Module, Debug)]
pub struct LowRank {
    /// Down-projection, `[in_features, r]`.
    pub a: Param<Tensor<2>>,
    /// Up-projection, `[r, out_features]`.
    pub b: Param<Tensor<2>>,
    /// `α/r`, or `α/√r`.
    pub scaling: f64,
}

impl Reparameterization for LowRank {
    const NAME: &'static str = "lora";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let delta = self.a.val().matmul(self.b.val()) * self.scaling;
        let shape = base.shape();
        base + delta.reshape::<D, _>(shape)
    }
}

/// Attaches a [`LowRank`] to the chosen linear layers of any Burn module:
/// `module.apply_reparameterization(LowRankReparameterizer::new(&module, &config)?)`.
///
/// Everything else of the module is left as it is; freeze it first (`module.no_grad()`) to train
/// the factors alone.
#[derive(Debug)]
pub struct LowRankReparameterizer {
    config: LoraConfig,
    /// Paths of the weights to take.
    weights: Vec<String>,
}

impl LowRankReparameterizer {
    /// Chooses the layers by the targets of `config`, by their paths in `module`. A layer called
    /// `lm_head` counts as the output layer.
    ///
    /// # Errors
    ///
    /// If the settings are wrong, use dropout, DoRA or factors taken from the weight, or name a layer that is not a
    /// `burn::nn::Linear`.
    pub fn new(module: &impl Module, config: &LoraConfig) -> Result<Self> {
        config.validate()?;
        if config.lora_dropout > 0.0 {
            return Err(Error::Settings(
                "lora_dropout acts on activations, and a reparameterization on weights: set it to 0"
                    .into(),
            ));
        }
        if !matches!(
            config.init_lora_weights,
            InitLoraWeights::Kaiming | InitLoraWeights::Gaussian
        ) || config.use_dora
        {
            return Err(Error::Settings(
                "a reparameterization has init_lora_weights true or gaussian, and no use_dora"
                    .into(),
            ));
        }
        let mut config = config.clone();
        let chosen =
            Layers::linear(linear_layers(module), OUTPUT_LAYER).select_strictly(&mut config)?;
        let weights = chosen.iter().map(|path| join(path, "weight")).collect();
        Ok(Self { config, weights })
    }

    fn factors(&self, layer: &str, [inputs, outputs]: [usize; 2], device: &Device) -> LowRank {
        let r = self.config.rank_of(layer);
        let bound = 1.0 / (inputs as f64).sqrt();
        let a = match self.config.init_lora_weights {
            InitLoraWeights::Gaussian => Distribution::Normal(0.0, 1.0 / r as f64),
            _ => Distribution::Uniform(-bound, bound),
        };
        LowRank {
            a: Param::from_tensor(Tensor::random([inputs, r], a, device)),
            b: Param::from_tensor(Tensor::zeros([r, outputs], device)),
            scaling: self.config.scaling_of(layer),
        }
    }
}

impl Reparameterizer for LowRankReparameterizer {
    type Reparam = LowRank;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LowRank>) {
        if D != 2 || !self.weights.iter().any(|weight| weight == path) {
            return (param, None);
        }
        let shape = param.lazy_shape();
        let layer = path.strip_suffix(".weight").unwrap_or(path);
        let factors = self.factors(layer, [shape[0], shape[1]], &param.lazy_device());
        (param.set_require_grad(false), Some(factors))
    }
}

/// Paths of all `burn::nn::Linear` layers.
fn linear_layers(module: &impl Module) -> Vec<String> {
    struct Find {
        path: Vec<String>,
        kinds: Vec<String>,
        found: Vec<String>,
    }
    impl ModuleVisitor for Find {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.path.push(name.to_string());
            self.kinds.push(container_type.to_string());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
            self.kinds.pop();
        }
        fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
            let in_linear = self
                .kinds
                .last()
                .is_some_and(|kind| kind == "Struct:Linear");
            if let [layer @ .., last] = self.path.as_slice()
                && in_linear
                && D == 2
                && last == "weight"
            {
                self.found.push(layer.join("."));
            }
        }
    }
    let mut find = Find {
        path: Vec::new(),
        kinds: Vec::new(),
        found: Vec::new(),
    };
    module.visit(&mut find);
    find.found
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_string()
    } else {
        format!("{path}.{name}")
    }
}
