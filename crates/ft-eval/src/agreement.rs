//! Agreement between raters.
