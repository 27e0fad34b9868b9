//! Factors of a symmetric positive definite matrix, in blocks, so that almost all of the work is products of matrices.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

/// The size of blocks that are factored number by number.
const BLOCK: usize = 64;

/// The upper triangular `U` with `A⁻¹ = UᵀU`, for `A` `[n, n]` in row-major order; none if `A` is not positive definite.
///
/// With the order of rows and columns reversed, `A = R·Rᵀ` with an upper triangular `R`, so `U = R⁻¹`: one factorization and
/// the inverse of a triangle, where the inverse of `A` and two factorizations would take three times as long.
pub(crate) fn inverse_factor(a: &[f32], n: usize, device: &Device) -> Option<Vec<f32>> {
    let mut lower: Vec<f32> = a.iter().rev().copied().collect();
    factor(&mut lower, n, device)?;
    let mut inverse = invert(&lower, n, device);
    inverse.reverse();
    Some(inverse)
}

/// Replaces the lower triangle of `A` by `L` with `A = L·Lᵀ`, and the upper one by zeros.
fn factor(a: &mut [f32], n: usize, device: &Device) -> Option<()> {
    for start in (0..n).step_by(BLOCK) {
        let end = (start + BLOCK).min(n);
        let size = end - start;
        // The block on the diagonal, in f64.
        let mut block = vec![0.0f64; size * size];
        for i in 0..size {
            for j in 0..=i {
                let dot: f64 = (0..j)
                    .map(|k| block[i * size + k] * block[j * size + k])
                    .sum();
                let rest = f64::from(a[(start + i) * n + start + j]) - dot;
                block[i * size + j] = if i > j {
                    rest / block[j * size + j]
                } else if rest > 0.0 && rest.is_finite() {
                    rest.sqrt()
                } else {
                    return None;
                };
            }
        }
        let (above, below) = a.split_at_mut(end * n);
        for (i, row) in above[start * n..].chunks_exact_mut(n).enumerate() {
            row[start..end].fill(0.0);
            for j in 0..=i {
                row[start + j] = block[i * size + j] as f32;
            }
            row[end..].fill(0.0);
        }
        // The rows below: x·Lᵀ = a.
        below.par_chunks_exact_mut(n).for_each(|row| {
            let row = &mut row[start..end];
            for j in 0..size {
                let dot: f64 = (0..j)
                    .map(|k| f64::from(row[k]) * block[j * size + k])
                    .sum();
                row[j] = ((f64::from(row[j]) - dot) / block[j * size + j]) as f32;
            }
        });
        let rest = n - end;
        if rest > 0 {
            let panel: Vec<f32> = (below.chunks_exact(n))
                .flat_map(|row| row[start..end].to_vec())
                .collect();
            let panel = Tensor::<2>::from_data(TensorData::new(panel, [rest, size]), device);
            let product = numbers(panel.clone().matmul(panel.transpose()));
            (below.par_chunks_exact_mut(n))
                .zip(product.par_chunks_exact(rest))
                .for_each(|(row, product)| {
                    for (a, product) in row[end..].iter_mut().zip(product) {
                        *a -= product;
                    }
                });
        }
    }
    Some(())
}

/// The inverse of a lower triangle, by halves: `[[A, 0], [B, C]]⁻¹ = [[A⁻¹, 0], [−C⁻¹·B·A⁻¹, C⁻¹]]`.
fn invert(lower: &[f32], n: usize, device: &Device) -> Vec<f32> {
    let mut inverse = vec![0.0; n * n];
    if n <= BLOCK {
        // Column by column of the inverse, in f64.
        for col in 0..n {
            let mut x = vec![0.0f64; n];
            for i in col..n {
                let dot: f64 = (col..i).map(|k| f64::from(lower[i * n + k]) * x[k]).sum();
                let one = if i == col { 1.0 } else { 0.0 };
                x[i] = (one - dot) / f64::from(lower[i * n + i]);
                inverse[i * n + col] = x[i] as f32;
            }
        }
        return inverse;
    }
    let half = (n / 2).next_multiple_of(BLOCK);
    let rest = n - half;
    let part = |rows: std::ops::Range<usize>, cols: std::ops::Range<usize>| -> Vec<f32> {
        rows.flat_map(|row| lower[row * n + cols.start..row * n + cols.end].to_vec())
            .collect()
    };
    let a = invert(&part(0..half, 0..half), half, device);
    let c = invert(&part(half..n, half..n), rest, device);
    let tensor = |data: &[f32], shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(data.to_vec(), shape), device)
    };
    let b = tensor(&part(half..n, 0..half), [rest, half]);
    let corner = tensor(&c, [rest, rest])
        .matmul(b)
        .matmul(tensor(&a, [half, half]))
        .neg();
    let corner = numbers(corner);
    for (row, a) in a.chunks_exact(half).enumerate() {
        inverse[row * n..][..half].copy_from_slice(a);
    }
    for (row, (corner, c)) in corner
        .chunks_exact(half)
        .zip(c.chunks_exact(rest))
        .enumerate()
    {
        let row = &mut inverse[(half + row) * n..][..n];
        row[..half].copy_from_slice(corner);
        row[half..].copy_from_slice(c);
    }
    inverse
}

pub(crate) fn numbers(x: Tensor<2>) -> Vec<f32> {
    x.into_data()
        .convert::<f32>()
        .try_into_vec::<f32>()
        .expect("converted to f32")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_is_a_product_of_the_factor_with_itself() {
        let device = Device::default();
        for n in [1, 5, 64, 65, 200] {
            let x: Vec<f32> = (0..n * n)
                .map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0)
                .collect();
            let x = Tensor::<2>::from_data(TensorData::new(x, [n, n]), &device);
            let a = x.clone().matmul(x.transpose()) + Tensor::<2>::eye(n, &device) * n as f64;
            let u = inverse_factor(&numbers(a.clone()), n, &device).expect("positive definite");
            for (i, row) in u.chunks_exact(n).enumerate() {
                assert!(row[..i].iter().all(|x| *x == 0.0), "upper triangular");
            }
            let u = Tensor::<2>::from_data(TensorData::new(u, [n, n]), &device);
            let identity = numbers(u.clone().transpose().matmul(u).matmul(a));
            for (i, x) in identity.iter().enumerate() {
                let expected = if i % n == i / n { 1.0 } else { 0.0 };
                assert!((x - expected).abs() < 1e-4, "{n}: {x} at {i}");
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_has_no_factor() {
        // Eigenvalues 3 and −1.
        assert!(inverse_factor(&[1.0, 2.0, 2.0, 1.0], 2, &Device::default()).is_none());
    }
}
