//! Rewards of a batch on several threads, none of which can stop the training.
//!
//! Workers take completions from one queue. The calling thread watches them: a call of a reward that takes too long is
//! given up, and a new worker takes the place of the one that it holds. Threads cannot be killed, so that one stays behind
//! until the reward returns. At most [`MOST_THREADS`] exist, working or left behind; when all of them are left behind,
//! what remains of the batch has no score.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::completion::OwnedCompletion;
use super::{BoxError, Completion, Failure, FailureKind, Reward, Scores};

/// The most threads that score or are left behind.
const MOST_THREADS: usize = 64;

/// Threads that are left behind and still run.
static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);

/// The scores of all rewards for all completions, computed on all cores.
///
/// A reward that panics, returns an error or a number that is not finite, or does not return within `time_limit` from the
/// beginning of its call has no score there, and a [`Failure`] with the reason. None of these stops the others. A program that is
/// compiled with `panic = "abort"` ends at a panic.
///
/// A reward with a time limit of its own, such as `CodeTests`, needs a shorter one than this.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use ft_align::reward::{Completion, PromptRef, by_name, score_batch};
/// use serde_json::{Map, json};
///
/// let columns = Map::from_iter([("answer".to_string(), json!("#### 4"))]);
/// let completions = ["The answer is 4.", "<reasoning>2 + 2</reasoning> <answer>4</answer>"].map(|text| Completion {
///     prompt: PromptRef::Text("2 + 2?"),
///     text,
///     token_count: 5,
///     finished: true,
///     columns: &columns,
/// });
/// let rewards = [by_name("gsm8k")?, by_name("format")?];
/// let scores = score_batch(&rewards, &completions, Duration::from_secs(10));
/// assert_eq!(scores.values, [[Some(1.0), Some(1.0)], [Some(0.0), Some(1.0)]]);
/// assert_eq!(scores.warning(), None);
/// # Ok::<(), ft_align::Error>(())
/// ```
pub fn score_batch(
    rewards: &[Arc<dyn Reward>],
    completions: &[Completion<'_>],
    time_limit: Duration,
) -> Scores {
    let mut scores = Scores {
        names: rewards
            .iter()
            .map(|reward| reward.name().to_string())
            .collect(),
        values: vec![vec![None; completions.len()]; rewards.len()],
        failures: Vec::new(),
    };
    let work = Arc::new(Work::new(rewards, completions));
    let mut watch = Watch::start(&work);
    let mut open = work.calls.len();
    while open > 0 {
        if watch.workers == 0 {
            while let Some((_, call)) = work.next() {
                let message = format!(
                    "not started, since {} threads of rewards that were given up still run",
                    LEFT_BEHIND.load(Ordering::Relaxed)
                );
                call.fail(&mut scores, FailureKind::Timeout, &message);
            }
            break;
        }
        match watch.next(time_limit) {
            Some((index, result)) => {
                work.calls[index].record(&mut scores, result);
                open -= 1;
            }
            None => {
                for index in watch.give_up(&work, time_limit) {
                    let message = format!("no score within {time_limit:?}");
                    work.calls[index].fail(&mut scores, FailureKind::Timeout, &message);
                    open -= 1;
                }
            }
        }
    }
    (scores.failures).sort_by_key(|failure| (failure.reward, failure.completion));
    scores
}

/// What a call gave: the scores, or the message of a panic.
type CallResult = Result<Vec<Result<Option<f64>, BoxError>>, String>;

enum Event {
    Started(usize, Instant),
    Ended(usize, CallResult),
}

/// A batch, cut into calls.
struct Work {
    rewards: Vec<Arc<dyn Reward>>,
    completions: Vec<OwnedCompletion>,
    calls: Vec<Call>,
    next: AtomicUsize,
}

/// One call of a reward.
struct Call {
    reward: usize,
    completions: Range<usize>,
    state: AtomicU8,
}

const OPEN: u8 = 0;
const ENDED: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Work {
    fn new(rewards: &[Arc<dyn Reward>], completions: &[Completion<'_>]) -> Self {
        let count = completions.len();
        let mut calls = Vec::new();
        for (reward, batch_size) in rewards
            .iter()
            .map(|reward| reward.batch_size().max(1))
            .enumerate()
        {
            calls.extend((0..count).step_by(batch_size).map(|start| Call {
                reward,
                completions: start..start.saturating_add(batch_size).min(count),
                state: AtomicU8::new(OPEN),
            }));
        }
        Self {
            rewards: rewards.to_vec(),
            completions: completions.iter().map(OwnedCompletion::new).collect(),
            calls,
            next: AtomicUsize::new(0),
        }
    }

    /// The next call that nobody has taken.
    fn next(&self) -> Option<(usize, &Call)> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        Some((index, self.calls.get(index)?))
    }

    /// Makes calls until none is left, or one of them was given up meanwhile.
    fn run(&self, events: &Sender<Event>) {
        while let Some((index, call)) = self.next() {
            // The receiver lives until all calls have ended or were given up.
            events.send(Event::Started(index, Instant::now())).ok();
            let completions: Vec<Completion<'_>> = (self.completions[call.completions.clone()]
                .iter())
            .map(OwnedCompletion::borrowed)
            .collect();
            let reward = &self.rewards[call.reward];
            let result = catch_unwind(AssertUnwindSafe(|| reward.score_all(&completions)));
            if !call.close(ENDED) {
                LEFT_BEHIND.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            let result = result.map_err(|panic| panic_message(panic.as_ref()));
            events.send(Event::Ended(index, result)).ok();
        }
    }
}

impl Call {
    /// Ends the call or gives it up, whichever comes first. Returns whether it was this.
    fn close(&self, state: u8) -> bool {
        let swapped =
            (self.state).compare_exchange(OPEN, state, Ordering::AcqRel, Ordering::Acquire);
        swapped.is_ok()
    }

    fn record(&self, scores: &mut Scores, result: CallResult) {
        let results = match result {
            Ok(results) => results,
            Err(message) => return self.fail(scores, FailureKind::Panic, &message),
        };
        if results.len() != self.completions.len() {
            let message = format!(
                "it returned {} scores for {} completions",
                results.len(),
                self.completions.len()
            );
            return self.fail(scores, FailureKind::Error, &message);
        }
        for (completion, result) in self.completions.clone().zip(results) {
            let message = match result {
                Ok(Some(score)) if !score.is_finite() => format!("the score is {score}"),
                Ok(score) => {
                    scores.values[self.reward][completion] = score;
                    continue;
                }
                Err(error) => error.to_string(),
            };
            self.failure(scores, completion, FailureKind::Error, message);
        }
    }

    fn fail(&self, scores: &mut Scores, kind: FailureKind, message: &str) {
        for completion in self.completions.clone() {
            self.failure(scores, completion, kind, message.to_string());
        }
    }

    fn failure(&self, scores: &mut Scores, completion: usize, kind: FailureKind, message: String) {
        scores.failures.push(Failure {
            reward: self.reward,
            completion,
            kind,
            message,
        });
    }
}

/// The workers of a batch, as the calling thread sees them.
struct Watch {
    /// Workers that are not left behind.
    workers: usize,
    running: BTreeMap<usize, Instant>,
    sender: Sender<Event>,
    events: Receiver<Event>,
}

impl Watch {
    fn start(work: &Arc<Work>) -> Self {
        let (sender, events) = channel();
        let mut watch = Self {
            workers: 0,
            running: BTreeMap::new(),
            sender,
            events,
        };
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        while watch.workers < cores.min(work.calls.len()) && watch.hire(work) {}
        watch
    }

    /// Starts a worker. Returns false if there are too many threads.
    fn hire(&mut self, work: &Arc<Work>) -> bool {
        if self.workers + LEFT_BEHIND.load(Ordering::Relaxed) >= MOST_THREADS {
            return false;
        }
        let (work, sender) = (Arc::clone(work), self.sender.clone());
        let name = "ft-reward".to_string();
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || work.run(&sender));
        self.workers += usize::from(thread.is_ok());
        thread.is_ok()
    }

    /// The next call that ends. None if one is over its time before that.
    fn next(&mut self, time_limit: Duration) -> Option<(usize, CallResult)> {
        loop {
            let first = self.running.values().min();
            let left = first.map_or(Duration::MAX, |start| {
                time_limit.saturating_sub(start.elapsed())
            });
            match self.events.recv_timeout(left).ok()? {
                Event::Started(index, at) => {
                    self.running.insert(index, at);
                }
                Event::Ended(index, result) => {
                    self.running.remove(&index);
                    return Some((index, result));
                }
            }
        }
    }

    /// Gives up the calls that are over their time, and replaces their workers.
    fn give_up(&mut self, work: &Arc<Work>, time_limit: Duration) -> Vec<usize> {
        let late = self.running.iter();
        let late: Vec<usize> = late
            .filter(|(_, start)| start.elapsed() >= time_limit)
            .map(|(&index, _)| index)
            .collect();
        let mut given_up = Vec::new();
        for index in late {
            // Counted before the worker can count itself out.
            LEFT_BEHIND.fetch_add(1, Ordering::Relaxed);
            if work.calls[index].close(GIVEN_UP) {
                self.running.remove(&index);
                self.workers -= 1;
                self.hire(work);
                given_up.push(index);
            } else {
                // It has just ended; its event is on the way.
                LEFT_BEHIND.fetch_sub(1, Ordering::Relaxed);
            }
        }
        given_up
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_string()
}
