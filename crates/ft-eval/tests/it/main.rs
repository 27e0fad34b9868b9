//! Tests against the reference implementations; see `tests/golden`.
mod significance;
