//! A mixture of streams.

use ft_core::mix_seed;
use serde_json::{Value, json};

use super::{Next, Stream, foreign, number};
use crate::{Error, Result};

const KIND: &str = "interleave";

/// When a mixture ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoppingStrategy {
    /// When a row is drawn from a stream that has none left.
    #[default]
    FirstExhausted,
    /// When every stream has ended once; those that end earlier begin again.
    AllExhausted,
}

pub(super) struct Interleave {
    streams: Vec<Box<dyn Stream>>,
    /// As text, in which they are compared to the bit.
    probabilities: Option<Vec<String>>,
    /// The sums of the probabilities up to each stream; empty if streams take turns.
    sums: Vec<f64>,
    seed: u64,
    stopping: StoppingStrategy,
    epoch: u64,
    drawn: u64,
    /// How often each stream has ended.
    ends: Vec<u64>,
    /// Whether each stream has given a row that can be used since it began.
    any: Vec<bool>,
    /// Whether the mixture has ended.
    ended: bool,
}

impl Interleave {
    pub(super) fn new(
        streams: Vec<Box<dyn Stream>>,
        probabilities: Option<&[f64]>,
        seed: u64,
        stopping: StoppingStrategy,
    ) -> Result<Self> {
        if streams.is_empty() {
            return Err(Error::Settings("there are no streams to mix".to_string()));
        }
        Ok(Self {
            sums: sums(probabilities, streams.len())?,
            probabilities: probabilities.map(|all| all.iter().map(f64::to_string).collect()),
            ends: vec![0; streams.len()],
            any: vec![false; streams.len()],
            streams,
            seed,
            stopping,
            epoch: 0,
            drawn: 0,
            ended: false,
        })
    }
}

/// The sums of probabilities up to each of `count` sources, the last one exactly 1.
pub(crate) fn sums(probabilities: Option<&[f64]>, count: usize) -> Result<Vec<f64>> {
    let Some(probabilities) = probabilities else {
        return Ok(Vec::new());
    };
    let fine = |p: &f64| p.is_finite() && *p > 0.0;
    if probabilities.len() != count || !probabilities.iter().all(fine) {
        return Err(Error::Settings(format!(
            "the probabilities are {probabilities:?}: {count} positive numbers are needed, one for each source"
        )));
    }
    let total: f64 = probabilities.iter().sum();
    let mut sum = 0.0;
    let mut sums: Vec<f64> = probabilities
        .iter()
        .map(|p| {
            sum += p / total;
            sum
        })
        .collect();
    sums[count - 1] = 1.0;
    Ok(sums)
}

/// From which source draw number `drawn` is.
pub(crate) fn source(sums: &[f64], count: usize, seed: u64, drawn: u64) -> usize {
    if sums.is_empty() {
        return (drawn % count as u64) as usize;
    }
    // 53 random bits, in [0, 1).
    let uniform = (mix_seed(seed, drawn) >> 11) as f64 / (1u64 << 53) as f64;
    sums.partition_point(|&sum| sum <= uniform)
}

impl Stream for Interleave {
    fn next(&mut self) -> Next {
        while !self.ended {
            let seed = mix_seed(self.seed, self.epoch);
            let at = source(&self.sums, self.streams.len(), seed, self.drawn);
            if let Some(row) = self.streams[at].next()? {
                // A row that cannot be used is not one of the mixture.
                self.drawn += u64::from(row.is_ok());
                self.any[at] |= row.is_ok();
                return Ok(Some(row));
            }
            self.ends[at] += 1;
            self.ended = match self.stopping {
                StoppingStrategy::FirstExhausted => true,
                StoppingStrategy::AllExhausted => self.ends.iter().all(|&ends| ends > 0),
            };
            if !self.ended {
                if !self.any[at] {
                    return Err(Error::Dataset(format!(
                        "source {} of the mixture has no rows that can be used, so it cannot begin again",
                        at + 1
                    )));
                }
                self.any[at] = false;
                self.streams[at].restart(mix_seed(self.epoch, self.ends[at]))?;
            }
        }
        Ok(None)
    }

    fn description(&self) -> Value {
        let inner = self.streams.iter().map(|stream| stream.description());
        json!({
            "kind": KIND,
            "probabilities": self.probabilities,
            "seed": self.seed,
            "stopping": format!("{:?}", self.stopping),
            "inner": inner.collect::<Vec<_>>(),
        })
    }

    fn state(&self) -> Value {
        let inner: Vec<_> = self.streams.iter().map(|stream| stream.state()).collect();
        json!({
            "kind": KIND,
            "epoch": self.epoch,
            "drawn": self.drawn,
            "ends": self.ends,
            "any": self.any,
            "ended": self.ended,
            "inner": inner,
        })
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let ends: Option<Vec<u64>> =
            (state["ends"].as_array()).and_then(|ends| ends.iter().map(Value::as_u64).collect());
        let any: Option<Vec<bool>> =
            (state["any"].as_array()).and_then(|any| any.iter().map(Value::as_bool).collect());
        let (Some(ends), Some(any), Some(inner), Some(ended)) = (
            ends,
            any,
            state["inner"].as_array(),
            state["ended"].as_bool(),
        ) else {
            return Err(foreign(state, KIND));
        };
        let count = self.streams.len();
        let counts = [inner.len(), ends.len(), any.len()];
        if state["kind"] != KIND || counts != [count; 3] {
            return Err(foreign(state, &format!("{KIND} of {count} streams")));
        }
        self.epoch = number(state, "epoch", KIND)?;
        self.drawn = number(state, "drawn", KIND)?;
        (self.ends, self.any, self.ended) = (ends, any, ended);
        for (stream, state) in self.streams.iter_mut().zip(inner) {
            stream.restore(state)?;
        }
        Ok(())
    }

    fn restart(&mut self, epoch: u64) -> Result<()> {
        (self.epoch, self.drawn, self.ended) = (epoch, 0, false);
        self.ends.fill(0);
        self.any.fill(false);
        self.streams
            .iter_mut()
            .try_for_each(|stream| stream.restart(epoch))
    }
}
