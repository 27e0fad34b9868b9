//! AdaLoRA's training (Zhang et al., 2023, arXiv:2303.10512): which ranks of which layers are kept.
//!
//! The sensitivity of a number is `I = |w·∂L/∂w|` (equation 8), smoothed to `Ī` with β₁, its uncertainty `|I − Ī|`, smoothed
//! to `Ū` with β₂, and its score `Ī·Ū` (equations 9 to 11). A rank of a layer scores the score of its singular value plus
//! the mean scores of its two vectors (equation 7). Of all layers together, as many ranks as the budget allows are kept,
//! those with the highest scores. The others get a singular value of zero (equation 6), and can be kept again until the last
//! allocation.
//!
//! Order and rounding are PEFT's, so that both keep the same ranks. PEFT fails if nothing is to be removed yet. Here
//! all ranks are kept.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use ft_core::Parts;
use ft_core::layers::{Adapter, AdapterTensor, AnyParam, Settings};
use ft_core::safetensors_folder::{read_tensors, write_tensors};

use crate::adapter_files::unfit;
use crate::method::Origin;
use crate::methods::adalora::{A, AdaLoraConfig, B, E, pattern_name};
use crate::switch::adapter_config;
use crate::{Error, Method, Pattern, Result};

/// Distributes ranks over the layers of an AdaLoRA adapter.
///
/// In every step [`observe`](Self::observe) is called with the gradients, and [`allocate`](Self::allocate) after the
/// update. [`trim`](Self::trim) removes the ranks that were not kept, before saving.
#[derive(Clone, Debug)]
pub struct RankAllocator {
    name: String,
    config: AdaLoraConfig,
    /// Ranks of all layers, and how many of them are kept at the end.
    budgets: (usize, usize),
    /// The shapes of all tensors.
    shapes: BTreeMap<Key, [usize; 2]>,
    /// Where averages are kept.
    device: Device,
    /// `Ī` and `Ū` by layer and tensor.
    averages: BTreeMap<Key, [Tensor<2>; 2]>,
    /// Gradients of the step that is being taken.
    gradients: Option<HashMap<Key, Tensor<2>>>,
    /// Which ranks of a layer were kept at the last allocation.
    kept: BTreeMap<String, Vec<bool>>,
}

/// The path of a layer, and the name of a tensor.
type Key = (String, String);

impl RankAllocator {
    /// An allocator for the adapter called `name`.
    ///
    /// # Errors
    ///
    /// If there is no such adapter, it is not of AdaLoRA, or its ranks were removed already.
    pub fn new(model: &impl Parts, name: &str) -> Result<Self> {
        let method: Box<dyn std::any::Any> = adapter_config(model, name)?.boxed();
        let config = method.downcast::<AdaLoraConfig>().map_err(|_| {
            Error::Settings(format!(
                "adapter {name:?} is not of AdaLoRA: its ranks are not allocated"
            ))
        })?;
        if !config.rank_pattern.is_empty() {
            return Err(Error::Settings(format!(
                "the ranks of adapter {name:?} are final (rank_pattern): train it without an allocator"
            )));
        }
        if let Some(reason) = config.refuses(Origin::New) {
            return Err(Error::Settings(reason));
        }
        let (mut ranks, mut layers) = (0, 0);
        let (mut shapes, mut device) = (BTreeMap::new(), Device::default());
        for_each_layer(model, name, &mut |path, adapter| {
            for tensor in &adapter.tensors {
                shapes.insert(key(path, tensor), tensor.val2().dims());
            }
            let values = plain(adapter.val2(E));
            ranks += values.dims()[0];
            layers += 1;
            device = values.device();
        });
        Ok(Self {
            name: name.to_string(),
            budgets: (ranks, config.target_r * layers),
            shapes,
            device,
            config: *config,
            averages: BTreeMap::new(),
            gradients: None,
            kept: BTreeMap::new(),
        })
    }

    /// The settings of the adapter.
    pub fn config(&self) -> &AdaLoraConfig {
        &self.config
    }

    /// Which ranks were kept at the last allocation, by the path of the layer; empty before the first one.
    pub fn kept(&self) -> &BTreeMap<String, Vec<bool>> {
        &self.kept
    }

    /// Keeps the gradients of a step. To be called before the update. `gradient` returns the gradient of the mean loss with
    /// respect to a parameter, if it has one.
    pub fn observe(
        &mut self,
        model: &impl Parts,
        gradient: impl Fn(&Param<Tensor<2>>) -> Option<Tensor<2>>,
    ) {
        let mut gradients = HashMap::new();
        for_each_layer(model, &self.name, &mut |path, adapter| {
            for tensor in &adapter.tensors {
                if let AnyParam::D2(param) = tensor.param()
                    && let Some(gradient) = gradient(param)
                {
                    gradients.insert(key(path, tensor), gradient);
                }
            }
        });
        self.gradients = Some(gradients);
    }

    /// Updates the importance of all ranks, and zeroes the singular values of those that are not kept at `step` of the
    /// schedule. To be called after each update; `step` is the number of updates so far.
    ///
    /// # Errors
    ///
    /// If the step needs gradients that were not [observed](Self::observe).
    pub fn allocate(&mut self, model: &mut impl Parts, step: usize) -> Result<()> {
        let last = self.config.last_allocation();
        let gradients = self.gradients.take();
        if step < last {
            self.update(model, gradients.unwrap_or_default())?;
        }
        if let Some(budget) = self.budget_at(step) {
            if self.averages.is_empty() {
                return Err(Error::Settings(format!(
                    "ranks are allocated in step {step}, before any gradients were observed: the steps must be counted \
                     from 1, without gaps"
                )));
            }
            self.kept = self.choose(budget);
        }
        if step == last {
            self.averages.clear();
        }
        if step >= last || self.budget_at(step).is_some() {
            self.mask(model);
        }
        Ok(())
    }

    /// How many ranks are kept at a step; none if there is no allocation in it.
    ///
    /// With `t` steps of `n` between the first and the last allocation: `⌊(b₀ − b₁)(1 − t/n)³ + b₁⌋` (equation 12).
    fn budget_at(&self, step: usize) -> Option<usize> {
        let (first, last) = (self.config.tinit, self.config.last_allocation());
        let (all, target) = self.budgets;
        let due = step > first && step < last && step.is_multiple_of(self.config.delta_t);
        if step == last {
            Some(target)
        } else if due {
            let left = 1.0 - (step - first) as f64 / (last - first) as f64;
            Some(((all - target) as f64 * left.powf(3.0) + target as f64) as usize)
        } else {
            None
        }
    }

    fn update(&mut self, model: &impl Parts, gradients: HashMap<Key, Tensor<2>>) -> Result<()> {
        let (beta1, beta2) = (self.config.beta1, self.config.beta2);
        let mut missing = None;
        for_each_layer(model, &self.name, &mut |path, adapter| {
            for tensor in &adapter.tensors {
                let key = key(path, tensor);
                let Some(gradient) = gradients.get(&key) else {
                    missing.get_or_insert(key);
                    continue;
                };
                let sensitivity = (plain(tensor.val2()) * gradient.clone()).abs();
                let zero = || [sensitivity.zeros_like(), sensitivity.zeros_like()];
                let [mean, uncertainty] = self.averages.remove(&key).unwrap_or_else(zero);
                let mean = mean * beta1 + sensitivity.clone() * (1.0 - beta1);
                let off = (sensitivity - mean.clone()).abs();
                let uncertainty = uncertainty * beta2 + off * (1.0 - beta2);
                self.averages.insert(key, [mean, uncertainty]);
            }
        });
        match missing {
            None => Ok(()),
            Some((path, tensor)) => Err(Error::Settings(format!(
                "the allocation of ranks needs the gradient of {path}.{tensor}: call observe before each update, with \
                 an adapter that trains"
            ))),
        }
    }

    /// The ranks with the highest scores, as many as the budget allows. Ranks with the same score as the best one that is
    /// removed are removed too.
    fn choose(&self, budget: usize) -> BTreeMap<String, Vec<bool>> {
        let score = |path: &str, name: &str| {
            let [mean, uncertainty] = &self.averages[&(path.to_string(), name.to_string())];
            mean.clone() * uncertainty.clone()
        };
        let paths = self.averages.keys().map(|(path, _)| path.clone());
        let scores: BTreeMap<String, Vec<f32>> = paths
            .map(|path| {
                let vectors = score(&path, A).mean_dim(1) + score(&path, B).mean_dim(0).transpose();
                let scores = (score(&path, E) + vectors).into_data();
                (path, scores.iter::<f32>().collect())
            })
            .collect();
        let mut all: Vec<f32> = scores.values().flatten().copied().collect();
        all.sort_by(f32::total_cmp);
        let removed = all.len().saturating_sub(budget);
        let threshold = removed.checked_sub(1).map(|place| all[place]);
        let kept = |score: &f32| threshold.is_none_or(|threshold| *score > threshold);
        scores
            .into_iter()
            .map(|(path, scores)| (path, scores.iter().map(kept).collect()))
            .collect()
    }

    /// Zeroes the singular values of the ranks that are not kept.
    fn mask(&self, model: &mut impl Parts) {
        model.for_each_part_mut(&mut |path, mut part| {
            let Some(kept) = self.kept.get(path) else {
                return;
            };
            for adapter in part
                .adapters()
                .iter_mut()
                .filter(|adapter| adapter.name == self.name)
            {
                for values in adapter
                    .tensors
                    .iter_mut()
                    .filter(|tensor| tensor.name() == E)
                {
                    let data = values.data();
                    let masked = data
                        .iter::<f32>()
                        .zip(kept)
                        .map(|(x, kept)| if *kept { x } else { 0.0 });
                    values.set(TensorData::new(masked.collect(), data.shape().clone()));
                }
            }
        });
    }

    /// The model with only the ranks that have an effect, which computes the same: those that were kept at the last allocation,
    /// and others whose singular value is not zero, as in a model of an earlier step. The settings of its adapter list them
    /// (`rank_pattern`), as in a file of PEFT. Without an allocation so far the model is not changed.
    ///
    /// A warning says if more ranks are left than `target_r` allows.
    pub fn trim<M: Module + Parts>(&self, model: M) -> M {
        if self.kept.is_empty() {
            return model;
        }
        let mut model = model;
        let mut stay: BTreeMap<String, Vec<bool>> = BTreeMap::new();
        for_each_layer(&model, &self.name, &mut |path, adapter| {
            if let (Some(kept), Some(values)) = (self.kept.get(path), adapter.get(E)) {
                let values = values.data();
                let both = kept.iter().zip(values.iter::<f32>());
                let stays = both.map(|(kept, value)| *kept || value != 0.0).collect();
                stay.insert(path.to_string(), stays);
            }
        });
        let left = stay.values().flatten().filter(|stays| **stays).count();
        if left > self.budgets.1 {
            tracing::warn!(
                "adapter {:?} keeps {left} ranks, and target_r allows {}: the model is that of a step before the last \
                 allocation, which follows from total_step and tfinal",
                self.name,
                self.budgets.1
            );
        }
        let pattern: Pattern<Vec<bool>> = stay
            .iter()
            .map(|(path, stays)| (pattern_name(path), stays.clone()))
            .collect();
        let mut config = self.config.clone();
        config.rank_pattern = pattern;
        let method: Arc<dyn Method> = Arc::new(config);
        let settings: Settings = Arc::new(method);
        model.for_each_part_mut(&mut |path, mut part| {
            for adapter in part
                .adapters()
                .iter_mut()
                .filter(|adapter| adapter.name == self.name)
            {
                if let Some(stays) = stay.get(path).filter(|_| adapter.get(E).is_some()) {
                    trim(adapter, stays);
                }
                adapter.settings = settings.clone();
            }
        });
        model
    }

    /// Writes the state that is needed to resume training.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save(&self, file: &Path) -> Result<()> {
        let mut tensors = Vec::new();
        for ((path, tensor), averages) in &self.averages {
            for (name, average) in AVERAGES.iter().zip(averages) {
                tensors.push((format!("{name}.{path}.{tensor}"), average.to_data()));
            }
        }
        for (path, kept) in &self.kept {
            let kept: Vec<f32> = kept.iter().map(|kept| f32::from(u8::from(*kept))).collect();
            let count = kept.len();
            tensors.push((format!("{KEPT}.{path}"), TensorData::new(kept, [count])));
        }
        Ok(write_tensors(file, &tensors, &HashMap::new())?)
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is of an adapter with other layers or ranks.
    pub fn restore(&mut self, file: &Path) -> Result<()> {
        let mut tensors = read_tensors(file)?;
        let has = |what: &str| tensors.keys().any(|name| name.starts_with(what));
        let (averaged, allocated) = (has(AVERAGES[0]), has(KEPT));
        let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
        let mut take = |name: String, shape: &[usize]| match tensors.remove(&name) {
            Some(data) if data.shape()[..] == *shape => Some(data),
            Some(data) => {
                let found = &data.shape()[..];
                misshapen.push(format!("{name} (model {shape:?}, file {found:?})"));
                None
            }
            None => {
                missing.push(name);
                None
            }
        };
        let (mut averages, mut kept) = (BTreeMap::new(), BTreeMap::new());
        for (key, shape) in &self.shapes {
            let (path, tensor) = key;
            if averaged {
                let found = AVERAGES.map(|name| take(format!("{name}.{path}.{tensor}"), shape));
                if let [Some(mean), Some(uncertainty)] = found {
                    let both = [mean, uncertainty];
                    let both = both.map(|data| Tensor::from_data(data, &self.device));
                    averages.insert(key.clone(), both);
                }
            }
            if allocated
                && tensor == E
                && let Some(data) = take(format!("{KEPT}.{path}"), &shape[..1])
            {
                let flags = data.iter::<f32>().map(|kept| kept == 1.0);
                kept.insert(path.clone(), flags.collect());
            }
        }
        match unfit(file, missing, tensors.into_keys().collect(), misshapen) {
            Some(error) => Err(error),
            None => {
                (self.averages, self.kept) = (averages, kept);
                Ok(())
            }
        }
    }
}

const AVERAGES: [&str; 2] = ["sensitivity", "uncertainty"];
const KEPT: &str = "kept";

fn key(path: &str, tensor: &AdapterTensor) -> Key {
    (path.to_string(), tensor.name().to_string())
}

/// Shows the layers that have ranks. Copies of weights and biases, and rows of tokens, are under the adapter's name too.
fn for_each_layer(model: &impl Parts, name: &str, visit: &mut dyn FnMut(&str, &Adapter)) {
    model.for_each_part(&mut |path, part| {
        for adapter in part
            .adapters()
            .iter()
            .filter(|adapter| adapter.name == name && adapter.get(E).is_some())
        {
            visit(path, adapter);
        }
    });
}

/// The value outside the graph.
fn plain(value: Tensor<2>) -> Tensor<2> {
    match value.device().is_autodiff() {
        true => value.inner(),
        false => value,
    }
}

/// Removes ranks of one layer.
fn trim(adapter: &mut Adapter, kept: &[bool]) {
    let trains =
        matches!(adapter.tensors[0].param(), AnyParam::D2(param) if param.is_require_grad());
    let places = || {
        kept.iter()
            .enumerate()
            .filter(|(_, kept)| **kept)
            .map(|(place, _)| place)
    };
    for tensor in &mut adapter.tensors {
        let (data, device) = (tensor.data(), tensor.val2().device());
        let [rows, columns] = [data.shape()[0], data.shape()[1]];
        let numbers: Vec<f32> = data.iter().collect();
        let (numbers, shape) = match tensor.name() {
            B => {
                let row = |row: usize| places().map(move |place| row * columns + place);
                let chosen: Vec<f32> = (0..rows).flat_map(row).map(|i| numbers[i]).collect();
                let count = places().count();
                (chosen, [rows, count])
            }
            _ => {
                let row = |row: usize| row * columns..(row + 1) * columns;
                let chosen: Vec<f32> = places().flat_map(row).map(|i| numbers[i]).collect();
                let count = places().count();
                (chosen, [count, columns])
            }
        };
        let value = Tensor::<2>::from_data(TensorData::new(numbers, shape), &device);
        *tensor = AdapterTensor::new(tensor.name(), value);
    }
    adapter.set_trainable(trains);
}

/// How far the singular vectors of an AdaLoRA adapter are from orthogonal: the mean over all `A` and `B` of `‖AAᵀ − I‖_F`
/// and `‖BᵀB − I‖_F` (equation 4, with norms in place of their squares, as in PEFT). Training adds it to the loss,
/// with the weight `orth_reg_weight`.
///
/// # Errors
///
/// If there is no adapter of this name, or it has no ranks.
pub fn orthogonality(model: &impl Parts, name: &str) -> Result<Tensor<1>> {
    crate::switch::check_known(model, &[name])?;
    let mut distances = Vec::new();
    for_each_layer(model, name, &mut |_, adapter| {
        for tensor in &adapter.tensors {
            let product = |rows: Tensor<2>| rows.clone().matmul(rows.transpose());
            let product = match tensor.name() {
                A => product(tensor.val2()),
                B => product(tensor.val2().transpose()),
                _ => continue,
            };
            let r = product.dims()[0];
            if r > 0 {
                let off = product.clone() - Tensor::eye(r, &product.device());
                distances.push(off.square().sum().sqrt());
            }
        }
    });
    match distances.is_empty() {
        true => Err(Error::Settings(format!(
            "adapter {name:?} has no singular vectors"
        ))),
        false => Ok(Tensor::cat(distances, 0).mean()),
    }
}
