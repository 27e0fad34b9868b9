//! What a method of adapting a model is: its settings, and what it puts on a layer.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::Device;
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor, Embedding};
use ft_core::{Layout, Linear, Part, Parts};
use rand::rngs::StdRng;
use serde_json::{Map, Value};

use crate::adapter_config::{is_empty, object};
use crate::targets::ends_with_pattern;
use crate::{Bias, Common, Error, Result, TokenIndices};

/// Settings that [`Method::keys`] names.
pub(crate) const TARGETS: [&str; 5] = [
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
];

/// [`Method::default_targets`] of the methods that PEFT puts on queries and values.
pub(crate) const QUERIES_AND_VALUES: [&[&str]; 5] = [
    &["q_proj", "v_proj"],
    &["c_attn"],
    &["query", "value"],
    &["query_key_value"],
    &["qkv_proj"],
];

/// A method: its settings, which serde reads and writes in PEFT's names, and what it puts on a layer.
///
/// Attaching, saving, loading, checking, merging, counting and printing are written once over this.
pub trait Method: Any + Debug + Send + Sync {
    /// PEFT's name for it: `LORA`.
    fn peft_type(&self) -> &'static str;

    /// The settings that all methods have.
    fn common(&self) -> &Common;

    /// The same, to be changed.
    fn common_mut(&mut self) -> &mut Common;

    /// The method's own settings.
    fn own(&self) -> Map<String, Value>;

    /// A copy of the settings.
    fn boxed(&self) -> Box<dyn Method>;

    /// What is wrong with the method's own settings.
    fn mistakes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Why settings without mistakes cannot be used for a new adapter, or for one in a file.
    fn refuses(&self, origin: Origin) -> Option<String> {
        let _ = origin;
        None
    }

    /// The settings of an adapter that changes its layers `factor` times as much; none if the method has no scale.
    fn scaled(&self, factor: f64) -> Option<Box<dyn Method>> {
        let _ = factor;
        None
    }

    /// The patterns of the settings that name layers, each with its setting.
    fn patterns(&self) -> Vec<(&'static str, &str)> {
        Vec::new()
    }

    /// Settings that PEFT writes and that change nothing here, or are not implemented, with the values at which they have no
    /// effect.
    fn fixed(&self) -> Value {
        Value::Object(Map::new())
    }

    /// Settings that PEFT writes and does not use, whatever their values.
    fn ignored_in_files(&self) -> &'static [&'static str] {
        &[]
    }

    /// Which settings of [`Common`] the method has in PEFT, beside `base_model_name_or_path`.
    fn keys(&self) -> &'static [&'static str] {
        &TARGETS
    }

    /// Whether PEFT writes `fan_in_fan_out`: that the base weights are `[in, out]`.
    fn tells_layout(&self) -> bool {
        false
    }

    /// PEFT's name for [`Bias::Only`](crate::Bias::Only), if the method has that setting: `lora_only`.
    fn bias_only(&self) -> Option<&'static str> {
        None
    }

    /// Names of layers to choose without `target_modules`: the first list of which all match. None stands for all linear
    /// layers, or for all layers if the method takes no linear ones.
    fn default_targets(&self) -> &'static [&'static [&'static str]] {
        &[]
    }

    /// Whether the method is put on one part alone, the first that it takes. It has no `target_modules` then.
    fn on_first(&self) -> bool {
        false
    }

    /// Fills in settings that follow from the model: sizes that are not given.
    ///
    /// # Errors
    ///
    /// If the settings do not fit the model.
    fn fit(&mut self, model: &dyn Parts) -> Result<()> {
        let _ = model;
        Ok(())
    }

    /// Fills in settings that follow from `target_modules`, once these are known.
    fn settle(&mut self) {}

    /// Whether the method can be put on such a part.
    fn takes(&self, part: Part<'_>) -> bool {
        matches!(part, Part::Linear(_))
    }

    /// Whether the method can be put on such an output layer, where its targets name it.
    fn takes_output(&self, part: Part<'_>) -> bool {
        self.takes(part)
    }

    /// Names that tensors of the method and tensors of the base share. In a file they are the method's.
    fn names_of_base(&self) -> &'static [&'static str] {
        &[]
    }

    /// Tokens whose rows train beside the method's own tensors.
    fn token_indices(&self) -> Option<&TokenIndices> {
        None
    }

    /// Tensors that all layers share.
    ///
    /// # Errors
    ///
    /// If the settings do not fit the layers.
    fn shared(&self, layers: &[Features], draw: &mut Draw<'_>) -> Result<Vec<AdapterTensor>> {
        let (_, _) = (layers, draw);
        Ok(Vec::new())
    }

    /// The tensors of an adapter as its file has them.
    fn saved(&self, adapter: &Adapter) -> Vec<AdapterTensor> {
        adapter
            .tensors
            .iter()
            .filter(|tensor| tensor.is_saved())
            .cloned()
            .collect()
    }

    /// What the method puts on a layer.
    ///
    /// # Errors
    ///
    /// If the settings do not fit the layer.
    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter>;
}

/// Where an adapter comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is attached anew.
    New,
    /// It is read from a file.
    File,
}

/// The sizes of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// Input features; rows of an embedding.
    pub inputs: usize,
    /// Output features; the width of an embedding.
    pub outputs: usize,
}

/// A layer that gets an adapter.
#[derive(Debug)]
pub struct Site<'a> {
    /// Its path.
    pub path: &'a str,
    /// The layer.
    pub part: Part<'a>,
    /// Tensors that all layers share.
    pub shared: &'a [AdapterTensor],
    /// Whether the tensors will be replaced with those of a file.
    pub loaded: bool,
}

/// Where new numbers come from.
#[derive(Debug)]
pub struct Draw<'a> {
    /// The generator.
    pub rng: &'a mut StdRng,
    /// Where tensors are made.
    pub device: Device,
    /// How many numbers a tensor of the file has at most, if those of a file replace what is drawn.
    pub(crate) stored: Option<usize>,
}

/// What a method puts on a layer.
#[derive(Debug)]
pub struct NewAdapter {
    /// The mathematics.
    pub kind: Arc<dyn AdapterKind>,
    /// The tensors, as they begin.
    pub tensors: Vec<AdapterTensor>,
    /// Dropout on what the adapter reads.
    pub dropout: f64,
}

impl NewAdapter {
    /// Without dropout.
    pub fn new(kind: impl AdapterKind, tensors: Vec<AdapterTensor>) -> Self {
        Self {
            kind: Arc::new(kind),
            tensors,
            dropout: 0.0,
        }
    }
}

impl<'a> Site<'a> {
    /// The linear layer.
    ///
    /// # Errors
    ///
    /// If it is another part.
    pub fn linear(&self) -> Result<&'a Linear> {
        match self.part {
            Part::Linear(linear) => Ok(linear),
            _ => Err(Error::Settings(format!(
                "{} is not a linear layer, which this method needs",
                self.path
            ))),
        }
    }

    /// The embedding.
    ///
    /// # Errors
    ///
    /// If it is another part.
    pub fn embedding(&self) -> Result<&'a Embedding> {
        match self.part {
            Part::Embedding(table) => Ok(table),
            _ => Err(Error::Settings(format!(
                "{} is not an embedding, which this method needs",
                self.path
            ))),
        }
    }

    /// Whether the base weight is `[in, out]`.
    pub fn is_transposed(&self) -> bool {
        matches!(self.part, Part::Linear(linear) if linear.layout() == Layout::InOut)
    }

    /// The sizes of the layer.
    pub fn features(&self) -> Features {
        Features::of(self.part)
    }

    /// A copy of the shared tensor of a name.
    ///
    /// # Panics
    ///
    /// If the method made none.
    pub fn shared(&self, name: &str) -> AdapterTensor {
        let mut shared = self.shared.iter();
        (shared.find(|tensor| tensor.name() == name))
            .unwrap_or_else(|| panic!("no shared tensor is called {name}"))
            .clone()
    }
}

impl Features {
    /// Those of a part; a norm has as many outputs as inputs.
    pub fn of(part: Part<'_>) -> Self {
        let (inputs, outputs) = match part {
            Part::Linear(linear) => (linear.in_features(), linear.out_features()),
            Part::Embedding(table) => {
                let shape = table.weight.lazy_shape();
                (shape[0], shape[1])
            }
            Part::RmsNorm(norm) => (norm.width(), norm.width()),
            Part::Residual(residual) => (residual.width(), residual.width()),
            Part::LayerNorm(norm) => {
                let width = norm.weight.lazy_shape()[0];
                (width, width)
            }
            _ => (0, 0),
        };
        Self { inputs, outputs }
    }
}

/// Checks every setting.
///
/// # Errors
///
/// [`Error::Settings`] with all mistakes, separated by semicolons.
pub(crate) fn validate(method: &dyn Method) -> Result<()> {
    let mut mistakes = method.mistakes();
    for (setting, pattern) in method.patterns() {
        let mistake = ends_with_pattern(pattern).err();
        mistakes.extend(mistake.map(|mistake| format!("{setting}: {mistake}")));
    }
    let common = method.common();
    if common.bias != Bias::None && method.bias_only().is_none() {
        mistakes.push(format!("bias is not a setting of {}", method.peft_type()));
    }
    let given = object(common);
    for name in TARGETS {
        if !method.keys().contains(&name) && !is_empty(&given[name]) {
            mistakes.push(format!("{name} is not a setting of {}", method.peft_type()));
        }
    }
    let tokens = method
        .token_indices()
        .map_or(Vec::new(), TokenIndices::mistakes);
    mistakes.extend(tokens);
    for targets in [&common.target_modules, &common.exclude_modules]
        .into_iter()
        .flatten()
    {
        mistakes.extend(targets.matcher("").err());
    }
    match mistakes.is_empty() {
        true => Ok(()),
        false => Err(Error::Settings(mistakes.join("; "))),
    }
}

/// Checks that no setting of a new adapter is without effect. PEFT does not load the file of an adapter with such settings.
///
/// # Errors
///
/// [`Error::Settings`] with the name of the setting.
pub(crate) fn check_common(common: &Common) -> Result<()> {
    match !common.layers_pattern.is_empty() && common.layers_to_transform.is_empty() {
        true => Err(Error::Settings(
            "layers_pattern has no effect without layers_to_transform: give the numbers of the blocks, or leave it out"
                .into(),
        )),
        false => Ok(()),
    }
}

/// Checks that the settings can be used for an adapter from there.
///
/// # Errors
///
/// [`Error::Settings`] with the reason.
pub(crate) fn check_origin(method: &dyn Method, origin: Origin) -> Result<()> {
    if origin == Origin::New {
        check_common(method.common())?;
    }
    match method.refuses(origin) {
        Some(reason) => Err(Error::Settings(reason)),
        None => Ok(()),
    }
}

/// The parts of [`Method`] that are the same for every configuration that serde reads and writes: the name, the settings.
macro_rules! method {
    ($peft_type:literal) => {
        fn peft_type(&self) -> &'static str {
            $peft_type
        }

        fn common(&self) -> &$crate::Common {
            &self.common
        }

        fn common_mut(&mut self) -> &mut $crate::Common {
            &mut self.common
        }

        fn own(&self) -> serde_json::Map<String, serde_json::Value> {
            $crate::adapter_config::object(self)
        }

        fn boxed(&self) -> Box<dyn $crate::Method> {
            Box::new(self.clone())
        }
    };
}
pub(crate) use method;
