//! Entities by the lenient rules of conlleval.

use super::Entity;
use crate::{Error, Result};

/// The entities of a sequence, followed by an `O` as all sequences are.
pub(super) fn entities<S: AsRef<str>>(tags: &[S], suffix: bool) -> Result<Vec<Entity>> {
    let mut entities = Vec::new();
    let (mut previous, mut start) = (('O', "_"), 0);
    let tags = tags.iter().map(AsRef::as_ref);
    for (i, tag) in tags.chain(["O"]).enumerate() {
        let tag = parts(tag, suffix)
            .ok_or_else(|| Error::Input(format!("tag {i} is empty: use O outside of entities")))?;
        if ends(previous, tag) {
            entities.push(Entity {
                kind: previous.1.to_string(),
                start,
                end: i,
            });
        }
        if starts(previous, tag) {
            start = i;
        }
        previous = tag;
    }
    Ok(entities)
}

/// The position and the type of a tag.
fn parts(tag: &str, suffix: bool) -> Option<(char, &str)> {
    let (position, kind) = if suffix {
        let position = tag.chars().next_back()?;
        let rest = &tag[..tag.len() - position.len_utf8()];
        (
            position,
            rest.rsplit_once('-').map_or(rest, |(kind, _)| kind),
        )
    } else {
        let position = tag.chars().next()?;
        let rest = &tag[position.len_utf8()..];
        (
            position,
            rest.split_once('-').map_or(rest, |(_, kind)| kind),
        )
    };
    Some((position, if kind.is_empty() { "_" } else { kind }))
}

fn ends(previous: (char, &str), tag: (char, &str)) -> bool {
    matches!(
        (previous.0, tag.0),
        ('E' | 'S', _) | ('B' | 'I', 'B' | 'S' | 'O')
    ) || !matches!(previous.0, 'O' | '.') && previous.1 != tag.1
}

fn starts(previous: (char, &str), tag: (char, &str)) -> bool {
    matches!(
        (previous.0, tag.0),
        (_, 'B' | 'S') | ('E' | 'S' | 'O', 'E' | 'I')
    ) || !matches!(tag.0, 'O' | '.') && previous.1 != tag.1
}
