//! LoRA+ (Hayou et al., 2024, arXiv:2402.12354): `B` learns faster than `A`.

use crate::{ParamGroup, Selection};

/// The group of LoRA+ for a run whose learning rate is `learning_rate`: the factors `B` of adapters, and what of them has one
/// dimension, learn `ratio` times as fast as `A` (Hayou et al., 2024, arXiv:2402.12354, section 4).
///
/// The paper recommends a ratio of 16 and, since `B` learns faster, a lower rate for the run than plain LoRA has. As in every
/// group, what has one dimension is spared weight decay. Factors on embeddings learn slower in PEFT, at `1e-6`: give them a
/// group of their own, before this one.
///
/// ```
/// use ft_train::{ParamGroup, Selection, lora_plus};
///
/// let learning_rate = 1e-4;
/// let embeddings = ParamGroup {
///     learning_rate: Some(1e-6),
///     ..ParamGroup::new([Selection::Regex(r".*\.lora_embedding_[AB]".into())])
/// };
/// // Without factors on embeddings leave out their group: one that selects nothing is an error.
/// let groups = [embeddings, lora_plus(learning_rate, 16.0)]; // for `Trainer::with_groups`
/// assert_eq!(groups[1].learning_rate, Some(1.6e-3));
/// ```
pub fn lora_plus(learning_rate: f64, ratio: f64) -> ParamGroup {
    let b = r".*\.adapters\.[^.]*\.(lora_B\.weight|lora_magnitude_vector|(.*\.)?bias)";
    ParamGroup {
        learning_rate: Some(learning_rate * ratio),
        ..ParamGroup::new([Selection::Regex(b.into())])
    }
}
