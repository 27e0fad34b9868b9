//! Agreement between raters.
//!
//! - [`percent_agreement`]: how often two raters agree, chance included;
//! - [`cohen_kappa`]: two raters, beyond chance; ordered categories with [`Weights`];
//! - [`fleiss_kappa`]: as many ratings of each item, whoever gave them;
//! - [`krippendorff_alpha`]: any number of raters, missing ratings, four levels of measurement.
//!
//! [`Ratings`] is a table of ratings as a file has it, and [`Agreement::of`] measures all of these on one,
//! with intervals. [`Advice`] says what a value means for the people who wrote the guidelines.
//!
//! Golden values of scikit-learn 1.9.1, statsmodels 0.15.0 and krippendorff 0.9.0 are matched to 1e-9. Where
//! these return NaN because nothing could have disagreed (all ratings alike), the value here is `None`.

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
