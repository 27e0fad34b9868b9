//! One optimizer over all parameters, with its states kept by the parameters' paths.
//!
//! Burn's own container keeps states by `ParamId`, which is new in every process. Here a state
//! belongs to a path, so that a checkpoint fits the model that another process builds. Any of Burn's
//! optimizers will do ([`Optimizer::step`]); [`AdamW`] is the default.
//!
//! Decoupled weight decay (Loshchilov and Hutter, 2017, arXiv:1711.05101) shrinks matrices and
//! spares norms and biases, as transformers does: parameters of rank 1 or less get an optimizer of
//! their own. Groups of parameters may have settings of their own ([`ParamGroup`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use burn::module::{Module, Param};
use burn::optim::{
    DynOptimizer, DynState, GradientsParams, Optimizer, RecordState, StateSink, StateSource,
};
use burn::tensor::{Shape, Tensor, TensorData};
use ft_core::Parts;
use ft_core::layers::PackedParam;
use ft_core::module_path::{self, PathMapper, PathVisitor};
use ft_core::safetensors_folder::{read_metadata, read_tensors, write_tensors};
use serde_json::Value;

use crate::param_groups::assign;
use crate::param_kind::{ParamKind, parameters};
use crate::trainable::renew;
use crate::{AdamW, Error, FromConfig, Optim, ParamGroup, Result, TrainConfig};

/// An optimizer with its state for every parameter that it has updated.
pub struct OptimizerStates<O> {
    /// The first is of the parameters that belong to no group.
    groups: Vec<Group<O>>,
    /// The place of a parameter's group.
    group_of: BTreeMap<String, usize>,
    /// Its name, if the settings have one for it.
    optim: Option<Optim>,
    /// For an optimizer that scales gradients on its way, the same one with a scale.
    with_scale: Option<fn(O, f64) -> O>,
    states: BTreeMap<String, DynState>,
}

/// The optimizers of a group of parameters.
struct Group<O> {
    matrices: O,
    vectors: O,
    /// The learning rate over that of the run.
    rate: f64,
}

impl<O> Group<O> {
    fn of_rank(&self, rank: usize) -> &O {
        if rank >= 2 {
            &self.matrices
        } else {
            &self.vectors
        }
    }
}

impl<O: FromConfig> Group<O> {
    fn from_config(config: &TrainConfig) -> Self {
        Self {
            matrices: O::from_config(config),
            vectors: O::from_config(&TrainConfig {
                weight_decay: 0.0,
                ..config.clone()
            }),
            rate: 1.0,
        }
    }
}

/// The key of the optimizer's name in the metadata of a file.
const OPTIM: &str = "optim";

impl OptimizerStates<AdamW> {
    /// AdamW as `config` has it, in `f32` or 8 bits, without weight decay on parameters of rank 1.
    pub fn adamw(config: &TrainConfig) -> Self {
        Self::from_config(config)
    }
}

impl<O: FromConfig> OptimizerStates<O> {
    /// The optimizer as `config` has it, without weight decay on parameters of rank 1.
    pub fn from_config(config: &TrainConfig) -> Self {
        Self {
            groups: vec![Group::from_config(config)],
            group_of: BTreeMap::new(),
            optim: Some(config.optim),
            with_scale: Some(O::with_scale),
            states: BTreeMap::new(),
        }
    }

    /// With settings of their own for groups of the parameters of `model` that train; the others have those of
    /// `config`. Where a group has Muon, AdamW updates its embeddings and output layer.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with every setting that makes no sense, [`Error::MatchesNothing`] or
    /// [`Error::EmptyGroup`] if a rule selects nothing that trains.
    pub fn with_groups(
        mut self,
        model: &(impl Module + Parts),
        groups: &[ParamGroup],
        config: &TrainConfig,
    ) -> Result<Self> {
        let mistakes = groups.iter().enumerate();
        let mistakes: Vec<_> = mistakes
            .flat_map(|(number, group)| group.mistakes(number))
            .collect();
        if !mistakes.is_empty() {
            return Err(Error::Config(mistakes));
        }
        if self.optim.is_none() && !groups.is_empty() {
            return Err(Error::Config(vec![
                "groups take the optimizer of the settings, and the trainer was given another one \
                 (with_optimizer): remove one of the two"
                    .to_string(),
            ]));
        }
        let places = assign(model, groups)?.into_iter();
        self.group_of = places.map(|(path, number)| (path, number + 1)).collect();
        let own = |group: &ParamGroup| TrainConfig {
            learning_rate: group.learning_rate.unwrap_or(config.learning_rate),
            weight_decay: group.weight_decay.unwrap_or(config.weight_decay),
            optim: group.optim.unwrap_or(config.optim),
            ..config.clone()
        };
        let made = |own: &TrainConfig| Group {
            rate: own.learning_rate / config.learning_rate,
            ..Group::from_config(own)
        };
        let settings: Vec<TrainConfig> = [config.clone()]
            .into_iter()
            .chain(groups.iter().map(own))
            .collect();
        self.groups = settings.iter().map(made).collect();
        let all = parameters(model).into_iter();
        let outer = all.filter(|parameter| {
            let outer = [ParamKind::Embedding, ParamKind::Head].contains(&parameter.kind);
            parameter.trains && outer
        });
        for parameter in outer {
            let group = self.group_of.get(&parameter.path).copied().unwrap_or(0);
            if settings[group].optim == Optim::Muon {
                let adamw = TrainConfig {
                    optim: Optim::AdamW,
                    ..settings[group].clone()
                };
                self.group_of.insert(parameter.path, self.groups.len());
                self.groups.push(made(&adamw));
            }
        }
        Ok(self)
    }
}

impl<O: Optimizer> OptimizerStates<O> {
    /// `matrices` updates parameters of rank 2 and more, `vectors` the others.
    pub fn new(matrices: O, vectors: O) -> Self {
        Self {
            groups: vec![Group {
                matrices,
                vectors,
                rate: 1.0,
            }],
            group_of: BTreeMap::new(),
            optim: None,
            with_scale: None,
            states: BTreeMap::new(),
        }
    }

    /// The optimizer's name, if the settings have one for it.
    pub fn optim(&self) -> Option<Optim> {
        self.optim
    }

    /// Updates every parameter that has a gradient. Gradients are multiplied by `scale` first, which
    /// divides by the count of a window and clips; [`AdamW`] does so in the pass of its update.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        gradients: GradientsParams,
        learning_rate: f64,
        scale: f64,
    ) -> M {
        struct Step<'a, O> {
            all: &'a mut OptimizerStates<O>,
            gradients: GradientsParams,
            learning_rate: f64,
            scale: f64,
        }
        impl<O: Optimizer> PathMapper for Step<'_, O> {
            fn map<const D: usize>(
                &mut self,
                path: &str,
                param: Param<Tensor<D>>,
            ) -> Param<Tensor<D>> {
                let Some(gradient) = self.gradients.remove::<D>(param.id) else {
                    return param;
                };
                let state = self.all.states.remove(path);
                let group = self.all.group_of(path);
                let (rate, optimizer) = (group.rate, group.of_rank(D).clone());
                let (optimizer, left) = match self.all.with_scale {
                    Some(with_scale) => (with_scale(optimizer, self.scale), None),
                    None => (optimizer, Some(self.scale)),
                };
                let mut next = None;
                let param = renew(param, |tensor| {
                    let state = state.map(|state| {
                        O::to_device::<D>(state.downcast::<O::State<D>>(), &tensor.device())
                    });
                    let gradient = match left {
                        Some(scale) => gradient.mul_scalar(scale),
                        None => gradient,
                    };
                    let (tensor, state) =
                        optimizer.step(self.learning_rate * rate, tensor, gradient, state);
                    next = state;
                    tensor
                });
                if let Some(state) = next {
                    let state = DynState::create(state, D);
                    self.all.states.insert(path.to_string(), state);
                }
                param
            }
        }
        let mut step = Step {
            all: self,
            gradients,
            learning_rate,
            scale,
        };
        module_path::map_params(model, &mut step)
    }

    /// Paths of the parameters that have a state: those that were updated at least once.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.states.keys().map(String::as_str)
    }

    /// Writes the states to a safetensors file: tensors as `<path>.<field>`, scalars in its metadata.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut sink = StateSink::default();
        for (path, state) in &self.states {
            (self.group_of(path).of_rank(state.rank())).state_flatten(path, state, &mut sink);
        }
        let mut metadata = HashMap::new();
        if let Some(optim) = self.optim {
            metadata.insert(OPTIM.to_string(), optim.to_string());
        }
        for (name, scalar) in sink.scalars {
            let value = u64::try_from(scalar)
                .map(Value::from)
                .or_else(|_| i64::try_from(scalar).map(Value::from))
                .or_else(|_| bool::try_from(scalar).map(Value::from))
                .or_else(|_| f64::try_from(scalar).map(Value::from));
            if let Ok(value) = value {
                metadata.insert(name, value.to_string());
            }
        }
        Ok(write_tensors(path, &sink.tensors, &metadata)?)
    }

    /// Reads the states of the parameters of `model` that require gradients.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or its states are not those of these parameters and this kind of
    /// optimizer.
    pub fn load<M: Module>(&mut self, path: &Path, model: &M) -> Result<()> {
        let mut metadata = read_metadata(path)?;
        let saved = metadata.remove(OPTIM).and_then(|name| name.parse().ok());
        if saved != self.optim {
            return Err(Error::OtherOptimizer {
                path: path.to_path_buf(),
                saved,
                here: self.optim,
            });
        }
        let tensors = read_tensors(path)?;
        let scalars = metadata.into_iter().filter_map(|(name, text)| {
            let value: Value = serde_json::from_str(&text).ok()?;
            let scalar = (value.as_u64().map(Into::into))
                .or_else(|| value.as_i64().map(Into::into))
                .or_else(|| value.as_bool().map(Into::into))
                .or_else(|| value.as_f64().map(Into::into))?;
            Some((name, scalar))
        });
        let mut load = Load::<O> {
            source: StateSource::new(scalars.collect()),
            left: tensors.keys().cloned().collect(),
            tensors,
            states: BTreeMap::new(),
            missing: Vec::new(),
            misshapen: Vec::new(),
            optimizer: std::marker::PhantomData,
        };
        module_path::visit_params(model, &mut load);
        if !(load.missing.is_empty() && load.left.is_empty() && load.misshapen.is_empty()) {
            return Err(Error::OtherParameters {
                path: path.to_path_buf(),
                missing: load.missing,
                unexpected: load.left.into_iter().collect(),
                misshapen: load.misshapen,
            });
        }
        self.states = load.states;
        Ok(())
    }

    fn group_of(&self, path: &str) -> &Group<O> {
        &self.groups[self.group_of.get(path).copied().unwrap_or(0)]
    }
}

/// Rebuilds the state of each parameter from the tensors and scalars under its path.
struct Load<O> {
    source: StateSource,
    tensors: BTreeMap<String, TensorData>,
    /// Names of the tensors that no state has claimed.
    left: BTreeSet<String>,
    states: BTreeMap<String, DynState>,
    missing: Vec<String>,
    misshapen: Vec<String>,
    optimizer: std::marker::PhantomData<O>,
}

impl<O: Optimizer> PathVisitor for Load<O> {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            return;
        }
        let value = param.val().inner();
        let under = format!("{path}.");
        let names: Vec<_> = (self.tensors.range(under.clone()..))
            .map(|(name, _)| name.clone())
            .take_while(|name| name.starts_with(&under))
            .collect();
        for name in &names {
            if let Some(data) = self.tensors.remove(name) {
                // Moments have their parameter's shape, or one number for each row or column; in 8 bits a code for each number.
                let fits = match name.rsplit('.').next() {
                    Some("codes") => data.num_elements() == value.shape().num_elements(),
                    Some("absmax") => true,
                    _ => data.shape().num_dims() != D || narrower(data.shape(), &value.shape()),
                };
                if !fits {
                    let (model, file) = (&value.shape()[..], &data.shape()[..]);
                    (self.misshapen).push(format!("{name} (model {model:?}, file {file:?})"));
                }
                self.source.insert_tensor(name.clone(), data);
            }
        }
        // A parameter that has never had a gradient has no state.
        if names.is_empty() && !self.source.has_under(path) {
            return;
        }
        match O::State::<D>::state_unflatten(path, &mut self.source, &value.device()) {
            Some(state) => {
                let mut sink = StateSink::default();
                state.state_flatten(path, &mut sink);
                for (name, _) in &sink.tensors {
                    self.left.remove(name);
                }
                self.states
                    .insert(path.to_string(), DynState::create(state, D));
            }
            None => self.missing.push(format!("the state of {path}")),
        }
    }

    fn visit_packed(&mut self, _: &str, _: &PackedParam) {}
}

/// Whether a state's shape is that of its parameter, up to dimensions of 1.
fn narrower(state: &Shape, parameter: &Shape) -> bool {
    let mut dims = state[..].iter().zip(&parameter[..]);
    dims.all(|(state, parameter)| state == parameter || *state == 1)
}
