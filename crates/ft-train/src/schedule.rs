//! The learning rate over the steps, by the names and numbers of transformers.
//!
//! Each function gives the factor on the peak learning rate for a step counted from 0, as the function of the same name in
//! `transformers.optimization` defines it. With a warmup the first step has a rate of 0.

mod plateau;
mod shapes;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use plateau::plateau_factor;
pub use shapes::{
    constant_with_warmup, cosine_with_min_lr, cosine_with_restarts, cosine_with_warmup,
    inverse_sqrt, linear_with_warmup, polynomial_decay, warmup_stable_decay,
};

use crate::UnknownName;

/// What the learning rate does after the warmup.
///
/// In settings and on command lines it is a name, and behind a colon its numbers where it has some:
///
/// | text | numbers and their defaults |
/// |---|---|
/// | `constant`, `linear`, `cosine` | |
/// | `cosine_with_restarts:CYCLES` | 1 |
/// | `cosine_with_min_lr:MIN` | the rate at the end, as a factor on the peak: 0.1 |
/// | `polynomial:POWER,END` | 1, and the rate at the end as a factor on the peak: 0 |
/// | `inverse_sqrt:TIMESCALE` | the warmup, or 10,000 without one |
/// | `warmup_stable_decay:SHARE,MIN,SHAPE` | the decay's share of all steps, 0.1; the rate at the end as a factor, 0; `linear`, `cosine` or `1-sqrt`: cosine |
/// | `reduce_lr_on_plateau:FACTOR,PATIENCE` | 0.1, 10 |
///
/// ```
/// use ft_train::Schedule;
///
/// let schedule: Schedule = "cosine_with_restarts:3".parse()?;
/// assert_eq!(schedule, Schedule::CosineWithRestarts { cycles: 3 });
/// assert_eq!(schedule.to_string(), "cosine_with_restarts:3");
/// assert_eq!(schedule.factor(50, 0, 150), 1.0);
/// # Ok::<(), ft_train::UnknownName>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls to 0 in a straight line.
    #[default]
    Linear,
    /// It falls to 0 along half a cosine.
    Cosine,
    /// It falls to 0 along half a cosine, several times.
    CosineWithRestarts {
        /// How often.
        cycles: u32,
    },
    /// It falls along half a cosine to a rate above 0.
    CosineWithMinLr {
        /// The rate at the end over the peak.
        min: f64,
    },
    /// It falls as a power of the steps that are left.
    Polynomial {
        /// The exponent; 1 is a straight line.
        power: f64,
        /// The rate at the end over the peak.
        end: f64,
    },
    /// It falls as the inverse square root of the step (Noam's rule).
    InverseSqrt {
        /// At which step after the warmup it would be the peak; the warmup itself, or 10,000 without one.
        timescale: Option<u32>,
    },
    /// It stays, and falls in the last part of the run.
    WarmupStableDecay {
        /// The share of all steps in which it falls, rounded up.
        decay: f64,
        /// The rate at the end over the peak. The warmup begins there too.
        min: f64,
        /// How it falls.
        shape: DecayShape,
    },
    /// It stays, and is multiplied by a factor when the evaluation loss has not improved for several evaluations.
    ReduceLrOnPlateau {
        /// The factor.
        factor: f64,
        /// After how many evaluations without improvement.
        patience: u32,
    },
}

/// How the rate falls in the decay of [`Schedule::WarmupStableDecay`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DecayShape {
    /// A straight line.
    Linear,
    /// Half a cosine.
    #[default]
    Cosine,
    /// `1 − √progress`.
    OneMinusSqrt,
}

const KNOWN: &str = "constant, linear, cosine, cosine_with_restarts:CYCLES, cosine_with_min_lr:MIN, \
                     polynomial:POWER,END, inverse_sqrt:TIMESCALE, warmup_stable_decay:SHARE,MIN,SHAPE or \
                     reduce_lr_on_plateau:FACTOR,PATIENCE";

impl Schedule {
    /// The factor on the peak learning rate at `step`, counted from 0. That of [`ReduceLrOnPlateau`](Self::ReduceLrOnPlateau) is
    /// that of a constant rate; [`plateau_factor`] has the part of the evaluations.
    pub fn factor(self, step: usize, warmup_steps: usize, total_steps: usize) -> f64 {
        let (warmup, total) = (warmup_steps, total_steps);
        match self {
            Self::Constant | Self::ReduceLrOnPlateau { .. } => constant_with_warmup(step, warmup),
            Self::Linear => linear_with_warmup(step, warmup, total),
            Self::Cosine => cosine_with_warmup(step, warmup, total),
            Self::CosineWithRestarts { cycles } => {
                cosine_with_restarts(step, warmup, total, cycles)
            }
            Self::CosineWithMinLr { min } => cosine_with_min_lr(step, warmup, total, min),
            Self::Polynomial { power, end } => polynomial_decay(step, warmup, total, power, end),
            Self::InverseSqrt { timescale } => {
                let timescale = timescale.map(|steps| steps as usize);
                inverse_sqrt(step, warmup, timescale)
            }
            Self::WarmupStableDecay { decay, min, shape } => {
                let decay = (total as f64 * decay).ceil() as usize;
                warmup_stable_decay(step, warmup, total, decay, min, shape)
            }
        }
    }

    /// Whether it depends on where the run ends.
    pub(crate) fn has_end(self) -> bool {
        !matches!(
            self,
            Self::Constant | Self::InverseSqrt { .. } | Self::ReduceLrOnPlateau { .. }
        )
    }

    /// What is wrong with its numbers.
    pub(crate) fn mistake(self) -> Option<&'static str> {
        let factor = |x: f64| (0.0..1.0).contains(&x);
        match self {
            Self::CosineWithRestarts { cycles: 0 } => Some("there must be one cycle or more"),
            Self::CosineWithMinLr { min } if !factor(min) => Some("MIN must be in [0, 1)"),
            Self::Polynomial { power, end }
                if !(power > 0.0 && power.is_finite() && factor(end)) =>
            {
                Some("POWER must be above 0, and END in [0, 1)")
            }
            Self::InverseSqrt { timescale: Some(0) } => Some("TIMESCALE must be 1 or more"),
            Self::WarmupStableDecay { decay, min, .. } if !(factor(decay) && factor(min)) => {
                Some("SHARE and MIN must be in [0, 1)")
            }
            Self::ReduceLrOnPlateau { factor: by, .. } if !(by > 0.0 && by < 1.0) => {
                Some("FACTOR must be between 0 and 1")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => f.write_str("constant"),
            Self::Linear => f.write_str("linear"),
            Self::Cosine => f.write_str("cosine"),
            Self::CosineWithRestarts { cycles } => write!(f, "cosine_with_restarts:{cycles}"),
            Self::CosineWithMinLr { min } => write!(f, "cosine_with_min_lr:{min}"),
            Self::Polynomial { power, end } => write!(f, "polynomial:{power},{end}"),
            Self::InverseSqrt { timescale: None } => f.write_str("inverse_sqrt"),
            Self::InverseSqrt {
                timescale: Some(steps),
            } => write!(f, "inverse_sqrt:{steps}"),
            Self::WarmupStableDecay { decay, min, shape } => {
                let shape = match shape {
                    DecayShape::Linear => "linear",
                    DecayShape::Cosine => "cosine",
                    DecayShape::OneMinusSqrt => "1-sqrt",
                };
                write!(f, "warmup_stable_decay:{decay},{min},{shape}")
            }
            Self::ReduceLrOnPlateau { factor, patience } => {
                write!(f, "reduce_lr_on_plateau:{factor},{patience}")
            }
        }
    }
}

impl FromStr for Schedule {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        read(text).ok_or_else(|| UnknownName {
            kind: "schedule",
            name: text.to_string(),
            known: KNOWN,
        })
    }
}

fn read(text: &str) -> Option<Schedule> {
    let (name, numbers) = match text.split_once(':') {
        Some((name, numbers)) => (name, numbers.split(',').map(str::trim).collect()),
        None => (text, Vec::new()),
    };
    let most = match name {
        "constant" | "constant_with_warmup" | "linear" | "cosine" => 0,
        "cosine_with_restarts" | "cosine_with_min_lr" | "inverse_sqrt" => 1,
        "warmup_stable_decay" => 3,
        _ => 2,
    };
    if numbers.len() > most {
        return None;
    }
    let float = |place: usize, default: f64| {
        numbers
            .get(place)
            .map_or(Some(default), |text| text.parse().ok())
    };
    let whole = |place: usize, default: u32| {
        numbers
            .get(place)
            .map_or(Some(default), |text| text.parse().ok())
    };
    Some(match name {
        "constant" | "constant_with_warmup" => Schedule::Constant,
        "linear" => Schedule::Linear,
        "cosine" => Schedule::Cosine,
        "cosine_with_restarts" => Schedule::CosineWithRestarts {
            cycles: whole(0, 1)?,
        },
        "cosine_with_min_lr" => Schedule::CosineWithMinLr {
            min: float(0, 0.1)?,
        },
        "polynomial" => Schedule::Polynomial {
            power: float(0, 1.0)?,
            end: float(1, 0.0)?,
        },
        "inverse_sqrt" => Schedule::InverseSqrt {
            timescale: numbers.first().map(|text| text.parse()).transpose().ok()?,
        },
        "warmup_stable_decay" => Schedule::WarmupStableDecay {
            decay: float(0, 0.1)?,
            min: float(1, 0.0)?,
            shape: match numbers.get(2) {
                None | Some(&"cosine") => DecayShape::Cosine,
                Some(&"linear") => DecayShape::Linear,
                Some(&"1-sqrt") => DecayShape::OneMinusSqrt,
                Some(_) => return None,
            },
        },
        "reduce_lr_on_plateau" => Schedule::ReduceLrOnPlateau {
            factor: float(0, 0.1)?,
            patience: whole(1, 10)?,
        },
        _ => return None,
    })
}

impl TryFrom<String> for Schedule {
    type Error = UnknownName;

    fn try_from(text: String) -> Result<Self, UnknownName> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for text in [
            "constant",
            "linear",
            "cosine",
            "cosine_with_restarts:4",
            "cosine_with_min_lr:0.05",
            "polynomial:2,0.01",
            "inverse_sqrt",
            "inverse_sqrt:500",
            "warmup_stable_decay:0.2,0.1,1-sqrt",
            "reduce_lr_on_plateau:0.5,3",
        ] {
            let schedule: Schedule = text.parse().expect("is known");
            assert_eq!(schedule.to_string(), text);
            assert!(schedule.mistake().is_none(), "{text}");
            let json = serde_json::to_string(&schedule).expect("is a text");
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Schedule>(&json).ok(), Some(schedule));
        }
        for wrong in [
            "sine",
            "linear:1",
            "cosine_with_restarts:a",
            "polynomial:1,2,3",
            "warmup_stable_decay:0.1,0,sine",
        ] {
            assert!(wrong.parse::<Schedule>().is_err(), "{wrong}");
        }
        for wrong in [
            "cosine_with_restarts:0",
            "cosine_with_min_lr:2",
            "reduce_lr_on_plateau:1",
        ] {
            assert!(
                wrong
                    .parse::<Schedule>()
                    .is_ok_and(|s| s.mistake().is_some()),
                "{wrong}"
            );
        }
    }

    #[test]
    fn without_warmup_the_first_step_has_the_full_rate() {
        for text in [
            "constant",
            "linear",
            "cosine",
            "cosine_with_restarts",
            "cosine_with_min_lr",
            "polynomial",
            "inverse_sqrt",
            "warmup_stable_decay",
        ] {
            let schedule: Schedule = text.parse().expect("is known");
            assert_eq!(schedule.factor(0, 0, 5), 1.0, "{text}");
        }
    }
}
