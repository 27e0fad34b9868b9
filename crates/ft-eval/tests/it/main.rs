//! Tests against the reference implementations; see `tests/golden`.

#![allow(clippy::unwrap_used)]

mod edit_distance;
mod exact_match;
mod meteor;
mod perplexity;
mod porter_stemmer;
mod rouge;
mod squad;
mod word_tokenize;
