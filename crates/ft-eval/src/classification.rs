//! Measures of predicted classes, as scikit-learn 1.9 computes them.
//!
//! [`ConfusionMatrix`] counts labels and predictions of any ordered type and gives accuracy, Matthews' correlation and a
//! [`ScoreTable`] of precision, recall and F; [`roc_auc`] and [`roc_auc_multiclass`] take scores,
//! [`calibration`] confidences. Where scikit-learn warns and puts in a 0 (precision of a class that is never predicted),
//! the number is 0 here; where it says NaN (ROC-AUC of one class), it is `None`.
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
