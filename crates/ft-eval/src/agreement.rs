//! Agreement between raters.
//!
//! - [`percent_agreement`]: how often two raters agree, including agreement by chance;
//! - [`cohen_kappa`]: two raters, corrected for chance; ordered categories with [`Weights`];
//! - [`fleiss_kappa`]: the same number of ratings for each item, from any raters;
//! - [`krippendorff_alpha`]: any number of raters, missing ratings, four levels of measurement.
//!
//! [`Ratings`] is a table of ratings from a file. [`Agreement::of`] computes all measures of a table, with intervals.
//! [`Advice`] interprets a value for the authors of the guidelines.
//!
//! Golden values of scikit-learn 1.9.1, statsmodels 0.15.0 and krippendorff 0.9.0 are matched to 1e-9. If all
//! ratings are equal, so that no disagreement is possible, these return NaN and the value here is `None`.

mod advice;
mod cohen;
mod fleiss;
mod krippendorff;
mod percent;
mod ratings;
mod report;

pub use advice::Advice;
pub use cohen::{Kappa, Weights, cohen_kappa, cohen_kappa_with_labels};
pub use fleiss::{FleissKappa, fleiss_kappa, fleiss_table};
pub use krippendorff::{Level, krippendorff_alpha, krippendorff_alpha_of_labels};
pub use percent::percent_agreement;
pub use ratings::{Header, Rating, Ratings};
pub use report::{Agreement, Measure};
