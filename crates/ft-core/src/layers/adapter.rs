//! Adapters: small sets of tensors that change what a layer computes, by name.
//!
//! A layer has a list of them, and each has its tensors and a kind, which is the mathematics. A model's walk over its
//! [`Part`](crate::Part)s reaches all of them: switching, saving, merging and counting know no kinds.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use burn::module::{
    Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Bool, Device, Tensor};

use crate::layers::adapter_kind::AdapterKind;
use crate::layers::adapter_tensor::AdapterTensor;

/// What attached an adapter: the settings of its method, for the crate that knows them.
pub type Settings = Arc<dyn Any + Send + Sync>;

/// An adapter on one layer.
#[derive(Clone)]
pub struct Adapter {
    /// Its name, which it shares with its like on other layers; PEFT's first adapter is called `default`.
    pub name: String,
    /// Whether it takes part in the forward pass.
    pub active: bool,
    /// Dropout on what the adapter reads, while it trains.
    pub dropout: Dropout,
    /// Its tensors.
    pub tensors: Vec<AdapterTensor>,
    /// What attached it.
    pub settings: Settings,
    /// The rows of a batch that it acts on, `[batch]`; all without it. See [`with_rows`](crate::layers::with_rows).
    pub(crate) rows: Option<Tensor<1, Bool>>,
    kind: Arc<dyn AdapterKind>,
}

impl Adapter {
    /// An active adapter.
    ///
    /// # Panics
    ///
    /// If `dropout` is outside `[0, 1)`.
    pub fn new(
        name: &str,
        kind: Arc<dyn AdapterKind>,
        tensors: Vec<AdapterTensor>,
        dropout: f64,
        settings: Settings,
    ) -> Self {
        Self {
            name: name.to_string(),
            active: true,
            dropout: DropoutConfig::new(dropout).init(),
            tensors,
            settings,
            rows: None,
            kind,
        }
    }

    /// Whether it acts on some rows of a batch only.
    pub fn is_by_row(&self) -> bool {
        self.rows.is_some()
    }

    /// What `change` makes of `y`, in the rows that the adapter acts on; the others stay.
    ///
    /// `y` is `[batch, ...]`, or has the tokens of all rows one after the other.
    ///
    /// # Panics
    ///
    /// If the batch has another number of rows.
    pub(crate) fn on_its_rows<const D: usize>(
        &self,
        y: Tensor<D>,
        change: impl FnOnce(Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        let Some(rows) = &self.rows else {
            return change(y);
        };
        let (shape, [batch]) = (y.dims(), rows.dims());
        assert_eq!(
            shape[0] % batch,
            0,
            "adapters act on the rows of a batch of {batch}, which this is not: {shape:?}"
        );
        let tokens = rows
            .clone()
            .unsqueeze_dim::<2>(1)
            .expand([batch, shape[0] / batch]);
        let mut wide = [1; D];
        wide[0] = shape[0];
        let mask = tokens.reshape(wide).expand(shape);
        y.clone().mask_where(mask, change(y))
    }

    /// The mathematics.
    pub fn kind(&self) -> &dyn AdapterKind {
        &*self.kind
    }

    /// Other mathematics for the same tensors: another scale.
    pub fn set_kind(&mut self, kind: Arc<dyn AdapterKind>) {
        self.kind = kind;
    }

    /// Whether dropout acts on what the adapter reads: while training.
    pub fn drops_out(&self, x: &Tensor<2>) -> bool {
        self.dropout.prob > 0.0 && self.dropout.training.is_enabled() && x.device().is_autodiff()
    }

    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<&AdapterTensor> {
        self.tensors.iter().find(|tensor| tensor.name() == name)
    }

    /// The value of the tensor of a name, which has one dimension.
    ///
    /// # Panics
    ///
    /// If there is none, or it has another number of dimensions. So do the functions below.
    pub fn val1(&self, name: &str) -> Tensor<1> {
        self.find(name).val1()
    }

    /// The same with two dimensions.
    pub fn val2(&self, name: &str) -> Tensor<2> {
        self.find(name).val2()
    }

    /// The same with three dimensions.
    pub fn val3(&self, name: &str) -> Tensor<3> {
        self.find(name).val3()
    }

    /// The same with four dimensions.
    pub fn val4(&self, name: &str) -> Tensor<4> {
        self.find(name).val4()
    }

    /// Lets its tensors train, or not. A frozen adapter is a fixed function, without dropout.
    pub fn set_trainable(&mut self, trainable: bool) {
        for tensor in &mut self.tensors {
            tensor.set_trainable(trainable);
        }
        let dropout = self.dropout.clone();
        self.dropout = match trainable {
            true => dropout.unfreeze(),
            false => dropout.freeze(),
        };
    }

    fn find(&self, name: &str) -> &AdapterTensor {
        (self.get(name)).unwrap_or_else(|| panic!("adapter {:?} has no tensor {name}", self.name))
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (f.debug_struct("Adapter"))
            .field("name", &self.name)
            .field("active", &self.active)
            .field("kind", &self.kind)
            .field("tensors", &self.tensors)
            .finish_non_exhaustive()
    }
}

/// The adapters of a layer, in the order in which they were attached.
///
/// As a module its parameters have the paths `NAME.TENSOR`: `default.lora_A.weight`.
#[derive(Clone, Debug, Default)]
pub struct Adapters(Vec<Adapter>);

impl Adapters {
    /// Those that take part in the forward pass.
    pub fn active(&self) -> impl DoubleEndedIterator<Item = &Adapter> + Clone {
        self.0.iter().filter(|adapter| adapter.active)
    }

    /// The value of a tensor that an active adapter puts in place of the layer's own; the last one counts.
    pub(crate) fn replaced<T>(
        &self,
        of: impl Fn(&dyn AdapterKind, &Adapter) -> Option<T>,
    ) -> Option<T> {
        let of_all_rows = self.active().filter(|adapter| !adapter.is_by_row());
        of_all_rows
            .rev()
            .find_map(|adapter| of(adapter.kind(), adapter))
    }

    /// The same of the adapters that act on some rows only.
    pub(crate) fn replaced_by_row<'a, T: 'a>(
        &'a self,
        of: impl Fn(&dyn AdapterKind, &Adapter) -> Option<T> + 'a,
    ) -> impl Iterator<Item = (&'a Adapter, T)> + 'a {
        let by_row = self.active().filter(|adapter| adapter.is_by_row());
        by_row.filter_map(move |adapter| Some((adapter, of(adapter.kind(), adapter)?)))
    }

    /// The same with the masks of rows on this device.
    fn rows_on(mut self, device: &Device) -> Self {
        for adapter in &mut self.0 {
            adapter.rows = adapter.rows.take().map(|rows| rows.to_device(device));
        }
        self
    }
}

impl Deref for Adapters {
    type Target = Vec<Adapter>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Adapters {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Adapter {
    fn change(
        mut self,
        mut param: impl FnMut(AdapterTensor) -> AdapterTensor,
        dropout: impl FnOnce(Dropout) -> Dropout,
    ) -> Self {
        self.tensors = self.tensors.into_iter().map(&mut param).collect();
        self.dropout = dropout(self.dropout);
        self
    }
}

/// Applies a function of modules to every parameter of every adapter.
macro_rules! each {
    ($adapters:expr, $module:ident => $value:expr) => {{
        let adapters = $adapters.0.into_iter().map(|adapter| {
            adapter.change(
                |mut tensor| {
                    let $module = tensor.param;
                    tensor.param = $value;
                    tensor
                },
                |$module| $value,
            )
        });
        Adapters(adapters.collect())
    }};
}

const CONTAINER: &str = "Struct:Adapter";

impl Module for Adapters {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        let tensors = self.0.iter().flat_map(|adapter| &adapter.tensors);
        tensors.fold(devices, |devices, tensor| {
            tensor.param.collect_devices(devices)
        })
    }

    fn fork(self, device: &Device) -> Self {
        each!(self.rows_on(device), module => module.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        each!(self.rows_on(device), module => module.to_device(device))
    }

    fn train(self) -> Self {
        each!(self, module => module.train())
    }

    fn valid(&self) -> Self {
        each!(self.clone(), module => module.valid())
    }

    fn materialize(self) -> Self {
        each!(self, module => module.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for adapter in &self.0 {
            visitor.enter_module(&adapter.name, CONTAINER);
            for tensor in &adapter.tensors {
                visitor.enter_module(tensor.name(), CONTAINER);
                tensor.visit(visitor);
                visitor.exit_module(tensor.name(), CONTAINER);
            }
            visitor.enter_module("dropout", CONTAINER);
            adapter.dropout.visit(visitor);
            visitor.exit_module("dropout", CONTAINER);
            visitor.exit_module(&adapter.name, CONTAINER);
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let adapters = self.0.into_iter().map(|mut adapter| {
            mapper.enter_module(&adapter.name, CONTAINER);
            let tensors = adapter.tensors.into_iter().map(|mut tensor| {
                mapper.enter_module(tensor.name(), CONTAINER);
                tensor = tensor.map(mapper);
                mapper.exit_module(tensor.name(), CONTAINER);
                tensor
            });
            adapter.tensors = tensors.collect();
            mapper.enter_module("dropout", CONTAINER);
            adapter.dropout = adapter.dropout.map(mapper);
            mapper.exit_module("dropout", CONTAINER);
            mapper.exit_module(&adapter.name, CONTAINER);
            adapter
        });
        Self(adapters.collect())
    }
}

impl ModuleDisplayDefault for Adapters {
    fn content(&self, content: Content) -> Option<Content> {
        let content = (self.0.iter()).fold(content, |content, adapter| {
            let tensors: Vec<String> = (adapter.tensors.iter())
                .map(|tensor| format!("{} {:?}", tensor.name(), &tensor.shape()[..]))
                .collect();
            content.add(&adapter.name, &tensors.join(", "))
        });
        content.optional()
    }

    fn num_params(&self) -> usize {
        Module::num_params(self)
    }
}

impl ModuleDisplay for Adapters {}
