//! ft-train
