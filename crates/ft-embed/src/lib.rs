#![doc = include_str!("../README.md")]

mod batches;
mod cross_encoder;
mod dataset;
mod dense;
mod embedding_loss;
#[cfg(feature = "servers")]
mod embedding_server;
mod embeddings;
mod encode;
mod error;
mod folder;
mod index;
mod layout;
pub mod loss;
mod mine;
mod model;
mod pair_loss;
mod pair_training;
mod picture;
mod pooling;
pub mod quantize;
mod retrieval;
mod similarity;
mod training;
mod tsne;
#[cfg(feature = "servers")]
mod vector_cache;

pub use cross_encoder::{CrossEncoder, PairActivation};
pub use dataset::{TextDataset, TextRow};
pub use dense::{Dense, DenseActivation};
pub use embedding_loss::EmbeddingLoss;
#[cfg(feature = "servers")]
pub use embedding_server::{
    EmbeddingProtocol, EmbeddingServer, EmbeddingServerOptions, EmbeddingsSpent, FoundEmbeddings,
    MissingVector, ServedEmbeddings,
};
pub use embeddings::Embeddings;
pub use encode::{EncodeOptions, Prompt};
pub use error::{Error, Result};
pub use folder::Pooling;
pub use ft_data::{TextBatch, TextTokens};
#[cfg(feature = "approximate")]
pub use index::{ApproximateIndex, GraphSettings};
pub use index::{BinaryIndex, ExactIndex, Hit, Int8Index, VectorIndex};
pub use layout::text_layout;
pub use mine::{Mined, MiningConfig, PairScorer, mine_hard_negatives};
pub use model::{EmbeddingModel, unit};
pub use pair_loss::CrossEncoderLoss;
pub use pair_training::{CrossEncoderTraining, PairBatch};
pub use picture::{PicturePoint, heat_map_svg, points_svg};
pub use pooling::PoolingMode;
pub use retrieval::{retrieval_ndcg, search_run};
pub use similarity::{Similarity, similarity_spearman};
pub use training::{EmbeddingBatch, EmbeddingTraining, EmbeddingTrainingConfig};
pub use tsne::{MOST_POINTS, Tsne, TsneConfig, tsne};
