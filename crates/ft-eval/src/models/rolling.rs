//! Whole texts in windows of the model's length.

use super::scoring::Pair;

/// The windows of a text, in which each token is scored once. The first window follows `prefix`; each other window
/// follows as many of the tokens before it as there is room for, at least one.
///
/// These are the windows of lm-evaluation-harness with a context of one token, made disjoint.
pub(super) fn windows(tokens: &[u32], prefix: u32, most: usize) -> Vec<Pair> {
    let mut windows = Vec::new();
    let first = tokens.len().min(most);
    if first > 0 {
        windows.push(Pair {
            context: vec![prefix],
            continuation: tokens[..first].to_vec(),
        });
    }
    let mut scored = first;
    while scored < tokens.len() {
        let end = (scored + most).min(tokens.len());
        windows.push(Pair {
            context: tokens[end - most - 1..scored].to_vec(),
            continuation: tokens[scored..end].to_vec(),
        });
        scored = end;
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(tokens: u32, most: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
        let tokens: Vec<u32> = (1..=tokens).collect();
        let windows = windows(&tokens, 0, most).into_iter();
        windows.map(|w| (w.context, w.continuation)).collect()
    }

    /// Values of `get_rolling_token_windows` and `make_disjoint_window` of lm_eval 0.4.13.
    #[test]
    fn windows_are_those_of_the_reference() {
        assert_eq!(shown(0, 4), []);
        assert_eq!(shown(3, 4), [(vec![0], vec![1, 2, 3])]);
        assert_eq!(
            shown(10, 4),
            [
                (vec![0], vec![1, 2, 3, 4]),
                (vec![4], vec![5, 6, 7, 8]),
                (vec![6, 7, 8], vec![9, 10]),
            ]
        );
        assert_eq!(shown(2, 1), [(vec![0], vec![1]), (vec![1], vec![2])]);
    }
}
