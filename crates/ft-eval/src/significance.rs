//! Significance of differences between systems.
//!
//! Two systems that were scored on the same items:
//!
//! - [`paired_t_test`]: Student's test on the differences, as `scipy.stats.ttest_rel`;
//! - [`randomization_test`]: Fisher's test with all or 10,000 exchanges of the systems' scores;
//! - [`wilcoxon_test`]: ranks of the differences, as `scipy.stats.wilcoxon`;
//! - [`paired_bootstrap`]: Koehn's test and an interval, for means or any corpus measure;
//! - [`mcnemar_test`]: correct and wrong answers, as statsmodels' `mcnemar`.
//!
//! More than two systems:
//!
//! - [`tukey_hsd`] and [`tukey_hsd_blocked`]: all pairs at once;
//! - [`holm`] and [`benjamini_hochberg`]: corrected p-values of many tests.
//!
//! All tests are two-sided. Scores may be on any scale; differences are the first system's score
//! minus the second's. Golden values of SciPy 1.17.1 and statsmodels 0.15.0 are matched to 1e-9,
//! except where the documentation of a function states a difference.

mod bootstrap;
mod correction;
mod mcnemar;
mod normal;
mod randomization;
mod student_t;
mod studentized_range;
mod t_test;
mod tukey;
mod wilcoxon;

pub use bootstrap::{
    Bootstrap, Interval, PairedBootstrap, bootstrap_interval, paired_bootstrap,
    paired_bootstrap_by, percentile_interval,
};
pub use correction::{Corrected, benjamini_hochberg, holm};
pub use mcnemar::{McNemar, mcnemar_exact, mcnemar_test};
pub use normal::{normal_quantile, normal_two_sided};
pub use randomization::{Randomization, RandomizationTest, randomization_test};
pub use student_t::{student_t_critical, student_t_two_sided};
pub use studentized_range::{studentized_range_critical, studentized_range_sf};
pub use t_test::{PairedT, paired_t_test};
pub use tukey::{TukeyPair, tukey_hsd, tukey_hsd_blocked};
pub use wilcoxon::{Wilcoxon, wilcoxon_test};

use crate::{Error, Result};

/// The differences of two systems' scores, item by item.
///
/// # Errors
///
/// [`Error::Input`] if the lists differ in length, are empty, or contain a number that is not finite.
fn differences(first: &[f64], second: &[f64]) -> Result<Vec<f64>> {
    if first.len() != second.len() {
        return Err(Error::Input(format!(
            "{} scores of the first system and {} of the second: each needs one score per item",
            first.len(),
            second.len()
        )));
    }
    if first.is_empty() {
        return Err(Error::Input(
            "no scores: give at least one item".to_string(),
        ));
    }
    for (system, scores) in [("first", first), ("second", second)] {
        if let Some(item) = scores.iter().position(|s| !s.is_finite()) {
            return Err(Error::Input(format!(
                "the {system} system's score of item {item} is {}: remove such items from both lists",
                scores[item]
            )));
        }
    }
    Ok(first.iter().zip(second).map(|(a, b)| a - b).collect())
}
