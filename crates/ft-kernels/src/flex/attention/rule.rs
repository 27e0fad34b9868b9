//! Which keys a query attends to, and the tiles of queries and keys that follow from it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::attention::{EVERY_SEGMENT, trunk};

/// Queries and keys of a tile. Their scores take 128 KiB, which fits in a core's cache.
pub(super) const QUERIES: usize = 128;
pub(super) const KEYS: usize = 256;
/// Tiles of queries end where a segment does, unless they would have fewer queries than this.
const FEW_QUERIES: usize = 32;

/// The keys that a query attends to, and the factor of the scores.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
    /// The position of the first query among the keys.
    pub(crate) past: usize,
    pub(crate) window: Option<usize>,
    /// The number of keys if queries attend to those after their own position, too, within the window if there is one.
    pub(crate) all_keys: Option<usize>,
    pub(crate) segments: Option<Arc<Segments>>,
}

/// The segments of all keys.
#[derive(Debug)]
pub(crate) struct Segments {
    /// `[batch, keys]`.
    ids: Vec<i64>,
    /// The keys from the first to the last one that the token at each key's place may attend to by its segment,
    /// `[batch, keys]`.
    reach: Vec<Range<usize>>,
}

impl Segments {
    /// `ids` is `[batch, keys]`.
    pub(crate) fn new(ids: Vec<i64>, keys: usize) -> Self {
        let mut reach = Vec::with_capacity(ids.len());
        for row in ids.chunks_exact(keys.max(1)) {
            let mut ranges: HashMap<i64, Range<usize>> = HashMap::new();
            for (key, &segment) in row.iter().enumerate() {
                let range = ranges.entry(segment).or_insert(key..key);
                range.end = key + 1;
            }
            reach.extend(row.iter().map(|&own| {
                let seen = [own, trunk(own), EVERY_SEGMENT];
                let seen = seen.iter().filter_map(|segment| ranges.get(segment));
                seen.fold(keys..0, |all, range| {
                    all.start.min(range.start)..all.end.max(range.end)
                })
            }));
        }
        Self { ids, reach }
    }
}

impl Rule {
    /// Keys outside of this range are not attended to by any of these queries of a row.
    pub(super) fn keys_of(
        &self,
        queries: &Range<usize>,
        batch: usize,
        all_keys: usize,
    ) -> Range<usize> {
        let first = self.past + queries.start;
        let start = self
            .window
            .map_or(0, |window| (first + 1).saturating_sub(window));
        let end = match (self.all_keys, self.window) {
            (None, _) => self.past + queries.end,
            (Some(all), None) => all,
            (Some(all), Some(window)) => all.min(self.past + queries.end - 1 + window),
        };
        let Some(segments) = &self.segments else {
            return start..end;
        };
        let reach = &segments.reach[batch * all_keys..][first..self.past + queries.end];
        let from = reach.iter().map(|range| range.start).min().unwrap_or(0);
        let to = reach.iter().map(|range| range.end).max().unwrap_or(0);
        start.max(from)..end.min(to)
    }

    /// Whether every query of the tile may attend to every key of it.
    pub(super) fn allows_all(
        &self,
        queries: &Range<usize>,
        keys: &Range<usize>,
        batch: usize,
        all_keys: usize,
    ) -> bool {
        let causal = self.all_keys.is_some() || keys.end <= self.past + queries.start + 1;
        let near = self.window.is_none_or(|window| {
            let ahead = self.all_keys.is_none() || keys.end <= self.past + queries.start + window;
            keys.start + window > self.past + queries.end - 1 && ahead
        });
        let alike = || match &self.segments {
            None => true,
            Some(segments) => {
                let ids = &segments.ids[batch * all_keys..][..all_keys];
                let own = ids[self.past + queries.start];
                let queries = self.past + queries.start..self.past + queries.end;
                let all = ids[queries].iter().chain(&ids[keys.clone()]);
                all.into_iter().all(|&segment| segment == own)
            }
        };
        causal && near && alike()
    }

    /// Tiles of at most [`QUERIES`] queries of a row. Queries of different segments share one only if they are few.
    pub(super) fn query_tiles(
        &self,
        batch: usize,
        queries: usize,
        all_keys: usize,
    ) -> Vec<Range<usize>> {
        let Some(segments) = &self.segments else {
            return tiles(0..queries, QUERIES).collect();
        };
        let ids = &segments.ids[batch * all_keys..][..all_keys];
        let ids = &ids[self.past..][..queries];
        let mut all = Vec::new();
        let mut start = 0;
        for query in 1..queries {
            let long = query - start;
            if long == QUERIES || long >= FEW_QUERIES && ids[query] != ids[query - 1] {
                all.push(start..query);
                start = query;
            }
        }
        all.push(start..queries);
        all
    }

    /// Whether the segments forbid every query of the tile every key of it.
    pub(super) fn keeps_apart(
        &self,
        queries: &Range<usize>,
        keys: &Range<usize>,
        batch: usize,
        all_keys: usize,
    ) -> bool {
        let Some(segments) = &self.segments else {
            return false;
        };
        let ids = &segments.ids[batch * all_keys..][..all_keys];
        let mut previous = None;
        queries.clone().all(|query| {
            let own = ids[self.past + query];
            if previous.replace(own) == Some(own) {
                return true;
            }
            let trunk = trunk(own);
            let seen = |key: &i64| *key == own || *key == trunk || *key == EVERY_SEGMENT;
            !ids[keys.clone()].iter().any(seen)
        })
    }

    /// Writes −∞ where a query must not attend to a key.
    pub(super) fn forbid(
        &self,
        scores: &mut [f32],
        queries: &Range<usize>,
        keys: &Range<usize>,
        batch: usize,
        all_keys: usize,
    ) {
        for (row, query) in scores.chunks_exact_mut(keys.len()).zip(queries.clone()) {
            let position = self.past + query;
            let visible = self
                .window
                .map_or(0, |window| (position + 1).saturating_sub(window))
                ..match (self.all_keys, self.window) {
                    (None, _) => position + 1,
                    (Some(all), None) => all,
                    (Some(all), Some(window)) => all.min(position + window),
                };
            for (score, key) in row.iter_mut().zip(keys.clone()) {
                if !visible.contains(&key) {
                    *score = f32::NEG_INFINITY;
                }
            }
            if let Some(segments) = &self.segments {
                let segments = &segments.ids[batch * all_keys..][..all_keys];
                let own = segments[position];
                let trunk = trunk(own);
                for (score, &key) in row.iter_mut().zip(&segments[keys.clone()]) {
                    if key != own && key != trunk && key != EVERY_SEGMENT {
                        *score = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}

/// `range` in steps of `size`.
pub(super) fn tiles(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range
        .step_by(size)
        .map(move |start| start..(start + size).min(end))
}
