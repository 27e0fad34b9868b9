//! AdamW as an optimizer of Burn's: [`ft_kernels::adamw`] with its states.
//!
//! In 8 bits, parameters of fewer than 4096 numbers keep moments in `f32`, as in bitsandbytes: they
//! weigh nothing, and norms and biases are among them.

use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{DType, Device, Int, Tensor};
use ft_kernels::{AdamWStep, BLOCK, Blockwise, adamw, adamw_8bit};

use crate::{Optim, TrainConfig};

/// Parameters of fewer numbers than this keep moments in `f32`.
const MIN_8BIT_SIZE: usize = 4096;

/// AdamW (Loshchilov and Hutter, 2017, arXiv:1711.05101), moments in `f32` or in a byte each.
#[derive(Clone, Debug)]
pub struct AdamW {
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    in_8_bits: bool,
    scale: f64,
}

impl AdamW {
    /// As `config` has it.
    pub fn new(config: &TrainConfig) -> Self {
        Self {
            betas: config.betas,
            eps: config.eps,
            weight_decay: config.weight_decay,
            in_8_bits: config.optim == Optim::AdamW8bit,
            scale: 1.0,
        }
    }

    /// With another weight decay.
    #[must_use]
    pub fn with_weight_decay(self, weight_decay: f64) -> Self {
        Self {
            weight_decay,
            ..self
        }
    }

    /// With a factor that gradients are multiplied by on the way.
    #[must_use]
    pub fn with_scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// Moments of zero.
    fn moments<const D: usize>(&self, param: &Tensor<D>) -> Moments<D> {
        let (device, shape) = (param.device(), param.shape());
        let numbers = shape.num_elements();
        if self.in_8_bits && numbers >= MIN_8BIT_SIZE {
            Moments::Bytes([(); 2].map(|()| Blockwise::zeros(numbers, &device)))
        } else {
            Moments::Floats([(); 2].map(|()| Tensor::zeros(shape.clone(), (&device, DType::F32))))
        }
    }
}

/// The state of [`AdamW`] for one parameter.
#[derive(Clone, Debug)]
pub struct AdamWState<const D: usize> {
    /// How many steps were taken.
    step: usize,
    moments: Moments<D>,
}

// A few hundred bytes beside the numbers of a parameter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
enum Moments<const D: usize> {
    Floats([Tensor<D>; 2]),
    Bytes([Blockwise; 2]),
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let state = state.unwrap_or_else(|| AdamWState {
            step: 0,
            moments: self.moments(&tensor),
        });
        let step = AdamWStep {
            number: state.step + 1,
            learning_rate: lr,
            betas: self.betas,
            eps: self.eps,
            weight_decay: self.weight_decay,
            scale: self.scale,
        };
        let (tensor, moments) = match state.moments {
            Moments::Floats(moments) => {
                let (tensor, moments) = adamw(tensor, grad, moments, &step);
                (tensor, Moments::Floats(moments))
            }
            Moments::Bytes(moments) => {
                let (tensor, moments) = adamw_8bit(tensor, grad, moments, &step);
                (tensor, Moments::Bytes(moments))
            }
        };
        let state = AdamWState {
            step: step.number,
            moments,
        };
        (tensor, Some(state))
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        let moments = match state.moments {
            Moments::Floats(moments) => Moments::Floats(moments.map(|m| m.to_device(device))),
            Moments::Bytes(moments) => Moments::Bytes(moments.map(|m| Blockwise {
                codes: m.codes.to_device(device),
                absmax: m.absmax.to_device(device),
            })),
        };
        AdamWState { moments, ..state }
    }
}

/// Names of the moments in a file; in 8 bits with `.codes` and `.absmax`.
const MOMENTS: [&str; 2] = ["moment_1", "moment_2"];

impl<const D: usize> RecordState for AdamWState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_scalar(prefix, "step", self.step.into());
        match &self.moments {
            Moments::Floats(moments) => {
                for (name, moment) in MOMENTS.into_iter().zip(moments) {
                    out.push_tensor(prefix, name, moment.clone().into_data());
                }
            }
            Moments::Bytes(moments) => {
                for (name, moment) in MOMENTS.into_iter().zip(moments) {
                    let (codes, absmax) = (moment.codes.clone(), moment.absmax.clone());
                    out.push_tensor(prefix, &format!("{name}.codes"), codes.into_data());
                    out.push_tensor(prefix, &format!("{name}.absmax"), absmax.into_data());
                }
            }
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let step = src.take_scalar(prefix, "step")?.try_into().ok()?;
        let [first, second] = MOMENTS;
        let moments = match src.take_tensor(prefix, first) {
            Some(data) => {
                let others = src.take_tensor(prefix, second)?;
                if data.shape() != others.shape() || data.shape().num_dims() != D {
                    return None;
                }
                let float = |data| Tensor::from_data(data, (device, DType::F32));
                Moments::Floats([float(data), float(others)])
            }
            None => {
                let first = take_bytes(prefix, first, src, device)?;
                let second = take_bytes(prefix, second, src, device)?;
                Moments::Bytes([first, second])
            }
        };
        Some(Self { step, moments })
    }
}

/// A moment in 8 bits, unless it is absent or not whole.
fn take_bytes(
    prefix: &str,
    name: &str,
    src: &mut StateSource,
    device: &Device,
) -> Option<Blockwise> {
    let codes = src.take_tensor(prefix, &format!("{name}.codes"))?;
    let absmax = src.take_tensor(prefix, &format!("{name}.absmax"))?;
    let fits = codes.dtype() == DType::U8
        && codes.shape().num_dims() == 1
        && absmax.shape()[..] == [codes.num_elements().div_ceil(BLOCK)];
    fits.then(|| Blockwise {
        codes: Tensor::<1, Int>::from_data(codes, (device, DType::U8)),
        absmax: Tensor::from_data(absmax, (device, DType::F32)),
    })
}
