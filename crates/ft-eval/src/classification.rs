//! Measures of predicted labels.
