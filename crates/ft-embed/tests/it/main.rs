//! Embedding models and losses against sentence-transformers. The golden files are made by the scripts in `golden/`.

#[cfg(feature = "approximate")]
mod approximate;
mod losses;
#[cfg(target_os = "linux")]
mod memory;
mod minilm;
#[cfg(feature = "servers")]
#[path = "../../../ft-eval/tests/it/judges/mock_server.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod mock_server;
mod models;
mod pairs;
#[cfg(feature = "servers")]
mod servers;
mod training;
mod tsne;
