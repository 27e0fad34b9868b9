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
mod retrieval;
mod rouge;
mod significance;
mod squad;
#[cfg(all(feature = "harness", feature = "judges"))]
mod stages;
mod translation;
mod word_tokenize;
