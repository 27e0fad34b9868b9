//! The share of agreeing pairs of ratings, including agreement by chance.

/// The share of equal pairs among all pairs of ratings of the same item. `None` if there are no pairs.
///
/// `items[i]` has the ratings of item `i`, with `None` for a missing one. For two raters this is the share of items on
/// which they agree. For several raters without missing ratings it is the mean over pairs of raters, Fleiss' `P̄`.
///
/// ```
/// # use ft_eval::agreement::percent_agreement;
/// let items = [[Some("a"), Some("a"), Some("b")], [Some("a"), None, Some("a")]];
/// assert_eq!(percent_agreement(&items), Some(2.0 / 4.0));
/// ```
pub fn percent_agreement<L: Ord, R: AsRef<[Option<L>]>>(items: &[R]) -> Option<f64> {
    let (mut equal, mut pairs) = (0, 0);
    for item in items {
        let mut ratings: Vec<&L> = item.as_ref().iter().flatten().collect();
        ratings.sort_unstable();
        let n = ratings.len() as u64;
        pairs += n * n.saturating_sub(1);
        for alike in ratings.chunk_by(|a, b| a == b) {
            let n = alike.len() as u64;
            equal += n * (n - 1);
        }
    }
    (pairs > 0).then(|| equal as f64 / pairs as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ratings_are_not_pairs() {
        assert_eq!(percent_agreement::<u8, [_; 2]>(&[]), None);
        assert_eq!(percent_agreement(&[[Some(1), None], [None, Some(1)]]), None);
        assert_eq!(
            percent_agreement(&[[Some(1), None], [Some(2), Some(2)]]),
            Some(1.0)
        );
    }
}
