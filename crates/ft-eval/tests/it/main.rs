//! Tests against the reference implementations; see `tests/golden`.

#![allow(clippy::unwrap_used)]

mod porter_stemmer;
mod rouge;
