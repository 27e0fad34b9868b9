//! A judge's verdict as a reward.

use ft_align::reward::{BoxError, Completion, PromptRef, Reward};
use ft_core::Message;
use ft_eval::judges::{ChatModel, Item, Panel, PointJudge, Scale, judge_each};

/// The verdict of a judge on each completion, from 0 (the worst) to 1 (the best).
///
/// A completion without a valid verdict has no score; the reason is reported. With a
/// [`CachedModel`](ft_eval::judges::CachedModel) as judge, replies are stored, so that a resumed run asks for none twice.
///
/// Completions are judged on several threads, so a server gets as many requests at a time as `score_batch` has threads.
pub struct JudgeReward<M> {
    model: M,
    judge: PointJudge,
    panel: Panel,
}

impl<M: ChatModel + Send> JudgeReward<M> {
    /// A reward with the name `judge`.
    pub fn new(model: M, judge: PointJudge, panel: Panel) -> Self {
        Self {
            model,
            judge,
            panel: Panel {
                concurrency: 1,
                ..panel
            },
        }
    }
}

impl<M: ChatModel + Send> Reward for JudgeReward<M> {
    fn name(&self) -> &str {
        "judge"
    }

    fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError> {
        let item = Item {
            prompt: match completion.prompt {
                PromptRef::Text(text) => text.to_string(),
                PromptRef::Messages(messages) => conversation_text(messages),
            },
            response: completion.text.to_string(),
            reference: None,
        };
        let mut quiet = |_, _| {};
        let found = judge_each(&self.model, &self.judge, &[item], &self.panel, &mut quiet);
        let verdict = found.into_iter().next().ok_or("there is no verdict")?;
        let verdict = verdict.map_err(|missing| {
            format!(
                "the judge gave no valid verdict in {} attempts: {}",
                missing.attempts, missing.reason
            )
        })?;
        Ok(Some(match self.judge.scale {
            Scale::Binary => verdict.score,
            // A scale of one point has no differences.
            Scale::Points(most) => (verdict.score - 1.0) / f64::from(most.max(2) - 1),
        }))
    }
}

/// Messages as a judge reads them: a single one as it is, several with their roles.
pub fn conversation_text(messages: &[Message]) -> String {
    match messages {
        [one] => one.text().unwrap_or_default().to_string(),
        several => {
            let turns = several
                .iter()
                .map(|turn| format!("{}: {}", turn.role, turn.text().unwrap_or_default()));
            turns.collect::<Vec<_>>().join("\n\n")
        }
    }
}
