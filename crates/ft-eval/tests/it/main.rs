//! Tests against the reference implementations; see `tests/golden`.

#![allow(clippy::unwrap_used)]

mod meteor;
mod porter_stemmer;
mod rouge;
mod word_tokenize;
