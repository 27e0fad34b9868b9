#![doc = include_str!("../README.md")]

mod batches;
mod cross_encoder;
mod dataset;
mod dense;
mod embedding_loss;
mod embeddings;
mod encode;
mod error;
mod folder;
mod index;
pub mod loss;
mod mine;
mod model;
mod pair_loss;
mod pair_training;
mod pooling;
pub mod quantize;
mod retrieval;
mod training;

pub use cross_encoder::{CrossEncoder, PairActivation};
pub use dataset::{TextDataset, TextRow};
pub use dense::{Dense, DenseActivation};
pub use embedding_loss::EmbeddingLoss;
pub use embeddings::Embeddings;
pub use encode::{EncodeOptions, Prompt};
pub use error::{Error, Result};
pub use folder::{Pooling, Similarity};
pub use ft_data::{TextBatch, TextTokens};
pub use index::{BinaryIndex, ExactIndex, Hit, Int8Index, VectorIndex};
pub use mine::{Mined, MiningConfig, PairScorer, mine_hard_negatives};
pub use model::{EmbeddingModel, unit};
pub use pair_loss::CrossEncoderLoss;
pub use pair_training::{CrossEncoderTraining, PairBatch};
pub use pooling::PoolingMode;
pub use retrieval::{retrieval_ndcg, search_run};
pub use training::{EmbeddingBatch, EmbeddingTraining, EmbeddingTrainingConfig};
