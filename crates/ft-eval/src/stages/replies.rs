//! Faults of a reply that are found without a judge.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Marks of chat templates and prompts that a reply must not contain. If it does, the model does not end its
/// turn, or was trained with another template.
const TEMPLATE_MARKS: [&str; 14] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|user|>",
    "<|assistant|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "### Instruction:",
    "### Response:",
];

/// The number of words in a phrase.
const PHRASE: usize = 4;

/// A reply loops if more than this share of its phrases are repetitions.
const LOOPING: f64 = 0.5;

/// Faults of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyFaults {
    /// The reply is empty or white space.
    pub empty: bool,
    /// Contains a mark of a chat template.
    pub leaks_template: bool,
    /// Loops: more than half of its runs of four words are repetitions.
    pub loops: bool,
}

impl ReplyFaults {
    /// Whether there is any fault.
    pub fn any(self) -> bool {
        self.empty || self.leaks_template || self.loops
    }
}

/// The faults of a reply.
///
/// ```
/// use ft_eval::stages::reply_faults;
///
/// assert!(!reply_faults("Paris is the capital of France.").any());
/// assert!(reply_faults(" \n").empty);
/// assert!(reply_faults("Paris.<|im_end|>").leaks_template);
/// assert!(reply_faults(&"I do not know what to say. ".repeat(5)).loops);
/// ```
pub fn reply_faults(reply: &str) -> ReplyFaults {
    ReplyFaults {
        empty: reply.trim().is_empty(),
        leaks_template: TEMPLATE_MARKS.iter().any(|mark| reply.contains(mark)),
        loops: repeated_phrases(reply) > LOOPING,
    }
}

/// The share of runs of [`PHRASE`] words that occurred before in the same reply.
fn repeated_phrases(reply: &str) -> f64 {
    let words: Vec<&str> = reply.split_whitespace().collect();
    let mut seen: HashMap<&[&str], usize> = HashMap::new();
    for phrase in words.windows(PHRASE) {
        *seen.entry(phrase).or_default() += 1;
    }
    let phrases: usize = seen.values().sum();
    match phrases {
        0 => 0.0,
        _ => (phrases - seen.len()) as f64 / phrases as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_replies_and_lists_do_not_loop() {
        assert!(!reply_faults("no no no").loops);
        let list = (1..30).map(|i| format!("- item {i} is blue\n"));
        assert!(!reply_faults(&list.collect::<String>()).loops);
        assert_eq!(repeated_phrases("a b c d a b c d"), 0.2);
    }
}
