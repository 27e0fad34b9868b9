//! Losses as functions of log-probabilities.
//!
//! | where users start | functions |
//! |---|---|
//! | from tokens to rows | [`sum_logps`], [`mean_logps`], [`length_desensitized_logps`], [`wpo_weights`] |
//! | pairs with a reference | [`PairLosses`] computes these by name: [`dpo`], [`robust_dpo`], [`sigmoid_norm`], [`hinge`], [`ipo`], [`exo`], [`nca`], [`bco_pair`], [`sppo`], [`apo_zero`], [`apo_down`], [`aot`], [`aot_unpaired`], [`discopop`], [`sft`]; [`FDivergence`] |
//! | pairs without a reference | [`ReferenceFreeLoss`] computes these by name: [`orpo`], [`cpo`], [`simpo`], [`alphapo`] |
//! | single completions | [`kto`], [`apo_zero_unpaired`], [`bco`] |
//! | reward models | [`bradley_terry`], [`process_rewards`] |
//! | policies | [`PolicyLoss`] computes these by name: [`group_advantages`], [`leave_one_out`], [`gae`], [`whiten`]; [`importance_ratio`], [`sequence_log_ratios`]; [`clipped_surrogate`], [`clipped_terms`], [`cispo`], [`sapo`]; [`k3`], [`token_rewards`], [`AdaptiveKl`]; [`clipped_value_loss`]; [`Reduction`]; [`without_truncated`], [`top_entropy_mask`] |
//!
//! Losses are not reduced: there is one number per pair, row or token. Log-ratios are differences of the summed
//! log-probabilities of a completion under the policy and the reference. Exponentials are bounded at e⁸⁰, which `f32`
//! holds, so that values and gradients stay finite.

mod adaptive_kl;
mod alphapo;
mod aot;
mod apo;
mod bco;
mod box_cox;
mod bradley_terry;
mod cispo;
mod clipped_surrogate;
mod clipped_value_loss;
mod completion_mask;
mod cpo;
mod discopop;
mod dpo;
mod exo;
mod f_divergence;
mod gae;
mod group_advantages;
mod hinge;
mod importance_ratio;
mod ipo;
mod k3;
mod kto;
mod length_desensitized;
mod log1mexp;
mod nca;
mod orpo;
mod pair_logps;
mod pair_loss;
mod pair_losses;
mod pair_metrics;
mod policy_loss;
mod process_rewards;
mod reduction;
mod reference_free;
mod row_logps;
mod sapo;
mod sft;
mod simpo;
mod sppo;
mod token_rewards;
mod top_entropy;
mod whiten;
mod wpo;

pub use adaptive_kl::AdaptiveKl;
pub use alphapo::alphapo;
pub use aot::{aot, aot_unpaired};
pub use apo::{apo_down, apo_zero, apo_zero_unpaired};
pub use bco::{RewardShift, bco, bco_pair};
pub(crate) use box_cox::box_cox;
pub use bradley_terry::bradley_terry;
pub use cispo::cispo;
pub use clipped_surrogate::{Clip, clipped_surrogate, clipped_terms};
pub use clipped_value_loss::clipped_value_loss;
pub use completion_mask::without_truncated;
pub use cpo::cpo;
pub use discopop::discopop;
pub use dpo::{dpo, robust_dpo, sigmoid_norm};
pub use exo::exo;
pub use f_divergence::FDivergence;
pub use gae::gae;
pub(crate) use group_advantages::all_alike;
pub use group_advantages::{Scaling, group_advantages, leave_one_out};
pub use hinge::hinge;
pub use importance_ratio::{importance_ratio, sequence_log_ratios};
pub use ipo::ipo;
pub use k3::k3;
pub use kto::{KtoWeights, kto, kto_kl};
pub use length_desensitized::length_desensitized_logps;
pub use log1mexp::log1mexp;
pub use nca::nca;
pub use orpo::{log_odds_ratio, orpo};
pub use pair_logps::{PairLogps, pair_logps};
pub use pair_loss::{PairLoss, PairSettings};
pub use pair_losses::PairLosses;
pub use pair_metrics::PairMetrics;
pub use policy_loss::{PolicyLoss, PolicySettings, PolicyTokens};
pub use process_rewards::process_rewards;
pub use reduction::Reduction;
pub use reference_free::{PolicyLogps, ReferenceFreeLoss, ReferenceFreeSettings};
pub use row_logps::{mean_logps, sum_logps};
pub use sapo::sapo;
pub use sft::sft;
pub use simpo::simpo;
pub use sppo::sppo;
pub use token_rewards::token_rewards;
pub use top_entropy::top_entropy_mask;
pub use whiten::whiten;
pub use wpo::wpo_weights;
