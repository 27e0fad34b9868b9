//! What a model can be rounded to, by name: `q4_k_m`, `nf4`, `gptq-w4g64`.

use std::fmt;
use std::str::FromStr;

use ft_kernels::PackedFormat;

use crate::{Algorithm, GptqConfig, Granularity, HqqConfig, Mix, QuantizeConfig, Scheme};

/// What a model is rounded to.
///
/// ```
/// use ft_quant::{Algorithm, Mix, Target};
///
/// assert_eq!("q4_k_m".parse(), Ok(Target::Mix(Mix::Q4_K_M)));
/// let Ok(Target::Groups(config)) = "hqq-w3g64".parse() else {
///     panic!("groups of integers");
/// };
/// assert_eq!((config.scheme.bits, config.scheme.symmetric), (3, false));
/// assert_eq!("awq-w4-sym".parse::<Target>().unwrap().to_string(), "awq-w4-sym");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// A mix of llama.cpp: `q4_k_m`, `f16`.
    Mix(Mix),
    /// Blocks of one format in all linear layers, to nearest: `nf4`, `q4_k`.
    Blocks(PackedFormat),
    /// Groups of integers, as `METHOD-wBITSgSIZE`, with `-sym` for symmetric grids and without `gSIZE` for whole rows. The
    /// method is `rtn` (to nearest), `gptq`, `awq`, `hqq` or `smoothquant`. `smoothquant` has one form, `smoothquant-w8-sym`.
    Groups(QuantizeConfig),
}

impl Algorithm {
    /// The algorithm of a name, with the settings that are usual: GPTQ goes by act-order with static groups, so that groups
    /// stay neighbours, and SmoothQuant has an `alpha` of 0.5.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "rtn" => Self::Nearest,
            "gptq" => Self::Gptq(GptqConfig {
                act_order: true,
                static_groups: true,
                ..GptqConfig::default()
            }),
            "awq" => Self::Awq,
            "hqq" => Self::Hqq(HqqConfig::default()),
            "smoothquant" => Self::SmoothQuant { alpha: 0.5 },
            _ => return None,
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nearest => "rtn",
            Self::Gptq(_) => "gptq",
            Self::Awq => "awq",
            Self::Hqq(_) => "hqq",
            Self::SmoothQuant { .. } => "smoothquant",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mix(mix) => write!(f, "{}", mix.name().to_lowercase()),
            Self::Blocks(format) => write!(f, "{}", format.name().to_lowercase()),
            Self::Groups(QuantizeConfig { algorithm, scheme }) => {
                write!(f, "{}-w{}", algorithm.name(), scheme.bits)?;
                if let Granularity::Group(size) = scheme.granularity {
                    write!(f, "g{size}")?;
                }
                f.write_str(if scheme.symmetric { "-sym" } else { "" })
            }
        }
    }
}

impl FromStr for Target {
    type Err = String;

    /// Reads a name in any case. A name of a mix and a format is that of the mix.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.to_lowercase();
        if let Ok(mix) = name.parse() {
            return Ok(Self::Mix(mix));
        }
        if let Ok(format) = name.parse() {
            return Ok(Self::Blocks(format));
        }
        groups(&name).map(Self::Groups).ok_or_else(|| {
            format!(
                "{text:?} is no format: give a mix of GGUF (q4_k_m, q8_0, f16), a block format (nf4, q4_k, int8_g64), or \
                 METHOD-wBITSgSIZE with rtn, gptq, awq or hqq (gptq-w4g64), or smoothquant-w8-sym"
            )
        })
    }
}

fn groups(name: &str) -> Option<QuantizeConfig> {
    let (method, scheme) = name.split_once("-w")?;
    let (scheme, symmetric) = match scheme.strip_suffix("-sym") {
        Some(scheme) => (scheme, true),
        None => (scheme, false),
    };
    let (bits, granularity) = match scheme.split_once('g') {
        Some((bits, size)) => (bits, Granularity::Group(size.parse().ok()?)),
        None => (scheme, Granularity::Channel),
    };
    Some(QuantizeConfig {
        algorithm: Algorithm::by_name(method)?,
        scheme: Scheme {
            bits: bits.parse().ok().filter(|bits| (2..=8).contains(bits))?,
            granularity,
            symmetric,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_they_are_read() {
        for name in [
            "f16",
            "q4_k_m",
            "nf4",
            "q4_k",
            "rtn-w4g64",
            "gptq-w3g64-sym",
            "hqq-w8",
            "smoothquant-w8-sym",
        ] {
            let target: Target = name.parse().expect("a format");
            assert_eq!(target.to_string(), name);
        }
        for name in [
            "q9",
            "gptq",
            "gptq-w9g64",
            "gptq-w4gx",
            "abc-w4g64",
            "rtn-w4g",
        ] {
            let error = name.parse::<Target>().expect_err("no format");
            assert!(error.contains(name), "{error}");
        }
    }
}
