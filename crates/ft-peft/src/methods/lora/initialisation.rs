//! How the factors of LoRA begin.
//!
//! Some begin as a part of the base weight. PEFT subtracts that part from the base weight; here the base does not change,
//! and the adapter subtracts the part: see [`Lora`](super::low_rank::Lora). Both compute the same, but here the model with
//! the adapter switched off is the base. The part is not saved: it is computed again from the base, as in PEFT.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::linalg::{self, Matrix, Singular};
use crate::method::{Draw, Origin, Site};
use crate::{Error, Result};

/// How the factors are initialized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitLoraWeights {
    /// `A` uniform in `±1/√in_features` (Kaiming with a = √5), `B` zero: PEFT's default, `true`.
    #[default]
    Kaiming,
    /// The same, and `B` uniform in `±1/√r`: a new adapter changes what the model computes. PEFT's `false`.
    Random,
    /// `A` normal with standard deviation `1/r`, `B` zero.
    Gaussian,
    /// Rows of `A` and columns of `B` from two halves of an orthogonal matrix, so that `BA` is zero though neither factor
    /// is. The rank is even.
    Orthogonal,
    /// The part of the base weight with the `r` largest singular values (PiSSA; Meng et al., 2024, arXiv:2404.02948).
    Pissa,
    /// The same by so many iterations of a random block: faster for large matrices, and not repeatable from the base
    /// alone, so that the adapter is saved as plain LoRA. `pissa_niter_16`.
    PissaNiter(usize),
    /// The base weight projected on its first `r` columns (OLoRA; Büyükakyüz, 2024, arXiv:2406.01775).
    Olora,
    /// `A` from the inputs of the layers, `B` zero: [`eva_initialise`](crate::eva_initialise) makes such an adapter.
    Eva,
    /// The part of the base weight that is lost when it is rounded to few bits (LoftQ; Li et al., 2023, arXiv:2310.08659):
    /// `ft::loftq_initialise` makes such an adapter together with the rounded base.
    Loftq,
    /// `B` the left singular vectors with the smallest values, which stay as they are, and `A` zero (MiCA,
    /// arXiv:2604.01694).
    Mica,
}

const PISSA_NITER: &str = "pissa_niter_";

impl Serialize for InitLoraWeights {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        let name = match self {
            Self::Kaiming => return serializer.serialize_bool(true),
            Self::Random => return serializer.serialize_bool(false),
            Self::PissaNiter(iterations) => {
                return serializer.serialize_str(&format!("{PISSA_NITER}{iterations}"));
            }
            Self::Gaussian => "gaussian",
            Self::Orthogonal => "orthogonal",
            Self::Pissa => "pissa",
            Self::Olora => "olora",
            Self::Eva => "eva",
            Self::Loftq => "loftq",
            Self::Mica => "mica",
        };
        serializer.serialize_str(name)
    }
}

impl<'de> Deserialize<'de> for InitLoraWeights {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        let error = serde::de::Error::custom;
        let name = match Value::deserialize(deserializer)? {
            Value::Bool(true) => return Ok(Self::Kaiming),
            Value::Bool(false) => return Ok(Self::Random),
            Value::String(name) => name.to_ascii_lowercase(),
            other => return Err(error(format!("must be true, false or a name, not {other}"))),
        };
        if let Some(iterations) = name.strip_prefix(PISSA_NITER) {
            let iterations = iterations.parse().map_err(|_| {
                error(format!(
                    "{PISSA_NITER} is followed by a number of iterations, not {iterations:?}"
                ))
            })?;
            return Ok(Self::PissaNiter(iterations));
        }
        match name.as_str() {
            "gaussian" => Ok(Self::Gaussian),
            "orthogonal" => Ok(Self::Orthogonal),
            "pissa" => Ok(Self::Pissa),
            "olora" => Ok(Self::Olora),
            "eva" => Ok(Self::Eva),
            "mica" => Ok(Self::Mica),
            "loftq" => Ok(Self::Loftq),
            _ => Err(error(format!(
                "it is not supported; there are: true, false, gaussian, orthogonal, pissa, {PISSA_NITER}N, olora, eva, \
                 loftq, mica. An adapter of PEFT may need a changed base: {CONVERT}"
            ))),
        }
    }
}

/// How to get a file that does not need a changed base.
const CONVERT: &str =
    "save it from PEFT with path_initial_model_for_weight_conversion, which makes it plain LoRA";

/// The factors of a new adapter.
pub(super) struct Start {
    pub(super) a: Tensor<2>,
    pub(super) b: Tensor<2>,
    /// Whether `s·BA` is a part of the base weight.
    pub(super) of_base: bool,
}

impl InitLoraWeights {
    /// Why an adapter of this kind cannot be made or read.
    pub(super) fn refuses(self, origin: Origin) -> Option<String> {
        match (self, origin) {
            (Self::Eva, Origin::New) => Some(
                "init_lora_weights = eva begins from the inputs of the layers: make the adapter with eva_initialise".into(),
            ),
            (Self::Loftq, Origin::New) => Some(
                "init_lora_weights = loftq begins from what rounding the base loses: make the adapter with \
                 ft::loftq_initialise, which rounds the base too"
                    .into(),
            ),
            (Self::Loftq, Origin::File) => Some(
                "init_lora_weights = loftq: the adapter belongs to the base that LoftQ rounded, which the file does not have. \
                 Save that base from PEFT, set init_lora_weights to true in adapter_config.json, and load the adapter on it"
                    .into(),
            ),
            (Self::PissaNiter(_), Origin::File) => Some(format!(
                "init_lora_weights = {PISSA_NITER}N subtracted a part from the base weight that depends on PyTorch's \
                 random numbers: {CONVERT}"
            )),
            _ => None,
        }
    }

    /// What is wrong with a rank.
    pub(super) fn mistake(self, r: usize) -> Option<String> {
        let odd = self == Self::Orthogonal && !r.is_multiple_of(2);
        odd.then(|| format!("init_lora_weights = orthogonal needs an even r, not {r}"))
    }

    /// Whether the part of the base weight cannot be computed again, since it depends on random numbers.
    pub(super) fn is_random_part(self) -> bool {
        matches!(self, Self::PissaNiter(_))
    }

    /// Whether the adapter subtracts a part of the base weight that does not depend on the scale.
    pub(super) fn is_principal_part(self) -> bool {
        matches!(self, Self::Pissa | Self::PissaNiter(_))
    }

    /// `A` `[r, in_features]` and `B` `[out_features, r]`.
    pub(super) fn factors(
        self,
        site: &Site<'_>,
        r: usize,
        scaling: f64,
        draw: &mut Draw<'_>,
    ) -> Result<Start> {
        let features = site.features();
        let (inputs, outputs) = (features.inputs, features.outputs);
        let plain = |a, b| Start {
            a,
            b,
            of_base: false,
        };
        if site.loaded && !matches!(self, Self::Pissa | Self::PissaNiter(_) | Self::Olora) {
            return Ok(plain(draw.zeros([r, inputs]), draw.zeros([outputs, r])));
        }
        let bound = 1.0 / (inputs as f64).sqrt();
        Ok(match self {
            Self::Kaiming | Self::Eva | Self::Loftq => {
                plain(draw.uniform([r, inputs], bound), draw.zeros([outputs, r]))
            }
            Self::Random => {
                let a = draw.uniform([r, inputs], bound);
                plain(a, draw.uniform([outputs, r], 1.0 / (r as f64).sqrt()))
            }
            Self::Gaussian => plain(
                draw.normal([r, inputs], 1.0 / r as f64),
                draw.zeros([outputs, r]),
            ),
            Self::Orthogonal => {
                let halves = Matrix::random(r, r, draw.rng).orthonormal();
                let half = |odd: usize| Matrix::of_rows(r, halves.all_rows().skip(odd).step_by(2));
                let times = |draw: &mut Draw<'_>, count, odd| {
                    Matrix::random(count, r / 2, draw.rng)
                        .times(&half(odd))
                        .scaled(0.1)
                };
                let a = times(draw, inputs, 0).transposed();
                let b = times(draw, outputs, 1);
                plain(a.tensor(&draw.device), b.tensor(&draw.device))
            }
            Self::Pissa | Self::PissaNiter(_) | Self::Olora | Self::Mica => {
                let smaller = inputs.min(outputs);
                if r > smaller {
                    return Err(Error::Settings(format!(
                        "r = {r} is more than the weight of {} has, {smaller}: init_lora_weights takes the factors from it",
                        site.path
                    )));
                }
                let weight = Matrix::of(site.linear()?.matrix().inner());
                let (a, b) = self.of_weight(&weight, r, scaling, draw);
                Start {
                    a: a.tensor(&draw.device),
                    b: b.transposed().tensor(&draw.device),
                    of_base: self != Self::Mica,
                }
            }
        })
    }

    /// `A` and `Bᵀ` from the base weight.
    fn of_weight(
        self,
        weight: &Matrix,
        r: usize,
        scaling: f64,
        draw: &mut Draw<'_>,
    ) -> (Matrix, Matrix) {
        let principal = |found: Singular| {
            let roots = found.values.iter().map(|value| (value / scaling).sqrt());
            let roots: Vec<f64> = roots.collect();
            let scaled = |vectors: Matrix| vectors.rows_scaled(roots.iter().copied());
            (scaled(found.right), scaled(found.left))
        };
        match self {
            Self::Pissa => principal(linalg::largest(weight, r)),
            Self::PissaNiter(iterations) => principal(linalg::largest_by_iteration(
                weight, r, iterations, draw.rng,
            )),
            Self::Mica => {
                let all = linalg::largest(weight, weight.rows().min(weight.cols()));
                let last = all.left.rows() - r;
                let left = Matrix::of_rows(weight.rows(), all.left.all_rows().skip(last));
                (Matrix::zeros(r, weight.cols()), left)
            }
            _ => {
                let columns = weight.transposed().first(r).orthonormal();
                (columns.times(weight), columns)
            }
        }
    }
}
