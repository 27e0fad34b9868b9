//! Weighted combinations of adapters: one adapter made of several.
//!
//! LoRA adapters have factors `Aᵢ`, `Bᵢ` and scales `sᵢ`; with the weights `wᵢ` let `σᵢ = wᵢsᵢ`. `cat` and `svd` without a
//! smaller rank give exactly `Σ σᵢBᵢAᵢ`. The others act on factors or, with `_svd`, on the products `sᵢBᵢAᵢ`, of which the
//! nearest matrix of the requested rank is kept. On factors, the sum has cross terms `BᵢAⱼ`.

mod cat;
mod dare;
mod factors;
mod ia3;
mod linear;
mod magnitude_prune;
mod svd;
mod ties;

use std::fmt;
use std::str::FromStr;

use burn::module::Module;
use burn::tensor::Tensor;
use ft_core::Parts;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::added::{add_lora, same_rank};
use crate::switch::{adapter_config, check_known, check_name};
use crate::truncated_svd::truncated_svd;
use crate::{Error, Ia3Config, LoraConfig, Result};
pub(crate) use factors::{Scaled, plain};

/// How adapters are combined; the names are those of PEFT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CombinationType {
    /// `A = Σ ±√|σᵢ|·Aᵢ`, `B = Σ √|σᵢ|·Bᵢ`: cheap, and with cross terms a rough approximation. `cat` and `svd` are exact.
    Linear,
    /// Factors side by side: exact. The rank is the sum of the ranks.
    Cat,
    /// The sum, cut to the requested rank: exact if that is at least the sum of the ranks.
    #[default]
    Svd,
    /// TIES (Yadav et al., 2023, arXiv:2306.01708) of the factors: the largest numbers of each, and of those the ones with
    /// the sign of the majority.
    Ties,
    /// TIES of the products.
    TiesSvd,
    /// DARE (Yu et al., 2023, arXiv:2311.03099) of the factors: a random part of the numbers, scaled up.
    DareLinear,
    /// DARE of the products.
    DareLinearSvd,
    /// DARE in place of the largest numbers, then the sign of the majority.
    DareTies,
    /// The same of the products.
    DareTiesSvd,
    /// The largest numbers of each factor.
    MagnitudePrune,
    /// The largest numbers of each product.
    MagnitudePruneSvd,
}

impl CombinationType {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Linear,
        Self::Cat,
        Self::Svd,
        Self::Ties,
        Self::TiesSvd,
        Self::DareLinear,
        Self::DareLinearSvd,
        Self::DareTies,
        Self::DareTiesSvd,
        Self::MagnitudePrune,
        Self::MagnitudePruneSvd,
    ];

    /// Whether numbers are drawn at random.
    pub fn draws(self) -> bool {
        matches!(
            self,
            Self::DareLinear | Self::DareLinearSvd | Self::DareTies | Self::DareTiesSvd
        )
    }

    /// Whether only a share of the numbers is kept.
    fn prunes(self) -> bool {
        !matches!(self, Self::Linear | Self::Cat | Self::Svd)
    }

    /// Whether a matrix is cut to a rank.
    fn decomposes(self) -> bool {
        matches!(
            self,
            Self::Svd
                | Self::TiesSvd
                | Self::DareLinearSvd
                | Self::DareTiesSvd
                | Self::MagnitudePruneSvd
        )
    }
}

impl fmt::Display for CombinationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl FromStr for CombinationType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.to_string() == name);
        found.ok_or_else(|| {
            let all: Vec<String> = Self::ALL.iter().map(Self::to_string).collect();
            Error::Settings(format!(
                "there is no combination {name:?}; there are: {}",
                all.join(", ")
            ))
        })
    }
}

/// Which sign is that of the majority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MajoritySign {
    /// That of the sum.
    #[default]
    Total,
    /// The one that most adapters have.
    Frequency,
}

/// Settings of a combination.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Combination {
    /// How adapters are combined.
    pub combination_type: CombinationType,
    /// The share of the numbers of each adapter that is kept, above 0 and at most 1. Needed by what prunes.
    pub density: Option<f64>,
    /// Which sign is that of the majority, for `ties` and `dare_ties`.
    pub majority_sign_method: MajoritySign,
    /// The rank of what is decomposed; without it the largest of the ranks.
    pub svd_rank: Option<usize>,
    /// Factors of what is decomposed are cut to ± the number below which this share of them lies.
    pub svd_clamp: Option<f64>,
    /// The seed of DARE.
    pub seed: u64,
}

impl Combination {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with all mistakes.
    pub fn validate(&self) -> Result<()> {
        let kind = self.combination_type;
        let mut mistakes = Vec::new();
        match self.density {
            None if kind.prunes() => mistakes.push(format!(
                "{kind} needs density, the share of the numbers that is kept"
            )),
            Some(_) if !kind.prunes() => mistakes.push(format!("density has no effect on {kind}")),
            Some(density) if !(density > 0.0 && density <= 1.0) => {
                mistakes.push(format!(
                    "density must be above 0 and at most 1, not {density}"
                ));
            }
            _ => {}
        }
        if !kind.decomposes() && (self.svd_rank.is_some() || self.svd_clamp.is_some()) {
            mistakes.push(format!("svd_rank and svd_clamp have no effect on {kind}"));
        }
        let of_signs = [
            CombinationType::Ties,
            CombinationType::TiesSvd,
            CombinationType::DareTies,
            CombinationType::DareTiesSvd,
        ];
        if self.majority_sign_method != MajoritySign::Total && !of_signs.contains(&kind) {
            mistakes.push(format!("majority_sign_method has no effect on {kind}"));
        }
        if self.svd_rank == Some(0) {
            mistakes.push("svd_rank must be at least 1".into());
        }
        if let Some(clamp) = self.svd_clamp
            && !(clamp > 0.0 && clamp <= 1.0)
        {
            mistakes.push(format!(
                "svd_clamp must be above 0 and at most 1, not {clamp}"
            ));
        }
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(Error::Settings(mistakes.join("; "))),
        }
    }
}

/// Adds an adapter called `name`, made of the given adapters, each with its weight. It is switched off and frozen:
/// [`set_active`](crate::set_active) switches it on.
///
/// LoRA adapters are combined as by PEFT's `add_weighted_adapter`. What PEFT drops without a message is an error: magnitudes
/// of DoRA, biases, trained copies of layers. The result has the scale 1, also if the adapters have `use_rslora`. Of IA3
/// adapters the vectors are added, by `linear`, `cat` and `svd` alike; where an adapter has none, its factor is one.
///
/// # Errors
///
/// If the name is taken, an adapter is missing or given twice, a weight is not finite, a setting is wrong, the adapters are of
/// different methods, or have what a combination would lose.
pub fn combine<M: Module + Parts>(
    model: M,
    adapters: &[(&str, f64)],
    name: &str,
    how: &Combination,
) -> Result<M> {
    how.validate()?;
    let names: Vec<&str> = adapters.iter().map(|(name, _)| *name).collect();
    check_known(&model, &names)?;
    check_name(&model, name)?;
    if let Some((i, twice)) = names
        .iter()
        .enumerate()
        .find(|(i, name)| names[..*i].contains(name))
    {
        return Err(Error::Name(format!(
            "adapter {twice:?} is given twice, the second time as number {}",
            i + 1
        )));
    }
    if let Some((wrong, weight)) = adapters.iter().find(|(_, weight)| !weight.is_finite()) {
        return Err(Error::Settings(format!(
            "the weight of adapter {wrong:?} is {weight}"
        )));
    }
    let configs = names.iter().map(|name| adapter_config(&model, name));
    let configs = configs.collect::<Result<Vec<_>>>()?;
    let Some(first) = configs.first() else {
        return Err(Error::Settings(
            "there is nothing to combine: give at least one adapter".into(),
        ));
    };
    let kinds: Vec<&str> = configs.iter().map(|config| config.peft_type()).collect();
    if kinds.iter().any(|kind| *kind != kinds[0]) {
        return Err(Error::Settings(format!(
            "adapters of different methods ({}) cannot be combined: make LoRA of them with convert_to_lora, or with the \
             example `adapters convert`",
            kinds.join(", ")
        )));
    }
    let first: &dyn std::any::Any = &**first;
    if first.is::<LoraConfig>() {
        let base = configs[0].common().base_model_name_or_path.clone();
        return combine_lora(model, adapters, name, how, base);
    }
    if first.is::<Ia3Config>() {
        let kind = how.combination_type;
        if kind.prunes() || how.svd_rank.is_some() || how.svd_clamp.is_some() {
            return Err(Error::Settings(
                "vectors of IA3 are added: combine them by cat, and leave out density, svd_rank and svd_clamp".into(),
            ));
        }
        return ia3::combine(model, adapters, name);
    }
    Err(Error::Settings(format!(
        "adapters of {} cannot be combined: make LoRA of them with convert_to_lora, or with the example `adapters convert`",
        kinds[0]
    )))
}

fn combine_lora<M: Module + Parts>(
    model: M,
    adapters: &[(&str, f64)],
    name: &str,
    how: &Combination,
    base: Option<String>,
) -> Result<M> {
    let mut rng = StdRng::seed_from_u64(how.seed);
    let names = adapters.iter().map(|(name, _)| *name);
    let found = factors::find(&factors::plain(&model, names)?, adapters)?;
    let largest = found
        .values()
        .flatten()
        .map(|one| one.rank())
        .max()
        .unwrap_or(0);
    let rank = how.svd_rank.unwrap_or(largest);
    let mut combined = Vec::new();
    for (layer, scaled) in found {
        let wrong = |mistake: String| Error::Settings(format!("{layer}: {mistake}"));
        let names = scaled[0].names;
        let factors = of_layer(&scaled, how, rank, &mut rng).map_err(wrong)?;
        combined.push((layer, names, factors));
    }
    add_lora(model, name, base, same_rank(combined))
}

/// The factors `A` and `B` of a layer, whose product is added with scale 1.
fn of_layer(
    adapters: &[Scaled],
    how: &Combination,
    rank: usize,
    rng: &mut StdRng,
) -> Result<[Tensor<2>; 2], String> {
    let kind = how.combination_type;
    let mut merge = |tasks: Vec<Tensor<2>>, weights: &[f64]| {
        let density = how.density.unwrap_or(1.0);
        match kind {
            CombinationType::Ties | CombinationType::TiesSvd => {
                let tasks = tasks
                    .into_iter()
                    .map(|task| magnitude_prune::prune(task, density));
                ties::merge(tasks.collect(), weights, how.majority_sign_method)
            }
            CombinationType::DareTies | CombinationType::DareTiesSvd => {
                let tasks = tasks.into_iter().map(|task| dare::drop(task, density, rng));
                ties::merge(tasks.collect(), weights, how.majority_sign_method)
            }
            CombinationType::DareLinear | CombinationType::DareLinearSvd => {
                let tasks = tasks.into_iter().map(|task| dare::drop(task, density, rng));
                linear::merge(tasks.collect(), weights)
            }
            CombinationType::MagnitudePrune | CombinationType::MagnitudePruneSvd => {
                let tasks = tasks
                    .into_iter()
                    .map(|task| magnitude_prune::prune(task, density));
                linear::merge(tasks.collect(), weights)
            }
            CombinationType::Linear | CombinationType::Cat | CombinationType::Svd => {
                linear::merge(tasks, weights)
            }
        }
    };
    match kind {
        CombinationType::Cat => Ok(cat::merge(adapters)),
        CombinationType::Svd => {
            let [a, b] = cat::merge(adapters);
            let factors = truncated_svd(b.matmul(a), rank)?.factors();
            Ok(svd::clamped(factors, how.svd_clamp))
        }
        _ if kind.decomposes() => {
            let products = adapters.iter().map(Scaled::product).collect();
            let weights: Vec<f64> = adapters.iter().map(|one| one.weight).collect();
            let factors = truncated_svd(merge(products, &weights), rank)?.factors();
            Ok(svd::clamped(factors, how.svd_clamp))
        }
        _ => {
            let first = adapters[0].rank();
            if let Some(other) = adapters.iter().find(|one| one.rank() != first) {
                return Err(format!(
                    "the ranks {first} and {} differ: {kind} needs equal ranks, cat and names that end in svd do not",
                    other.rank()
                ));
            }
            let [left, right] = linear::split_weights(adapters);
            let a = adapters.iter().map(|one| one.a.clone()).collect();
            let b = adapters.iter().map(|one| one.b.clone()).collect();
            Ok([merge(a, &left), merge(b, &right)])
        }
    }
}
