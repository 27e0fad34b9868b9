//! How a run shows that it is alive: a bar on a terminal, plain lines elsewhere, on stderr.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{Evaluation, Metrics, StepRecord, TrainConfig};

/// Where progress goes.
#[derive(Debug)]
pub(crate) enum Progress {
    /// A bar on a terminal.
    Bar(ProgressBar),
    /// A line every so many steps.
    Lines {
        every: usize,
        total: usize,
        began: Instant,
        first: usize,
    },
    /// Nowhere.
    Silent,
}

impl Progress {
    /// Progress of a run of `total` steps that has `done` behind it.
    pub(crate) fn new(config: &TrainConfig, total: usize, done: usize) -> Self {
        if !config.progress {
            return Self::Silent;
        }
        if std::io::stderr().is_terminal() {
            let template =
                "{wide_bar} step {pos}/{len}, {msg}, {elapsed_precise} + {eta_precise} to go";
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total as u64).with_style(style);
            bar.set_position(done as u64);
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(500));
            return Self::Bar(bar);
        }
        Self::Lines {
            every: config.logging_steps,
            total,
            began: Instant::now(),
            first: done,
        }
    }

    /// After a step.
    pub(crate) fn step(&self, record: &StepRecord) {
        match self {
            Self::Bar(bar) => {
                bar.set_message(brief(record));
                bar.set_position(record.step as u64);
            }
            Self::Lines {
                every,
                total,
                began,
                first,
            } => {
                let step = record.step;
                if step.is_multiple_of(*every) || step == *total || step == first + 1 {
                    let seconds = began.elapsed().as_secs_f64() / (step - first) as f64
                        * (total - step) as f64;
                    line(&format!(
                        "step {step}/{total} (epoch {:.2}): {}, grad norm {:.3}, {} to go",
                        record.epoch,
                        brief(record),
                        record.grad_norm,
                        duration(seconds),
                    ));
                }
            }
            Self::Silent => {}
        }
    }

    /// Before an evaluation or a checkpoint, which may take a while.
    pub(crate) fn doing(&self, what: &'static str) {
        if let Self::Bar(bar) = self {
            bar.set_message(what);
        }
    }

    /// After an evaluation.
    pub(crate) fn evaluation(&self, evaluation: &Evaluation) {
        let main = std::iter::once((String::new(), &evaluation.metrics));
        let sets = evaluation.sets.iter();
        for (set, metrics) in main.chain(sets.map(|(name, found)| (format!(" on {name}"), found))) {
            self.say(&format!(
                "evaluation{set} at step {}: loss {:.4}, perplexity {:.3} over {} tokens{}",
                evaluation.step,
                metrics.loss,
                metrics.perplexity,
                metrics.tokens,
                listed(&metrics.metrics)
            ));
        }
    }

    /// A line of its own.
    pub(crate) fn say(&self, text: &str) {
        match self {
            Self::Bar(bar) => bar.suspend(|| line(text)),
            Self::Lines { .. } => line(text),
            Self::Silent => {}
        }
    }

    /// After the last step.
    pub(crate) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish();
        }
    }
}

impl Drop for Progress {
    /// Leaves the terminal in order where an error ended the run.
    fn drop(&mut self) {
        if let Self::Bar(bar) = self
            && !bar.is_finished()
        {
            bar.abandon();
        }
    }
}

fn brief(record: &StepRecord) -> String {
    format!(
        "loss {:.4}{}, lr {:.2e}, {:.0} tokens/s",
        record.loss,
        listed(&record.metrics),
        record.learning_rate,
        record.tokens_per_s
    )
}

/// `, name value` for each.
fn listed(metrics: &Metrics) -> String {
    let each = metrics.iter();
    each.map(|(name, value)| format!(", {name} {value:.4}"))
        .collect()
}

/// Hours, minutes, seconds.
fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{:02}", seconds % 60)
    } else {
        format!("{minutes}:{:02}", seconds % 60)
    }
}

/// A closed stderr is no reason to end a training run.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_a_clock() {
        assert_eq!(duration(59.6), "1:00");
        assert_eq!(duration(3_725.0), "1:02:05");
    }
}
