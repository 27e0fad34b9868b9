//! Pairs of sampled answers that something compares: a judge, a reward, or a person.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ptr;

use ft_data::PromptExample;

use crate::ScoredRollout;

/// Two answers to one prompt, to be compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison<'a> {
    /// The prompt.
    pub prompt: &'a PromptExample,
    /// One answer.
    pub first: &'a ScoredRollout,
    /// Another answer.
    pub second: &'a ScoredRollout,
}

/// Two answers to one prompt, of which one is preferred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgedPair<'a> {
    /// The prompt.
    pub prompt: &'a PromptExample,
    /// The better answer.
    pub chosen: &'a ScoredRollout,
    /// The other answer.
    pub rejected: &'a ScoredRollout,
}

/// The first answer to each prompt with each of the others that has another text.
pub fn comparisons<'a>(
    prompts: &'a [PromptExample],
    answers: &'a [Vec<ScoredRollout>],
) -> Vec<Comparison<'a>> {
    let of_prompt = |(prompt, answers): (&'a PromptExample, &'a Vec<ScoredRollout>)| {
        let mut answers = answers.iter();
        let first = answers.next();
        let mut texts: HashSet<&str> = HashSet::from_iter(first.map(|one| &*one.rollout.text));
        let others = answers.filter(move |one| texts.insert(&one.rollout.text));
        let pairs = others.filter_map(move |second| {
            Some(Comparison {
                prompt,
                first: first?,
                second,
            })
        });
        pairs.collect::<Vec<_>>()
    };
    prompts.iter().zip(answers).flat_map(of_prompt).collect()
}

impl<'a> Comparison<'a> {
    /// The pair, if the answers are not equally good: `Greater` if the first one is the better one.
    pub fn judged(self, first_to_second: Ordering) -> Option<JudgedPair<'a>> {
        let [chosen, rejected] = match first_to_second {
            Ordering::Greater => [self.first, self.second],
            Ordering::Less => [self.second, self.first],
            Ordering::Equal => return None,
        };
        Some(JudgedPair {
            prompt: self.prompt,
            chosen,
            rejected,
        })
    }
}

/// The answers that were preferred and have lost no comparison, each once, in the order of the pairs.
pub fn undefeated<'a>(pairs: &[JudgedPair<'a>]) -> Vec<(&'a PromptExample, &'a ScoredRollout)> {
    let lost: HashSet<*const ScoredRollout> = pairs
        .iter()
        .map(|pair| ptr::from_ref(pair.rejected))
        .collect();
    let mut seen = HashSet::new();
    let won = pairs.iter().filter(|pair| {
        let answer = ptr::from_ref(pair.chosen);
        !lost.contains(&answer) && seen.insert(answer)
    });
    won.map(|pair| (pair.prompt, pair.chosen)).collect()
}

#[cfg(test)]
mod tests {
    use ft_core::Rollout;
    use ft_data::{Prompt, PromptSample};
    use serde_json::Map;

    use super::*;

    fn prompt(text: &str) -> PromptExample {
        PromptExample {
            input_ids: vec![1],
            sample: PromptSample {
                prompt: Prompt::Text(text.into()),
                tools: None,
                columns: Map::new(),
            },
        }
    }

    fn answers(texts: &[&str]) -> Vec<ScoredRollout> {
        let answers = texts.iter().map(|text| ScoredRollout {
            rollout: Rollout {
                text: (*text).into(),
                ..Rollout::default()
            },
            ..ScoredRollout::default()
        });
        answers.collect()
    }

    fn texts<'a>(pairs: &[JudgedPair<'a>]) -> Vec<[&'a str; 2]> {
        let texts = pairs.iter().map(|pair| [pair.chosen, pair.rejected]);
        texts
            .map(|pair| pair.map(|one| &*one.rollout.text))
            .collect()
    }

    /// The longer answer is better, and answers of the same length are equally good.
    fn by_length<'a>(
        prompts: &'a [PromptExample],
        answers: &'a [Vec<ScoredRollout>],
    ) -> Vec<JudgedPair<'a>> {
        let length = |one: &ScoredRollout| one.rollout.text.len();
        let judged = comparisons(prompts, answers)
            .into_iter()
            .filter_map(|one| one.judged(length(one.first).cmp(&length(one.second))));
        judged.collect()
    }

    #[test]
    fn the_preferred_side_is_chosen_and_ties_are_left_out() {
        let prompts = [prompt("a"), prompt("b"), prompt("c"), prompt("d")];
        let answers = [
            answers(&["two", "three", "of", "two", "of", "one"]),
            answers(&["alone"]),
            answers(&[]),
            answers(&["xy", "x"]),
        ];
        let pairs = by_length(&prompts, &answers);
        assert_eq!(
            texts(&pairs),
            [["three", "two"], ["two", "of"], ["xy", "x"]]
        );
        assert!(ptr::eq(pairs[2].prompt, &prompts[3]));
    }

    #[test]
    fn the_best_answers_have_lost_no_comparison() {
        let prompts = [prompt("a"), prompt("b")];
        let answers = [
            answers(&["two", "of", "three", "a"]),
            answers(&["xyz", "xy", "x"]),
        ];
        let pairs = by_length(&prompts, &answers);
        let best = undefeated(&pairs);
        // `two` beats `of` before and `a` after it loses to `three`; `xyz` wins twice and is there once.
        let found: Vec<&str> = best.iter().map(|(_, one)| &*one.rollout.text).collect();
        assert_eq!(found, ["three", "xyz"]);
        assert!(ptr::eq(best[1].0, &prompts[1]));
    }
}
