//! The best few of many scores.

use super::Hit;

/// Whether the first hit comes before the second: a higher score, or the lower number among equal ones.
pub(super) fn before(a: &Hit, b: &Hit) -> std::cmp::Ordering {
    b.score
        .total_cmp(&a.score)
        .then(a.document.cmp(&b.document))
}

/// The `k` best hits seen so far.
///
/// Hits that may belong to them are collected, and cut down whenever there are twice as many as are kept. So most scores
/// cost one comparison, with the least score that is still kept.
#[derive(Debug)]
pub(super) struct Top {
    k: usize,
    least: f32,
    hits: Vec<Hit>,
}

impl Top {
    pub(super) fn new(k: usize) -> Self {
        Self {
            k,
            least: f32::NEG_INFINITY,
            hits: Vec::with_capacity(2 * k.min(1 << 16)),
        }
    }

    /// Looks at the scores of documents `first`, `first + 1`, ...; numbers rise from call to call.
    pub(super) fn push_all(&mut self, first: usize, scores: &[f32]) {
        // Blocks whose maximum is too low are passed without a look at each of their scores.
        for (block, scores) in scores.chunks(16).enumerate() {
            let most = scores
                .iter()
                .fold(f32::NEG_INFINITY, |most, &score| most.max(score));
            // As numbers rise, an equal score comes after those that are kept.
            if most <= self.least {
                continue;
            }
            for (i, &score) in scores.iter().enumerate() {
                self.push(first + block * 16 + i, score);
            }
        }
    }

    pub(super) fn push(&mut self, document: usize, score: f32) {
        if score <= self.least || self.k == 0 {
            return;
        }
        self.hits.push(Hit { document, score });
        if self.hits.len() >= 2 * self.k {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.hits.len() > self.k {
            self.hits.select_nth_unstable_by(self.k - 1, before);
            self.hits.truncate(self.k);
        }
        if self.hits.len() == self.k {
            let scores = self.hits.iter().map(|hit| hit.score);
            self.least = scores.fold(f32::INFINITY, f32::min);
        }
    }

    /// The best hits, the best first.
    pub(super) fn sorted(mut self) -> Vec<Hit> {
        self.cut();
        self.hits.sort_unstable_by(before);
        self.hits.truncate(self.k);
        self.hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_those_of_a_full_sort() {
        let scores: Vec<f32> = (0..500u32)
            .map(|i| (i.wrapping_mul(7919) % 50) as f32)
            .collect();
        let mut all: Vec<Hit> = (scores.iter().enumerate())
            .map(|(document, &score)| Hit { document, score })
            .collect();
        all.sort_by(before);
        for k in [0, 1, 3, 17, 499, 500, 900] {
            let mut top = Top::new(k);
            top.push_all(0, &scores[..123]);
            top.push_all(123, &scores[123..]);
            assert_eq!(top.sorted(), all[..k.min(500)], "{k}");
        }
    }
}
