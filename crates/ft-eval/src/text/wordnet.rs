//! Synonyms of English words from WordNet 3.0, as in NLTK's METEOR.
//!
//! The lemmas of a word (Miller et al., "Introduction to WordNet", 1990; the rules are those of WordNet's `morphy`) are,
//! for each part of speech, the word itself, and either the entries in the list of exceptions ("mice" to "mouse") or the
//! word with each matching ending replaced ("dogs" to "dog"). The synonyms are the other words of the lemmas' synsets.
//! METEOR compares lower-cased single words, so the packed file has no names with a capital and no terms of several
//! words. `assets/wordnet.py` creates it, and compares it with NLTK on 900,000 forms.

use std::collections::HashMap;
use std::io::Read;
use std::sync::OnceLock;

use flate2::read::GzDecoder;

static PACKED: &[u8] = include_bytes!("../../assets/wordnet-3.0.txt.gz");

/// Endings of nouns, verbs, adjectives and adverbs, and their replacements.
const ENDINGS: [&[(&str, &str)]; 4] = [
    &[
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ],
    &[
        ("s", ""),
        ("ies", "y"),
        ("es", "e"),
        ("es", ""),
        ("ed", "e"),
        ("ed", ""),
        ("ing", "e"),
        ("ing", ""),
    ],
    &[("er", ""), ("est", ""), ("er", "e"), ("est", "e")],
    &[],
];

/// A part of speech.
struct Words {
    /// For each lemma its synsets. A synset is its words, separated by spaces.
    synsets: HashMap<&'static str, Vec<&'static str>>,
    /// For each irregular form its lemmas, with a space between them.
    exceptions: HashMap<&'static str, &'static str>,
    endings: &'static [(&'static str, &'static str)],
}

impl Words {
    fn each_synset(&self, lemma: &str, visit: &mut impl FnMut(&'static str)) {
        for words in self.synsets.get(lemma).into_iter().flatten() {
            words.split(' ').for_each(&mut *visit);
        }
    }

    fn each_synonym(&self, word: &str, visit: &mut impl FnMut(&'static str)) {
        self.each_synset(word, visit);
        if let Some(lemmas) = self.exceptions.get(word) {
            for lemma in lemmas.split(' ') {
                self.each_synset(lemma, visit);
            }
            return;
        }
        for (ending, replacement) in self.endings {
            if let Some(stem) = word.strip_suffix(ending) {
                self.each_synset(&format!("{stem}{replacement}"), visit);
            }
        }
    }
}

/// Calls `visit` with each synonym of a word in lower case, some of them more than once.
pub(crate) fn each_synonym(word: &str, mut visit: impl FnMut(&'static str)) {
    for words in parts_of_speech() {
        words.each_synonym(word, &mut visit);
    }
}

fn parts_of_speech() -> &'static [Words; 4] {
    static TEXT: OnceLock<String> = OnceLock::new();
    static WORDS: OnceLock<[Words; 4]> = OnceLock::new();
    WORDS.get_or_init(|| {
        let text = TEXT.get_or_init(|| {
            let mut text = String::new();
            GzDecoder::new(PACKED)
                .read_to_string(&mut text)
                .expect("the packed file is part of the library");
            text
        });
        let sections: Vec<&'static str> = text.split("\n\n").collect();
        std::array::from_fn(|i| {
            let mut synsets: HashMap<_, Vec<_>> = HashMap::new();
            for line in sections[i].lines() {
                let (words, keys) = line.split_once('|').unwrap_or((line, ""));
                for lemma in words.split(' ').chain(keys.split_terminator(' ')) {
                    synsets.entry(lemma).or_default().push(words);
                }
            }
            Words {
                synsets,
                exceptions: sections[i + 4]
                    .lines()
                    .filter_map(|line| line.split_once(' '))
                    .collect(),
                endings: ENDINGS[i],
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synonyms(word: &str) -> Vec<&str> {
        let mut found = Vec::new();
        each_synonym(word, |synonym| found.push(synonym));
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn rules_and_exceptions_lead_to_lemmas() {
        // The single lower-case words of NLTK's wordnet.synsets.
        assert_eq!(synonyms("mice"), ["mouse", "shiner"]);
        assert_eq!(
            synonyms("couches"),
            ["cast", "couch", "frame", "lounge", "put", "redact", "sofa"]
        );
        assert_eq!(synonyms("xyzzy"), [""; 0]);
        assert_eq!(synonyms(""), [""; 0]);
    }

    #[test]
    fn a_name_and_a_term_have_synonyms() {
        assert!(synonyms("ice_cream").contains(&"icecream"));
        assert!(!synonyms("rome").contains(&"Rome"));
    }
}
