//! Measures of predicted classes, with the values of scikit-learn 1.9.
//!
//! [`ConfusionMatrix`] counts labels and predictions of any ordered type and computes accuracy, Matthews' correlation and a
//! [`ScoreTable`] of precision, recall and F. [`roc_auc`] and [`roc_auc_multiclass`] are computed from scores,
//! [`calibration`] from confidences. A value for which scikit-learn warns and returns 0 (precision of a class that is never
//! predicted) is 0 here. A value that is NaN there (ROC-AUC of one class) is `None`.
//!
//! ```
//! use ft_eval::classification::ConfusionMatrix;
//!
//! let matrix = ConfusionMatrix::new(&["a", "b", "b", "c"], &["a", "b", "c", "c"])?;
//! assert_eq!(matrix.accuracy(), 0.75);
//! let scores = matrix.scores(1.0);
//! assert_eq!(scores.classes[1].1.recall, 0.5);
//! # Ok::<(), ft_eval::Error>(())
//! ```

mod calibration;
mod confusion;
mod roc;
mod scores;

pub use calibration::{Calibration, calibration};
pub use confusion::ConfusionMatrix;
pub use roc::{MultiClass, roc_auc, roc_auc_multiclass};
pub use scores::{Counts, ScoreTable, Scores};
