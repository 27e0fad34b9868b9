//! Losses of embeddings, and of the scores of cross-encoders, as functions of tensors.
//!
//! The mean of what a function returns is the loss of sentence-transformers of the same name. Losses that are sums over the
//! rows of a batch return a number a row, so that a caller who adds up several batches can weigh rows alike. The others
//! (CoSENT, AnglE, online contrastive, mined triplets, lists) return one number.
//!
//! `cos` is the cosine; `n` is the number of rows.

mod adaptive_layer;
mod contrastive;
mod cosent;
mod cosine;
mod gist;
mod lists;
mod margin_mse;
mod matryoshka;
mod mined_triplets;
mod mse;
mod multiple_negatives;
mod pointwise;
mod similarity;
mod triplet;

pub use adaptive_layer::{LayerWeights, layer_divergence};
pub use contrastive::{contrastive, online_contrastive};
pub use cosent::{angle, cosent};
pub use cosine::cosine;
pub use gist::{Gist, Margin, gist};
pub use lists::{lambda, list_mle, list_net, position_list_mle, rank_net};
pub use margin_mse::margin_mse;
pub(crate) use matryoshka::sample;
pub use matryoshka::{Matryoshka, matryoshka};
pub use mined_triplets::{Mining, mined_triplets};
pub use mse::mse;
pub use multiple_negatives::{
    Directions, Hardness, MultipleNegatives, Partition, multiple_negatives,
};
pub use pointwise::{binary_cross_entropy, cross_entropy};
pub use similarity::{angle_similarity, cosine_matrix, pairwise_cosine};
pub use triplet::triplet;
