//! Plans which tokens are read together: contexts that several continuations share, and beginnings that many
//! contexts share.

use std::collections::HashMap;

/// One continuation and the index of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) request: usize,
    pub(super) tokens: Vec<u32>,
}

/// A context without its group's prefix, and all its continuations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Context {
    /// At least one token.
    pub(super) tokens: Vec<u32>,
    pub(super) asked: Vec<Asked>,
}

/// Contexts with a common beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// The common beginning; may be empty.
    pub(super) prefix: Vec<u32>,
    /// Contexts of similar length, which are read at once.
    pub(super) batches: Vec<Vec<Context>>,
}

/// The least number of common tokens that justifies a separate pass.
const LEAST_PREFIX: usize = 32;
/// The least number of contexts that justifies a separate pass.
const LEAST_CONTEXTS: usize = 4;
/// The cache may hold this many times the tokens of a batch.
const CACHED: usize = 4;

/// Groups and batches of `(request, context, continuation)`, each at most `batch_tokens` wide unless
/// one context is longer.
pub(super) fn plan(requests: Vec<(usize, Vec<u32>, Vec<u32>)>, batch_tokens: usize) -> Vec<Group> {
    let mut of_context: HashMap<Vec<u32>, Vec<Asked>> = HashMap::new();
    for (request, context, tokens) in requests {
        let asked = of_context.entry(context).or_default();
        asked.push(Asked { request, tokens });
    }
    let mut contexts: Vec<Context> = of_context
        .into_iter()
        .map(|(tokens, asked)| Context { tokens, asked })
        .collect();
    contexts.sort_unstable_by(|a, b| a.tokens.cmp(&b.tokens));
    let mut groups = Vec::new();
    let mut alone = Vec::new();
    for run in runs(&contexts) {
        let (len, prefix) = run;
        let members = contexts.drain(..len);
        if len < LEAST_CONTEXTS || prefix < LEAST_PREFIX {
            alone.extend(members);
            continue;
        }
        let members: Vec<Context> = members.collect();
        let shared = members[0].tokens[..prefix].to_vec();
        let rest = members.into_iter().map(|mut context| {
            context.tokens.drain(..prefix);
            context
        });
        groups.push(Group {
            batches: batches(rest.collect(), prefix, batch_tokens),
            prefix: shared,
        });
    }
    if !alone.is_empty() {
        groups.push(Group {
            prefix: Vec::new(),
            batches: batches(alone, 0, batch_tokens),
        });
    }
    groups
}

/// Neighbours of the sorted contexts with a common beginning, as `(contexts, common tokens)`. A context joins a group if
/// the group keeps at least half of its common tokens.
fn runs(contexts: &[Context]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut first: &[u32] = &[];
    for context in contexts {
        let tokens = &context.tokens;
        // At least one token is read with the context: its hidden state is needed.
        let common = common(first, tokens).min(tokens.len() - 1);
        match runs.last_mut() {
            Some((len, prefix)) if common >= LEAST_PREFIX && 2 * common >= *prefix => {
                *len += 1;
                *prefix = common.min(*prefix);
            }
            _ => {
                runs.push((1, tokens.len() - 1));
                first = tokens;
            }
        }
    }
    runs
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The longest first, so that a lack of memory shows at the start.
fn batches(mut contexts: Vec<Context>, prefix: usize, batch_tokens: usize) -> Vec<Vec<Context>> {
    contexts.sort_by_key(|context| std::cmp::Reverse(context.tokens.len()));
    let mut batches: Vec<Vec<Context>> = Vec::new();
    for context in contexts {
        match batches.last_mut() {
            Some(batch) if fits(batch.len() + 1, batch[0].tokens.len(), prefix, batch_tokens) => {
                batch.push(context);
            }
            _ => batches.push(vec![context]),
        }
    }
    batches
}

fn fits(rows: usize, longest: usize, prefix: usize, batch_tokens: usize) -> bool {
    rows * longest <= batch_tokens && rows * (prefix + longest) <= CACHED * batch_tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(i: usize, context: &[u32], continuation: &[u32]) -> (usize, Vec<u32>, Vec<u32>) {
        (i, context.to_vec(), continuation.to_vec())
    }

    /// Every request is in the plan once, under its whole context.
    fn requests(groups: &[Group]) -> Vec<(usize, Vec<u32>, Vec<u32>)> {
        let mut found = Vec::new();
        for group in groups {
            for context in group.batches.iter().flatten() {
                let whole = [&group.prefix[..], &context.tokens].concat();
                for asked in &context.asked {
                    found.push((asked.request, whole.clone(), asked.tokens.clone()));
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_context_is_read_once_for_all_its_continuations() {
        let asked = vec![
            request(0, &[1, 2], &[3]),
            request(1, &[7], &[3, 4]),
            request(2, &[1, 2], &[5, 6]),
        ];
        let groups = plan(asked.clone(), 100);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].batches.len(), 1);
        let sizes: Vec<usize> = (groups[0].batches[0].iter().map(|c| c.asked.len())).collect();
        assert_eq!(sizes, [2, 1]);
        assert_eq!(requests(&groups), asked);
    }

    #[test]
    fn long_common_beginnings_are_read_once() {
        let shots: Vec<u32> = (100..200).collect();
        let other: Vec<u32> = (300..360).collect();
        let mut asked = Vec::new();
        for i in 0..10u32 {
            asked.push(request(i as usize, &[&shots[..], &[i, 1]].concat(), &[5]));
            asked.push(request(
                10 + i as usize,
                &[&other[..], &[i, 1]].concat(),
                &[5],
            ));
        }
        // One that shares little, and one that equals the prefix.
        asked.push(request(20, &shots[..3], &[5]));
        asked.push(request(21, &shots, &[5]));
        asked.sort();
        let groups = plan(asked.clone(), 64);
        let prefixes: Vec<usize> = groups.iter().map(|group| group.prefix.len()).collect();
        assert_eq!(prefixes, [99, 60, 0]);
        assert_eq!(requests(&groups), asked);
        assert!(
            groups
                .iter()
                .flat_map(|g| &g.batches)
                .flatten()
                .all(|c| !c.tokens.is_empty())
        );
    }

    #[test]
    fn batches_are_as_wide_as_allowed() {
        let asked: Vec<_> = (0..50)
            .map(|i| request(i, &vec![i as u32; 1 + i % 7], &[1]))
            .collect();
        let groups = plan(asked.clone(), 20);
        for batch in groups.iter().flat_map(|group| &group.batches) {
            assert!(batch.len() * batch[0].tokens.len() <= 20);
            assert!(
                batch
                    .iter()
                    .all(|c| c.tokens.len() <= batch[0].tokens.len())
            );
        }
        assert_eq!(requests(&groups), asked);
        // One that is longer than allowed is read alone.
        let long = plan(
            vec![request(0, &[1; 30], &[1]), request(1, &[2; 30], &[1])],
            20,
        );
        assert_eq!(long[0].batches.len(), 2);
        assert!(plan(Vec::new(), 20).is_empty());
    }
}
