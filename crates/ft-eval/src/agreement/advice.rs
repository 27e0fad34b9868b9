//! Interpretation of an agreement.

use std::fmt;

use serde::Serialize;

/// What to do with ratings of a given agreement.
///
/// The limits are customary, not theory: Landis & Koch (*Biometrics* 33, 1977) call a kappa from 0.61 substantial
/// and from 0.81 almost perfect. Krippendorff (*Content Analysis*, 4th edition, 2019, chapter 12) is stricter:
/// data with an alpha of at least 0.800 is reliable, and from 0.667 it supports tentative conclusions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// Below 0.6.
    TooVague,
    /// From 0.6 to 0.8.
    Tentative,
    /// Above 0.8.
    Reliable,
}

impl Advice {
    /// The advice for a kappa or an alpha; `None` for NaN.
    pub fn of(value: f64) -> Option<Self> {
        if value.is_nan() {
            None
        } else if value < 0.6 {
            Some(Self::TooVague)
        } else if value <= 0.8 {
            Some(Self::Tentative)
        } else {
            Some(Self::Reliable)
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooVague => {
                "below 0.6: the guidelines are too vague; discuss the items that raters disagree on, \
                 rewrite the guidelines, rate again"
            }
            Self::Tentative => {
                "0.6 to 0.8: usable for tentative conclusions; look at the categories that are confused"
            }
            Self::Reliable => "above 0.8: reliable",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_part_of_the_middle_range() {
        assert_eq!(Advice::of(0.5999), Some(Advice::TooVague));
        assert_eq!(Advice::of(0.6), Some(Advice::Tentative));
        assert_eq!(Advice::of(0.8), Some(Advice::Tentative));
        assert_eq!(Advice::of(0.8001), Some(Advice::Reliable));
        assert_eq!(Advice::of(f64::NAN), None);
    }
}
