//! Whether a scheme fits a model.

use ft_core::Parts;

use crate::{Granularity, Scheme};

/// What is wrong with a scheme for the linear layers of a model but its output layer: the bits are not from 2 to 8, all numbers
/// of a matrix share a grid, or groups do not divide columns.
pub(crate) fn mistakes(model: &impl Parts, scheme: &Scheme) -> Vec<String> {
    let mut wrong = Vec::new();
    if !(2..=8).contains(&scheme.bits) {
        wrong.push(format!("{} bits: give 2 to 8", scheme.bits));
    }
    match scheme.granularity {
        Granularity::Channel => {}
        Granularity::Tensor => {
            wrong.push("weights are rounded in rows or groups, not as a whole".into());
        }
        Granularity::Group(size) => {
            let mut layers: Vec<(String, usize)> = Vec::new();
            let output = model.output_layer();
            model.for_each_linear(&mut |path, linear| {
                let cols = linear.in_features();
                let known = layers.iter().any(|(_, known)| *known == cols);
                if path != output && (size == 0 || !cols.is_multiple_of(size)) && !known {
                    layers.push((path.to_string(), cols));
                }
            });
            wrong.extend(layers.into_iter().map(|(path, cols)| {
                format!("groups of {size} do not divide the {cols} columns of {path}")
            }));
        }
    }
    wrong
}
