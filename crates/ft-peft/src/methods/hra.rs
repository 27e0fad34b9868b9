//! HRA: Bridging The Gap between Low-rank and Orthogonal Adaptation via Householder Reflection Adaptation (Yuan et al.,
//! 2024, arXiv:2405.17484), equation 4: `y = W·H₁ ⋯ H_r·x + b`, with reflections `H = I − 2uuᵀ/‖u‖²`.
//!
//! With normed columns `U` the product is `I − U·T·Uᵀ`, where `T` is the inverse of an upper triangle: that of `UᵀU`, with
//! halves on the diagonal (Schreiber and Van Loan, 1989, SIAM J. Sci. Stat. Comput. 10(1), section 2). It acts on
//! activations at the cost of a low-rank adapter.
//!
//! With `apply_GS` the columns are made orthonormal, `G`, and the product is the reflection `I − 2GGᵀ`. That is never the
//! identity. PEFT nevertheless begins with columns that are equal in pairs, and so normalizes rounding errors. Here the
//! columns begin independent, and the adapter as a random reflection.

use burn::tensor::Tensor;
use ft_core::layers::{AdapterKind, AdapterTensor, At, Merged, Stage};
use serde::{Deserialize, Serialize};

use super::inverse::inverse;
use crate::adapter_config::json_settings;
use crate::method::{Draw, Method, NewAdapter, QUERIES_AND_VALUES, Site, method};
use crate::{Common, Result};

/// Settings of an HRA adapter (Yuan et al., 2024, arXiv:2405.17484).
///
/// The defaults are PEFT's; without `target_modules` it is put on queries and values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HraConfig {
    /// The number of reflections. An adapter begins as the identity only if it is even.
    pub r: usize,
    /// Whether the directions are made orthogonal, in which case the adapter does not begin as the identity.
    #[serde(rename = "apply_GS")]
    pub apply_gs: bool,
    /// Whether the directions begin as equal pairs, which undo each other.
    pub init_weights: bool,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for HraConfig {
    fn default() -> Self {
        Self {
            r: 8,
            apply_gs: false,
            init_weights: true,
            common: Common::default(),
        }
    }
}

json_settings!(HraConfig);

impl Method for HraConfig {
    method!("HRA");

    fn mistakes(&self) -> Vec<String> {
        match self.r {
            0 => vec!["r must be at least 1".to_string()],
            _ => Vec::new(),
        }
    }

    fn default_targets(&self) -> &'static [&'static [&'static str]] {
        &QUERIES_AND_VALUES
    }

    fn bias_only(&self) -> Option<&'static str> {
        Some("hra_only")
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let (features, r) = (site.linear()?.in_features(), self.r);
        let pairs = self.init_weights && !self.apply_gs && r.is_multiple_of(2) && !site.loaded;
        let u = match pairs {
            true => {
                let half = draw.uniform([features, r / 2, 1], (r as f64 / 2.0).powf(-0.5));
                half.repeat_dim(2, 2).reshape([features, r])
            }
            false => draw.uniform([features, r], (r as f64).powf(-0.5)),
        };
        let kind = Hra {
            orthogonal: self.apply_gs,
        };
        Ok(NewAdapter::new(kind, vec![AdapterTensor::new(U, u)]))
    }
}

/// `[in_features, r]`.
const U: &str = "hra_u";

/// A chain of reflections of the input.
#[derive(Clone, Copy, Debug)]
struct Hra {
    /// Whether the directions are made orthogonal.
    orthogonal: bool,
}

impl Hra {
    /// The factors `U` and `T·Uᵀ` of the chain `H₁ ⋯ H_r = I − U·(T·Uᵀ)`.
    fn factors(&self, u: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        if self.orthogonal {
            let g = gram_schmidt(u);
            return (g.clone(), g.transpose() * 2.0);
        }
        let norm = u.clone().square().sum_dim(0).sqrt();
        let u = u / norm;
        let r = u.dims()[1];
        let half = Tensor::<2>::eye(r, &u.device()) * 0.5;
        let t = u.clone().transpose().matmul(u.clone()).triu(1) + half;
        let t = inverse(t.unsqueeze()).squeeze_dim::<2>(0);
        (u.clone(), t.matmul(u.transpose()))
    }
}

/// Orthonormal columns, from the first to the last (modified Gram-Schmidt).
fn gram_schmidt(u: Tensor<2>) -> Tensor<2> {
    let r = u.dims()[1];
    let mut rest = u;
    let mut columns = Vec::new();
    for left in (0..r).rev() {
        let column = rest.clone().narrow(1, 0, 1);
        let column = column.clone() / column.square().sum_dim(0).sqrt();
        if left > 0 {
            rest = rest.narrow(1, 1, left);
            let along = column.clone().transpose().matmul(rest.clone());
            rest = rest - column.clone().matmul(along);
        }
        columns.push(column);
    }
    Tensor::cat(columns, 1)
}

impl AdapterKind for Hra {
    fn input(&self, at: &At<'_>, x: &Tensor<2>) -> Option<Tensor<2>> {
        let (u, tu) = self.factors(at.adapter.val2(U));
        // (H·xᵀ)ᵀ = x·Hᵀ
        Some(x.clone() - x.clone().matmul(tu.transpose()).matmul(u.transpose()))
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        let (u, tu) = self.factors(at.adapter.val2(U));
        let change = merged.weight.clone().matmul(u).matmul(tu);
        Some(Merged {
            weight: merged.weight - change,
            ..merged
        })
    }

    fn stage(&self) -> Stage {
        Stage::Input
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn columns(device: &Device) -> Tensor<2> {
        Tensor::from_data(
            [
                [1.0, 2.0, 0.5],
                [0.0, 1.0, -1.0],
                [-1.0, 0.5, 2.0],
                [2.0, 1.0, 1.0],
            ],
            device,
        )
    }

    #[test]
    fn the_compact_form_is_the_product_of_reflections() {
        let device = Device::default();
        let (u, tu) = Hra { orthogonal: false }.factors(columns(&device));
        let eye = Tensor::<2>::eye(4, &device);
        let compact = eye.clone() - u.matmul(tu);
        let product = (0..3).fold(eye.clone(), |product, i| {
            let u = columns(&device).narrow(1, i, 1);
            let square = u.clone().square().sum().unsqueeze();
            let reflection = eye.clone() - u.clone().matmul(u.transpose()) * 2.0 / square;
            product.matmul(reflection)
        });
        let off = (compact - product).abs().max().into_scalar::<f32>();
        assert!(off < 1e-6, "{off}");
    }

    #[test]
    fn gram_schmidt_keeps_the_span_and_makes_columns_orthonormal() {
        let device = Device::default();
        let g = gram_schmidt(columns(&device));
        let products = g.clone().transpose().matmul(g.clone());
        let off = (products - Tensor::eye(3, &device))
            .abs()
            .max()
            .into_scalar::<f32>();
        assert!(off < 1e-6, "{off}");
        let back = g.clone().matmul(g.transpose()).matmul(columns(&device));
        let off = (back - columns(&device)).abs().max().into_scalar::<f32>();
        assert!(off < 1e-5, "{off}");
    }
}
