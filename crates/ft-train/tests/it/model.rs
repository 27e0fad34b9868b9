//! A small network with dropout and a frozen layer, data to learn, and ways to compare what was learnt.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData, activation};
use ft_core::LossSum;
use ft_core::module_path::{PathVisitor, visit_params};
use ft_data::Batches;
use ft_train::{
    Callback, ModelView, OnBatches, StepContext, StepRecord, StepResult, TrainConfig, Trainer,
    Verdict,
};

/// The CPU backend has one random generator for all threads, so runs with dropout take turns.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn device() -> Device {
    Device::default().autodiff()
}

#[derive(Module, Debug)]
pub(crate) struct Net {
    pub(crate) frozen: Linear,
    pub(crate) norm: LayerNorm,
    pub(crate) hidden: Linear,
    pub(crate) dropout: Dropout,
    pub(crate) out: Linear,
}

impl Net {
    /// The same weights whenever it is called.
    pub(crate) fn new(dropout: f64) -> Self {
        let device = device();
        let linear = |inputs: usize, outputs: usize, phase: f32| {
            let mut linear = LinearConfig::new(inputs, outputs).init(&device);
            linear.weight = Param::from_data(wave(phase, &[inputs, outputs]), &device);
            linear.bias = Some(Param::from_data(wave(phase + 0.5, &[outputs]), &device));
            linear
        };
        Self {
            frozen: linear(3, 6, 0.1).no_grad(),
            norm: LayerNormConfig::new(6).init(&device),
            hidden: linear(6, 8, 0.2),
            dropout: DropoutConfig::new(dropout).init(),
            out: linear(8, 1, 0.3),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.norm.forward(self.frozen.forward(x));
        let x = activation::tanh(self.hidden.forward(x));
        self.out.forward(self.dropout.forward(x))
    }
}

/// Numbers without a pattern that matters, in [-1, 1].
fn wave(phase: f32, shape: &[usize]) -> TensorData {
    let len: usize = shape.iter().product();
    let values: Vec<f32> = (0..len)
        .map(|i| (12.9898 * i as f32 + 78.233 * phase).sin())
        .collect();
    TensorData::new(values, shape.to_vec())
}

/// Rows to learn; `weights` says which rows count.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub(crate) x: Vec<[f32; 3]>,
    pub(crate) y: Vec<f32>,
    pub(crate) counts: Vec<bool>,
}

/// Rows in batches of given sizes, the same in each epoch but for their order.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    pub(crate) sizes: Vec<usize>,
    /// Rows that do not count.
    pub(crate) masked: Vec<usize>,
    /// A row whose target is not a number.
    pub(crate) poisoned: Option<usize>,
}

impl Data {
    pub(crate) fn of(sizes: &[usize]) -> Self {
        Self {
            sizes: sizes.to_vec(),
            masked: Vec::new(),
            poisoned: None,
        }
    }
}

impl Batches for Data {
    type Batch = Rows;

    fn len(&self, _epoch: usize) -> usize {
        self.sizes.len()
    }

    fn batch(&self, epoch: usize, index: usize) -> Rows {
        let start: usize = self.sizes[..index].iter().sum();
        let total: usize = self.sizes.iter().sum();
        let rows: Vec<usize> = (start..start + self.sizes[index])
            .map(|row| (row + 3 * epoch) % total)
            .collect();
        let x = |row: usize| {
            [
                row as f32 * 0.1,
                (row as f32).sin(),
                (row as f32 * 1.7).cos(),
            ]
        };
        let y = |row: usize| match self.poisoned == Some(row) {
            true => f32::NAN,
            false => (row as f32 * 0.9).sin(),
        };
        Rows {
            x: rows.iter().map(|&row| x(row)).collect(),
            y: rows.iter().map(|&row| y(row)).collect(),
            counts: rows.iter().map(|row| !self.masked.contains(row)).collect(),
        }
    }
}

/// The squared error, summed over the rows that count.
pub(crate) fn squared_error(model: &Net, rows: &Rows, context: &StepContext) -> StepResult {
    Ok(squared_error_sum(model, rows, &context.device).into())
}

pub(crate) fn squared_error_sum(model: &Net, rows: &Rows, device: &Device) -> LossSum {
    let len = rows.y.len();
    let x: Vec<f32> = rows.x.iter().flatten().copied().collect();
    let x = Tensor::<2>::from_data(TensorData::new(x, [len, 3]), device);
    let y = Tensor::<2>::from_data(TensorData::new(rows.y.clone(), [len, 1]), device);
    let counts: Vec<f32> = rows
        .counts
        .iter()
        .map(|&c| f32::from(u8::from(c)))
        .collect();
    let counts = Tensor::<2>::from_data(TensorData::new(counts, [len, 1]), device);
    let error = (model.forward(x) - y).square() * counts;
    LossSum {
        sum: error.sum(),
        count: rows.counts.iter().filter(|&&counts| counts).count(),
    }
}

pub(crate) fn quiet(config: TrainConfig) -> TrainConfig {
    TrainConfig {
        progress: false,
        ..config
    }
}

pub(crate) fn trainer<'a>(
    config: TrainConfig,
    data: Data,
) -> Trainer<'a, Net, OnBatches<'a, Net, Rows>> {
    Trainer::new(quiet(config), data, squared_error)
}

/// Every parameter by path.
pub(crate) fn parameters(model: &impl Module) -> BTreeMap<String, Vec<f32>> {
    struct Collect(BTreeMap<String, Vec<f32>>);
    impl PathVisitor for Collect {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            let values = param.val().into_data().iter::<f32>().collect();
            self.0.insert(path.to_string(), values);
        }
    }
    let mut collect = Collect(BTreeMap::new());
    visit_params(model, &mut collect);
    collect.0
}

/// The largest difference between two models.
pub(crate) fn distance(a: &Net, b: &Net) -> f32 {
    let (a, b) = (parameters(a), parameters(b));
    assert!(a.keys().eq(b.keys()));
    let pairs = a.values().flatten().zip(b.values().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Ends the run at once after a step, as a kill would.
pub(crate) struct KillAfter(pub(crate) usize);

impl<M> Callback<M> for KillAfter {
    fn on_step(&mut self, _: &ModelView<'_, M>, record: &StepRecord) -> Verdict {
        if record.step == self.0 {
            return Err("killed".into());
        }
        Ok(ControlFlow::Continue(()))
    }
}
