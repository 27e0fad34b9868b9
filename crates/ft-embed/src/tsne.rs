//! t-SNE: embeddings as points of a plane, neighbours near each other.
//!
//! The exact method of van der Maaten and Hinton (2008), *Visualizing data using t-SNE*, JMLR 9: similarities `p_ij` of
//! the embeddings (equations 1 and 2, with a width for each point that gives the perplexity; symmetrized by section 3.1), similarities
//! `q_ij` of the points by Student's t-distribution (equation 4), and descent on `KL(P || Q)` with its gradient (equation 5), momentum and
//! gains. It begins at the first two principal components, as scikit-learn does, so that it is the same each time.

use rayon::prelude::*;

use crate::{Embeddings, Error, Result};

/// More points than these would need gigabytes for the similarities of all pairs.
pub const MOST_POINTS: usize = 2000;

/// Settings of [`tsne`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TsneConfig {
    /// The effective number of neighbours of a point. At most a third of the other points are taken.
    pub perplexity: f64,
    /// The number of steps. In the first 250 of them similarities are multiplied by 12, so that groups form.
    pub steps: usize,
}

impl Default for TsneConfig {
    fn default() -> Self {
        Self {
            perplexity: 30.0,
            steps: 1000,
        }
    }
}

/// Points of a plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Tsne {
    /// A point for each embedding.
    pub points: Vec<[f64; 2]>,
    /// `KL(P || Q)` of the points.
    pub kl_divergence: f64,
}

/// Steps with exaggerated similarities, and their factor.
const EXAGGERATED: usize = 250;
const EXAGGERATION: f64 = 12.0;
/// The least similarity, against divisions by zero.
const LEAST: f64 = 1e-12;

/// Puts embeddings into a plane. Distances are Euclidean: normalize embeddings that are compared by cosine.
///
/// ```
/// use ft_embed::{Embeddings, TsneConfig, tsne};
///
/// let values = (0..10).flat_map(|i| [f32::from(i < 5), 0.01 * i as f32]).collect();
/// let found = tsne(&Embeddings::new(values, 2)?, &TsneConfig::default())?;
/// let distance = |a: usize, b: usize| {
///     let (a, b) = (found.points[a], found.points[b]);
///     (a[0] - b[0]).hypot(a[1] - b[1])
/// };
/// assert!(distance(0, 4) < distance(0, 5));
/// # Ok::<(), ft_embed::Error>(())
/// ```
///
/// # Errors
///
/// If there are fewer than 4 or more than [`MOST_POINTS`] embeddings, a number is not finite, or the perplexity is below 1.
pub fn tsne(embeddings: &Embeddings, config: &TsneConfig) -> Result<Tsne> {
    embeddings.check_finite()?;
    let count = embeddings.len();
    if !(4..=MOST_POINTS).contains(&count) {
        return Err(Error::Embeddings(format!(
            "t-SNE is for 4 to {MOST_POINTS} embeddings, not {count}: take a sample"
        )));
    }
    if config.perplexity.is_nan() || config.perplexity < 1.0 {
        return Err(Error::Settings(format!(
            "the perplexity is {}: it must be 1 or more",
            config.perplexity
        )));
    }
    let perplexity = config.perplexity.min((count - 1) as f64 / 3.0).max(1.0);
    let similar = similarities(embeddings, perplexity);
    let mut points = principal_components(embeddings);
    // As scikit-learn: a fourth of the rate of Belkina et al., 2019, doi:10.1038/s41467-019-13055-y, since its gradient has the factor 4.
    let rate = (count as f64 / EXAGGERATION / 4.0).max(50.0);
    let (mut moves, mut gains) = (vec![[0.0_f64; 2]; count], vec![[1.0_f64; 2]; count]);
    for step in 0..config.steps {
        let (factor, momentum) = match step < EXAGGERATED {
            true => (EXAGGERATION, 0.5),
            false => (1.0, 0.8),
        };
        let gradient = gradient(&points, &similar, factor);
        for (i, slope) in gradient.iter().enumerate() {
            for (axis, slope) in slope.iter().enumerate() {
                let (gain, step) = (&mut gains[i][axis], &mut moves[i][axis]);
                // Where a point moves on downhill, steps become larger.
                *gain = match slope * *step < 0.0 {
                    true => *gain + 0.2,
                    false => (*gain * 0.8).max(0.01),
                };
                *step = momentum * *step - rate * *gain * slope;
                points[i][axis] += *step;
            }
        }
    }
    let kl_divergence = divergence(&points, &similar);
    Ok(Tsne {
        points,
        kl_divergence,
    })
}

/// `p_ij`, `[count, count]`, which sum to 1.
fn similarities(embeddings: &Embeddings, perplexity: f64) -> Vec<f64> {
    let count = embeddings.len();
    let mut conditional: Vec<f64> = vec![0.0; count * count];
    conditional
        .par_chunks_exact_mut(count)
        .enumerate()
        .for_each(|(i, row)| {
            for (j, value) in row.iter_mut().enumerate() {
                let pairs = embeddings.row(i).iter().zip(embeddings.row(j));
                *value = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
            }
            conditional_row(row, i, perplexity);
        });
    let both = |i: usize, j: usize| conditional[i * count + j] + conditional[j * count + i];
    let mut similar = vec![0.0; count * count];
    similar
        .par_chunks_exact_mut(count)
        .enumerate()
        .for_each(|(i, row)| {
            for (j, value) in row.iter_mut().enumerate() {
                if i != j {
                    *value = (both(i, j) / (2.0 * count as f64)).max(LEAST);
                }
            }
        });
    similar
}

/// Turns squared distances to point `own` into `p_j|i`, with the width that gives the perplexity.
fn conditional_row(row: &mut [f64], own: usize, perplexity: f64) {
    let others = row.iter().enumerate().filter(|(j, _)| *j != own);
    let nearest = others.map(|(_, d)| *d).fold(f64::INFINITY, f64::min);
    let distances: Vec<f64> = row.iter().map(|d| d - nearest).collect();
    let wanted = perplexity.ln();
    let (mut low, mut high, mut precision) = (0.0, f64::INFINITY, 1.0);
    for _ in 0..100 {
        let mut sum = 0.0;
        let mut mean = 0.0;
        for (j, (value, distance)) in row.iter_mut().zip(&distances).enumerate() {
            *value = match j == own {
                true => 0.0,
                false => (-distance * precision).exp(),
            };
            sum += *value;
            mean += *value * distance;
        }
        row.iter_mut().for_each(|value| *value /= sum);
        // The entropy of the row, which falls with the precision.
        let entropy = sum.ln() + precision * mean / sum;
        if (entropy - wanted).abs() < 1e-9 {
            break;
        }
        match entropy > wanted {
            true => low = precision,
            false => high = precision,
        }
        precision = match high.is_finite() {
            true => f64::midpoint(low, high),
            false => 2.0 * precision,
        };
    }
}

/// The first two principal components, scaled so that the first has a standard deviation of 1e-4.
fn principal_components(embeddings: &Embeddings) -> Vec<[f64; 2]> {
    let (count, dims) = (embeddings.len(), embeddings.dims());
    let mut mean = vec![0.0; dims];
    for row in embeddings.rows() {
        mean.iter_mut()
            .zip(row)
            .for_each(|(mean, x)| *mean += f64::from(*x) / count as f64);
    }
    let centered: Vec<Vec<f64>> = (embeddings.rows())
        .map(|row| {
            row.iter()
                .zip(&mean)
                .map(|(x, m)| f64::from(*x) - m)
                .collect()
        })
        .collect();
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let project =
        |axis: &[f64]| -> Vec<f64> { centered.par_iter().map(|row| dot(row, axis)).collect() };
    // Power iteration on the covariance, from fixed directions; the second axis stays orthogonal to the first.
    let mut axes: Vec<Vec<f64>> = Vec::new();
    for number in 0..dims.min(2) {
        let start = |i: usize| ((i * (2 * number + 3) + 1) as f64).sin();
        let mut axis: Vec<f64> = (0..dims).map(start).collect();
        for _ in 0..200 {
            for other in &axes {
                let along = dot(&axis, other);
                axis.iter_mut()
                    .zip(other)
                    .for_each(|(x, y)| *x -= along * y);
            }
            let length = dot(&axis, &axis).sqrt();
            if length < 1e-300 {
                break;
            }
            axis.iter_mut().for_each(|x| *x /= length);
            let along = project(&axis);
            let mut next = vec![0.0; dims];
            for (row, along) in centered.iter().zip(&along) {
                next.iter_mut()
                    .zip(row)
                    .for_each(|(next, x)| *next += along * x);
            }
            let change = dot(&next, &next).sqrt();
            if change < 1e-300 {
                break;
            }
            next.iter_mut().for_each(|x| *x /= change);
            let turned = 1.0 - dot(&next, &axis).abs();
            axis = next;
            if turned < 1e-14 {
                break;
            }
        }
        for other in &axes {
            let along = dot(&axis, other);
            axis.iter_mut()
                .zip(other)
                .for_each(|(x, y)| *x -= along * y);
        }
        axes.push(axis);
    }
    let columns: Vec<Vec<f64>> = axes.iter().map(|axis| project(axis)).collect();
    let first = &columns[0];
    let deviation = (dot(first, first) / count as f64).sqrt().max(1e-300);
    (0..count)
        .map(|i| [0, 1].map(|axis| columns.get(axis).map_or(0.0, |c| c[i] / deviation * 1e-4)))
        .collect()
}

/// The numerator of `q_ij`: `1 / (1 + |y_i - y_j|²)`.
fn closeness(a: [f64; 2], b: [f64; 2]) -> f64 {
    1.0 / (1.0 + (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2))
}

/// The sum of all numerators of `q`.
fn closeness_sum(points: &[[f64; 2]]) -> f64 {
    // Sums of rows are added in order, so that the result does not depend on threads.
    let rows: Vec<f64> = points
        .par_iter()
        .map(|&a| points.iter().map(|&b| closeness(a, b)).sum::<f64>() - 1.0)
        .collect();
    rows.iter().sum()
}

/// `4 Σ_j (factor·p_ij − q_ij)(y_i − y_j) / (1 + |y_i − y_j|²)`
fn gradient(points: &[[f64; 2]], similar: &[f64], factor: f64) -> Vec<[f64; 2]> {
    let sum = closeness_sum(points);
    points
        .par_iter()
        .zip(similar.par_chunks_exact(points.len()))
        .map(|(&own, similar)| {
            let mut slope = [0.0; 2];
            for (&other, p) in points.iter().zip(similar) {
                let close = closeness(own, other);
                let pull = 4.0 * (factor * p - close / sum) * close;
                slope[0] += pull * (own[0] - other[0]);
                slope[1] += pull * (own[1] - other[1]);
            }
            slope
        })
        .collect()
}

fn divergence(points: &[[f64; 2]], similar: &[f64]) -> f64 {
    let sum = closeness_sum(points);
    let rows: Vec<f64> = points
        .par_iter()
        .zip(similar.par_chunks_exact(points.len()))
        .map(|(&own, similar)| {
            let pairs = points.iter().zip(similar).filter(|(_, p)| **p > 0.0);
            pairs
                .map(|(&other, p)| p * (p / (closeness(own, other) / sum).max(LEAST)).ln())
                .sum()
        })
        .collect();
    rows.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_similarities_have_the_perplexity() {
        let mut row: Vec<f64> = (0..40)
            .map(|j| f64::from((j * 7 % 40) as u32).powi(2))
            .collect();
        conditional_row(&mut row, 0, 9.0);
        assert_eq!(row[0], 0.0);
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let entropy: f64 = row.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        assert!((entropy.exp() - 9.0).abs() < 1e-6, "{entropy}");
    }

    /// The gradient against finite differences of the divergence.
    #[test]
    fn the_gradient_is_that_of_the_divergence() {
        let values = (0..24).map(|i| ((i * 37 % 19) as f32) / 9.0).collect();
        let similar = similarities(&Embeddings::new(values, 3).expect("rows"), 2.0);
        let mut points: Vec<[f64; 2]> = (0..8)
            .map(|i| [f64::from(i).sin(), f64::from(i * i).cos()])
            .collect();
        let found = gradient(&points, &similar, 1.0);
        for (i, axis) in [(0, 0), (3, 1), (7, 0)] {
            let mut at = |shift: f64| {
                points[i][axis] += shift;
                let value = divergence(&points, &similar);
                points[i][axis] -= shift;
                value
            };
            let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!((found[i][axis] - slope).abs() < 1e-6, "{slope} {found:?}");
        }
    }

    #[test]
    fn what_cannot_be_shown_is_an_error() {
        let few = Embeddings::new(vec![0.0; 6], 2).expect("rows");
        assert!(tsne(&few, &TsneConfig::default()).is_err());
        let many = Embeddings::new(vec![0.0; MOST_POINTS + 1], 1).expect("rows");
        assert!(tsne(&many, &TsneConfig::default()).is_err());
        // All in one place.
        let same = Embeddings::new(vec![1.0; 20], 2).expect("rows");
        let found = tsne(&same, &TsneConfig::default()).expect("points");
        assert!(found.points.iter().flatten().all(|x| x.is_finite()));
    }
}
