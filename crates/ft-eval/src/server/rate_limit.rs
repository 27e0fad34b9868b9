//! Limits of requests and tokens per minute.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::parallel::lock;

/// Spreads requests evenly. Tokens delay the next request.
#[derive(Debug)]
pub(super) struct RateLimit {
    /// Seconds per request.
    request: f64,
    /// Seconds per token.
    token: f64,
    next: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// `None`: no limit.
    pub(super) fn new(requests_per_minute: Option<f64>, tokens_per_minute: Option<f64>) -> Self {
        let seconds = |per_minute: Option<f64>| {
            per_minute
                .filter(|rate| *rate > 0.0)
                .map_or(0.0, |rate| 60.0 / rate)
        };
        Self {
            request: seconds(requests_per_minute),
            token: seconds(tokens_per_minute),
            next: Mutex::new(None),
        }
    }

    /// Waits until the next request is allowed.
    pub(super) fn wait(&self) {
        if self.request == 0.0 && self.token == 0.0 {
            return;
        }
        let now = Instant::now();
        let turn = {
            let mut next = lock(&self.next);
            let turn = next.map_or(now, |next| next.max(now));
            *next = Some(turn + Duration::from_secs_f64(self.request));
            turn
        };
        std::thread::sleep(turn.saturating_duration_since(now));
    }

    /// Counts the tokens of a request.
    pub(super) fn used(&self, tokens: u64) {
        if self.token > 0.0 {
            let mut next = lock(&self.next);
            let from = next.unwrap_or_else(Instant::now);
            *next = Some(from + Duration::from_secs_f64(tokens as f64 * self.token));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_tokens_take_their_time() {
        let start = Instant::now();
        let limit = RateLimit::new(Some(6000.0), None);
        (0..5).for_each(|_| limit.wait());
        assert!(start.elapsed() >= Duration::from_millis(40));
        let start = Instant::now();
        let limit = RateLimit::new(None, Some(60_000.0));
        limit.wait();
        limit.used(50);
        limit.wait();
        assert!(start.elapsed() >= Duration::from_millis(50));
        RateLimit::new(None, None).wait();
    }
}
