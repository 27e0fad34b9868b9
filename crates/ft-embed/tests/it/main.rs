//! Embedding models and losses against sentence-transformers. The golden files are made by the scripts in `golden/`.

mod losses;
mod minilm;
mod models;
mod pairs;
mod training;
