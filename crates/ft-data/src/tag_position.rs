//! Positions within entities: the `B-`, `I-`, `L-` and `U-` of tags, where words and tokens are not the same.
//!
//! A token may be a part of a word, and it may hold several words, as tokens of Chinese hold several characters.

/// Tag and type of an entity: `("B", "PLACE")`; none for `O` and for tags of other forms.
fn parts(tag: &str) -> Option<(&str, &str)> {
    let parts = tag.split_once('-')?;
    ["B", "I", "L", "U"].contains(&parts.0).then_some(parts)
}

/// The tag of what follows in the same word.
pub(crate) fn inside(tag: &str) -> Option<String> {
    parts(tag).map(|(_, kind)| format!("I-{kind}"))
}

/// The tag of a token that holds several words: that of the first one, which also ends the entity if the last one does.
pub(crate) fn joined(tags: &[String]) -> Option<String> {
    let (first, last) = (tags.first()?, tags.last()?);
    let (Some((begin, kind)), Some(("L", other))) = (parts(first), parts(last)) else {
        return Some(first.clone());
    };
    let position = match begin {
        "B" => "U",
        "I" => "L",
        own => own,
    };
    match kind == other {
        true => Some(format!("{position}-{kind}")),
        false => Some(first.clone()),
    }
}

/// The tags of `count` words that one token holds, from the tag of the token: the reverse of what a token of several words
/// learns. `U-X` of three words is `B-X`, `I-X`, `L-X`; `B-X` is `B-X`, `I-X`, `I-X`.
///
/// ```
/// assert_eq!(ft_data::spread_tag("U-PLACE", 2), ["B-PLACE", "L-PLACE"]);
/// assert_eq!(ft_data::spread_tag("B-PLACE", 2), ["B-PLACE", "I-PLACE"]);
/// assert_eq!(ft_data::spread_tag("O", 2), ["O", "O"]);
/// ```
pub fn spread_tag(tag: &str, count: usize) -> Vec<String> {
    let Some((position, kind)) = parts(tag).filter(|_| count > 1) else {
        return vec![tag.to_string(); count];
    };
    let position = |word: usize| match position {
        "B" | "U" if word == 0 => "B",
        "L" | "U" if word + 1 == count => "L",
        _ => "I",
    };
    (0..count)
        .map(|word| format!("{}-{kind}", position(word)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_is_undone_by_spreading() {
        let tags = |positions: &str| -> Vec<String> {
            positions.chars().map(|own| format!("{own}-X")).collect()
        };
        for (words, token) in [
            ("BIL", "U-X"),
            ("BI", "B-X"),
            ("II", "I-X"),
            ("IIL", "L-X"),
            ("U", "U-X"),
        ] {
            assert_eq!(joined(&tags(words)).as_deref(), Some(token));
            assert_eq!(spread_tag(token, words.len()), tags(words));
        }
        let mixed = ["O".to_string(), "B-X".to_string()];
        assert_eq!(joined(&mixed).as_deref(), Some("O"));
        assert_eq!(inside("U-X").as_deref(), Some("I-X"));
        assert_eq!(inside("O"), None);
    }
}
