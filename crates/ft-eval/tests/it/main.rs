//! Tests against the reference implementations; see `tests/golden`.

#![allow(clippy::unwrap_used)]

mod agreement;
mod classification;
mod edit_distance;
mod exact_match;
#[cfg(feature = "harness")]
mod harness;
#[cfg(feature = "judges")]
mod judges;
mod meteor;
mod perplexity;
mod porter_stemmer;
mod rouge;
mod significance;
mod squad;
mod translation;
mod word_tokenize;
