//! Which optimizer a run takes, by the names that transformers gives them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::UnknownName;

/// Which optimizer a run takes.
///
/// ```
/// use ft_train::Optim;
///
/// assert_eq!("adamw-8bit".parse(), Ok(Optim::AdamW8bit));
/// assert_eq!("adamw_bnb_8bit".parse(), Ok(Optim::AdamW8bit));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Optim {
    /// AdamW, moments in `f32`: 8 bytes a parameter.
    #[default]
    #[serde(rename = "adamw", alias = "adamw_torch", alias = "adamw_torch_fused")]
    AdamW,
    /// AdamW, moments in a byte each: 2 bytes a parameter.
    #[serde(rename = "adamw_8bit", alias = "adamw_bnb_8bit")]
    AdamW8bit,
    /// Adafactor: a number for each row and column of a matrix.
    #[serde(rename = "adafactor")]
    Adafactor,
    /// Lion: one moment, 4 bytes a parameter. Its learning rate is a third to a tenth of AdamW's.
    #[serde(rename = "lion")]
    Lion,
    /// Gradient descent, without momentum: no state.
    #[serde(rename = "sgd")]
    Sgd,
    /// Muon for the matrices of hidden layers, one moment of 4 bytes a parameter, and AdamW for the rest. Learning rates are AdamW's.
    #[serde(rename = "muon")]
    Muon,
}

impl Optim {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AdamW,
        Self::AdamW8bit,
        Self::Adafactor,
        Self::Lion,
        Self::Sgd,
        Self::Muon,
    ];
}

impl fmt::Display for Optim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdamW => "adamw",
            Self::AdamW8bit => "adamw_8bit",
            Self::Adafactor => "adafactor",
            Self::Lion => "lion",
            Self::Sgd => "sgd",
            Self::Muon => "muon",
        })
    }
}

impl FromStr for Optim {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name.replace('-', "_").as_str() {
            "adamw" | "adamw_torch" | "adamw_torch_fused" => Ok(Self::AdamW),
            "adamw_8bit" | "adamw_bnb_8bit" => Ok(Self::AdamW8bit),
            "adafactor" => Ok(Self::Adafactor),
            "lion" => Ok(Self::Lion),
            "sgd" => Ok(Self::Sgd),
            "muon" => Ok(Self::Muon),
            _ => Err(UnknownName {
                kind: "optimizer",
                name: name.to_string(),
                known: "adamw, adamw_8bit, adafactor, lion, sgd or muon",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for optim in Optim::ALL {
            assert_eq!(optim.to_string().parse(), Ok(optim));
            let name = serde_json::to_string(&optim).expect("is a name");
            assert_eq!(name, format!("\"{optim}\""));
        }
        assert!("adam".parse::<Optim>().is_err());
    }

    #[test]
    fn the_names_of_transformers_are_read() {
        for (name, optim) in [
            ("adamw_torch", Optim::AdamW),
            ("adamw_torch_fused", Optim::AdamW),
            ("adamw_bnb_8bit", Optim::AdamW8bit),
        ] {
            let read: Optim = serde_json::from_str(&format!("\"{name}\"")).expect("is known");
            assert_eq!((read, name.parse()), (optim, Ok(optim)));
        }
    }
}
