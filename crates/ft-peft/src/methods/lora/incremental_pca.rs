//! Principal components of rows that come in batches (Ross et al., 2008, Incremental Learning for Robust Visual Tracking,
//! section 3.1).

use crate::linalg::{Matrix, Singular, add_scaled, dot, largest, norm};

/// The components of the rows so far.
#[derive(Clone, Debug)]
pub(super) struct IncrementalPca {
    count: usize,
    seen: f64,
    mean: Vec<f64>,
    /// `Σ‖x − mean‖²` over all rows.
    spread: f64,
    found: Option<Singular>,
    /// How near each component is to that before the last batch: the cosine of their angle.
    pub(super) agreement: Vec<f64>,
}

impl IncrementalPca {
    /// An analysis into this many components.
    pub(super) fn new(count: usize) -> Self {
        Self {
            count,
            seen: 0.0,
            mean: Vec::new(),
            spread: 0.0,
            found: None,
            agreement: vec![0.0; count],
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Singular values and components, as the rows of `right`; none before the first batch.
    pub(super) fn found(&self) -> Option<&Singular> {
        self.found.as_ref()
    }

    /// The share of the rows' variance that each component explains.
    pub(super) fn explained(&self) -> Vec<f64> {
        let values = self.found.iter().flat_map(|found| &found.values);
        values.map(|value| value * value / self.spread).collect()
    }

    /// Adds rows. A batch with fewer rows than components is ignored.
    pub(super) fn add(&mut self, rows: &Matrix) {
        let (count, width) = (rows.rows(), rows.cols());
        if count < self.count {
            return;
        }
        let new = count as f64;
        let total = self.seen + new;
        let mut mean = vec![0.0; width];
        rows.all_rows()
            .for_each(|row| add_scaled(&mut mean, row, 1.0 / new));
        let mut centred = rows.clone();
        for i in 0..count {
            add_scaled(centred.row_mut(i), &mean, -1.0);
        }
        self.spread += centred.all_rows().map(|row| dot(row, row)).sum::<f64>();
        let stacked = match &self.found {
            None => {
                self.mean = mean;
                centred
            }
            Some(found) => {
                let mut moved = self.mean.clone();
                add_scaled(&mut moved, &mean, -1.0);
                let weight = (self.seen * new / total).sqrt();
                moved.iter_mut().for_each(|x| *x *= weight);
                self.spread += dot(&moved, &moved);
                for (old, new_mean) in self.mean.iter_mut().zip(&mean) {
                    *old += (new_mean - *old) * new / total;
                }
                let before = found
                    .right
                    .clone()
                    .rows_scaled(found.values.iter().copied());
                let rows = before.all_rows().chain(centred.all_rows());
                Matrix::of_rows(width, rows.chain([&moved[..]]))
            }
        };
        self.seen = total;
        let found = largest(&stacked, self.count);
        if let Some(before) = &self.found {
            let pairs = before.right.all_rows().zip(found.right.all_rows());
            // The sign of a component is arbitrary.
            let cosine =
                |(a, b): (&[f64], &[f64])| dot(a, b).abs() / (norm(a) * norm(b)).max(1e-300);
            self.agreement = pairs.map(cosine).collect();
        }
        self.found = Some(found);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// With all components kept, batches give what all rows at once give.
    #[test]
    fn batches_give_what_all_rows_give() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut rows = Matrix::random(60, 5, &mut rng);
        for i in 0..60 {
            for (j, x) in rows.row_mut(i).iter_mut().enumerate() {
                *x = *x * (5 - j) as f64 + j as f64;
            }
        }
        let mut whole = IncrementalPca::new(5);
        whole.add(&rows);
        let mut parts = IncrementalPca::new(5);
        for part in [0..20, 20..27, 27..60] {
            parts.add(&Matrix::of_rows(5, part.map(|i| rows.row(i))));
        }
        let pairs = whole.explained().into_iter().zip(parts.explained());
        for (i, (a, b)) in pairs.enumerate() {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
            let component =
                |pca: &IncrementalPca| pca.found().expect("found").right.row(i).to_vec();
            assert!((dot(&component(&whole), &component(&parts)).abs() - 1.0).abs() < 1e-12);
        }
        assert!((whole.explained().iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_batch_with_fewer_rows_than_components_is_left_out() {
        let mut pca = IncrementalPca::new(4);
        pca.add(&Matrix::random(3, 6, &mut StdRng::seed_from_u64(1)));
        assert!(pca.found().is_none());
    }
}
