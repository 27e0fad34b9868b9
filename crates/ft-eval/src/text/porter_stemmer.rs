//! The Porter stemmer in NLTK's default variant, which rouge_score and METEOR use.
//!
//! Porter, "An algorithm for suffix stripping", Program 14(3), 1980: five steps with a list of suffixes each. The first
//! matching suffix is replaced if the stem before it is long enough. The length of a stem is its measure m, the number
//! of changes from vowels to consonants: `[C](VC){m}[V]`. NLTK's variant (`PorterStemmer.NLTK_EXTENSIONS`) adds a dozen
//! irregular words, does not change words of one or two letters, and changes the rules for -ies, -ied, -y, -alli,
//! -fulli and -logi. It is not Porter2, the later "English" stemmer of Snowball, which gives other stems.
//!
//! As in NLTK, every character except `aeiou` and a `y` after a consonant is a consonant: digits, apostrophes, letters
//! with accents.

/// The stem of a word, which is lower-cased first.
///
/// Equals `nltk.stem.porter.PorterStemmer().stem(word)` of NLTK 3.10.
///
/// ```
/// use ft_eval::text::porter_stem;
///
/// assert_eq!(porter_stem("Relational"), "relat");
/// assert_eq!(porter_stem("happy"), "happi");
/// assert_eq!(porter_stem("dying"), "die");
/// ```
pub fn porter_stem(word: &str) -> String {
    let lower = word.to_lowercase();
    if let Some(stem) = irregular(&lower) {
        return stem.to_owned();
    }
    // The length is that of the word as given: lower-casing may lengthen it.
    if word.chars().nth(2).is_none() {
        return lower;
    }
    let steps: [fn(String) -> String; 8] = [
        step_1a, step_1b, step_1c, step_2, step_3, step_4, step_5a, step_5b,
    ];
    steps.into_iter().fold(lower, |word, step| step(word))
}

fn irregular(word: &str) -> Option<&'static str> {
    Some(match word {
        "sky" | "skies" => "sky",
        "dying" => "die",
        "lying" => "lie",
        "tying" => "tie",
        "news" => "news",
        "innings" | "inning" => "inning",
        "outings" | "outing" => "outing",
        "cannings" | "canning" => "canning",
        "howe" => "howe",
        "proceed" => "proceed",
        "exceed" => "exceed",
        "succeed" => "succeed",
        _ => return None,
    })
}

/// For each character whether it is a consonant. A `y` is one unless it follows a consonant.
fn consonants(word: &str) -> impl Iterator<Item = bool> {
    let mut previous = false;
    word.chars().map(move |c| {
        previous = match c {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => !previous,
            _ => true,
        };
        previous
    })
}

fn measure(stem: &str) -> usize {
    let mut previous = true;
    let mut m = 0;
    for consonant in consonants(stem) {
        m += usize::from(consonant && !previous);
        previous = consonant;
    }
    m
}

fn has_vowel(stem: &str) -> bool {
    consonants(stem).any(|consonant| !consonant)
}

fn ends_in_consonant(stem: &str) -> bool {
    consonants(stem).last().unwrap_or(false)
}

fn ends_in_double_consonant(word: &str) -> bool {
    let mut back = word.chars().rev();
    match (back.next(), back.next()) {
        (Some(last), Some(before)) => last == before && ends_in_consonant(word),
        _ => false,
    }
}

/// Porter's *o, consonant-vowel-consonant with another last letter than w, x and y; and NLTK's
/// addition, a vowel and a consonant that are the whole word.
fn ends_short(word: &str) -> bool {
    let flags: Vec<bool> = consonants(word).collect();
    match flags[..] {
        [first, second] => !first && second,
        [.., a, b, c] => a && !b && c && !word.ends_with(['w', 'x', 'y']),
        _ => false,
    }
}

/// Replaces the first matching suffix if its stem has the required measure.
fn replace(word: String, rules: &[(&str, &str)], least_measure: usize) -> String {
    for (suffix, replacement) in rules {
        if let Some(stem) = word.strip_suffix(suffix) {
            return if measure(stem) >= least_measure {
                format!("{stem}{replacement}")
            } else {
                word
            };
        }
    }
    word
}

fn step_1a(word: String) -> String {
    if let Some(stem) = word.strip_suffix("ies")
        && stem.chars().count() == 1
    {
        return format!("{stem}ie");
    }
    let rules = [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")];
    replace(word, &rules, 0)
}

fn step_1b(word: String) -> String {
    if let Some(stem) = word.strip_suffix("ied") {
        let ending = if stem.chars().count() == 1 { "ie" } else { "i" };
        return format!("{stem}{ending}");
    }
    if word.ends_with("eed") {
        return replace(word, &[("eed", "ee")], 1);
    }
    let stem = ["ed", "ing"]
        .into_iter()
        .filter_map(|suffix| word.strip_suffix(suffix))
        .find(|stem| has_vowel(stem));
    match stem {
        Some(stem) => tidy_after_1b(stem),
        None => word,
    }
}

fn tidy_after_1b(stem: &str) -> String {
    if ["at", "bl", "iz"]
        .iter()
        .any(|ending| stem.ends_with(ending))
    {
        return format!("{stem}e");
    }
    if ends_in_double_consonant(stem) {
        let mut single = stem.to_owned();
        if !stem.ends_with(['l', 's', 'z']) {
            single.pop();
        }
        return single;
    }
    // NLTK's rule for a double consonant is spelled "*d" and also matches that literal text.
    if let Some(start) = stem.strip_suffix("*d") {
        return format!("{start}d");
    }
    if measure(stem) == 1 && ends_short(stem) {
        return format!("{stem}e");
    }
    stem.to_owned()
}

fn step_1c(word: String) -> String {
    match word.strip_suffix('y') {
        Some(stem) if stem.chars().nth(1).is_some() && ends_in_consonant(stem) => {
            format!("{stem}i")
        }
        _ => word,
    }
}

fn step_2(word: String) -> String {
    if let Some(stem) = word.strip_suffix("alli")
        && measure(stem) > 0
    {
        return step_2(format!("{stem}al"));
    }
    // The l of -logi is part of the stem, so that "geologi" and "theologi" are long enough.
    if let Some(stem) = word.strip_suffix("ogi")
        && stem.ends_with('l')
    {
        return if measure(stem) > 0 {
            format!("{stem}og")
        } else {
            word
        };
    }
    let rules = [
        ("ational", "ate"),
        ("tional", "tion"),
        ("enci", "ence"),
        ("anci", "ance"),
        ("izer", "ize"),
        ("bli", "ble"),
        ("alli", "al"),
        ("entli", "ent"),
        ("eli", "e"),
        ("ousli", "ous"),
        ("ization", "ize"),
        ("ation", "ate"),
        ("ator", "ate"),
        ("alism", "al"),
        ("iveness", "ive"),
        ("fulness", "ful"),
        ("ousness", "ous"),
        ("aliti", "al"),
        ("iviti", "ive"),
        ("biliti", "ble"),
        ("fulli", "ful"),
    ];
    replace(word, &rules, 1)
}

fn step_3(word: String) -> String {
    let rules = [
        ("icate", "ic"),
        ("ative", ""),
        ("alize", "al"),
        ("iciti", "ic"),
        ("ical", "ic"),
        ("ful", ""),
        ("ness", ""),
    ];
    replace(word, &rules, 1)
}

fn step_4(word: String) -> String {
    // -ement is before -ment, and both before -ent: the first match decides.
    const SUFFIXES: [&str; 19] = [
        "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion",
        "ou", "ism", "ate", "iti", "ous", "ive", "ize",
    ];
    for suffix in SUFFIXES {
        if let Some(stem) = word.strip_suffix(suffix) {
            let fits = suffix != "ion" || stem.ends_with(['s', 't']);
            return if fits && measure(stem) > 1 {
                stem.to_owned()
            } else {
                word
            };
        }
    }
    word
}

fn step_5a(word: String) -> String {
    match word.strip_suffix('e') {
        Some(stem) if measure(stem) > 1 || measure(stem) == 1 && !ends_short(stem) => {
            stem.to_owned()
        }
        _ => word,
    }
}

fn step_5b(mut word: String) -> String {
    if word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
        word.pop();
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measure_counts_changes_from_vowels_to_consonants() {
        // Porter 1980, section 2.
        for (m, words) in [
            (0, "tr ee tree y by"),
            (1, "trouble oats trees ivy"),
            (2, "troubles private oaten orrery"),
        ] {
            for word in words.split(' ') {
                assert_eq!(measure(word), m, "{word}");
            }
        }
    }

    #[test]
    fn words_of_one_or_two_letters_are_only_lower_cased() {
        assert_eq!(porter_stem("As"), "as");
        assert_eq!(porter_stem(""), "");
    }
}
