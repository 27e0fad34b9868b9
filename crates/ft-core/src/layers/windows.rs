//! The attention windows of a decoder's blocks, and their masks.

use ft_kernels::AttentionMask;

use crate::layers::pass::Place;

/// How many tokens back each block sees, itself included; `None` for all.
#[derive(Clone, Debug)]
pub struct Windows {
    /// Each of them once.
    distinct: Vec<Option<usize>>,
    /// Which of them a block has.
    of_layer: Vec<usize>,
}

impl Windows {
    /// The windows of all blocks, in their order.
    pub fn new(windows: impl IntoIterator<Item = Option<usize>>) -> Self {
        let (mut distinct, mut of_layer) = (Vec::new(), Vec::new());
        for window in windows {
            let known = distinct.iter().position(|known| *known == window);
            of_layer.push(known.unwrap_or(distinct.len()));
            if known.is_none() {
                distinct.push(window);
            }
        }
        Self { distinct, of_layer }
    }

    /// The shortest window; none if all blocks see everything.
    pub fn shortest(&self) -> Option<usize> {
        self.distinct.iter().flatten().copied().min()
    }

    /// The masks of a forward pass, one for each distinct window.
    pub fn masks(&self, place: &Place) -> Masks {
        let masks = self.distinct.iter();
        Masks {
            distinct: masks.map(|window| place.causal_mask(*window)).collect(),
            of_layer: self.of_layer.clone(),
        }
    }
}

/// The masks of a forward pass.
#[derive(Clone, Debug)]
pub struct Masks {
    distinct: Vec<AttentionMask>,
    of_layer: Vec<usize>,
}

impl Masks {
    /// The mask of a block.
    pub fn of(&self, layer: usize) -> &AttentionMask {
        &self.distinct[self.of_layer[layer]]
    }
}
