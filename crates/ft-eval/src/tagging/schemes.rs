//! Entities as a tagging scheme defines them.
//!
//! A scheme defines, for each pair of neighbouring tags, whether an entity begins, continues or has ended. The rules are
//! those of seqeval, including the gaps of its IOE1.

use std::collections::BTreeSet;

use super::Entity;
use crate::{Error, Result};

/// The schemes and their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TagScheme {
    /// Inside; a beginning only where two entities of one type meet.
    Iob1,
    /// Beginning and inside.
    Iob2,
    /// Inside; an end only where two entities of one type meet.
    Ioe1,
    /// Inside and end.
    Ioe2,
    /// Beginning, inside, end, single.
    Iobes,
    /// Beginning, inside, last, unit.
    Bilou,
}

/// The condition on the types of two neighbours.
#[derive(Clone, Copy, PartialEq)]
enum Kinds {
    Same,
    Different,
    Any,
}

use Kinds::{Any, Different, Same};

/// Positions of the previous tag and of this tag, and the condition on their types; `*` is any position.
type Rule = (&'static str, &'static str, Kinds);

struct Rules {
    positions: &'static str,
    start: &'static [Rule],
    inside: &'static [Rule],
    end: &'static [Rule],
}

impl TagScheme {
    fn rules(self) -> Rules {
        match self {
            TagScheme::Iob1 => Rules {
                positions: "IOB",
                start: &[("OB", "I", Any), ("I", "I", Different), ("IB", "B", Same)],
                inside: &[("BI", "I", Same)],
                end: &[
                    ("IB", "I", Different),
                    ("IB", "O", Any),
                    ("I", "B", Any),
                    ("B", "B", Same),
                ],
            },
            TagScheme::Iob2 => Rules {
                positions: "IOB",
                start: &[("*", "B", Any)],
                inside: &[("BI", "I", Same)],
                end: &[("IB", "OB", Any), ("IB", "I", Different)],
            },
            TagScheme::Ioe1 => Rules {
                positions: "IOE",
                start: &[("OE", "I", Any), ("I", "I", Different), ("E", "E", Same)],
                inside: &[("I", "IE", Same)],
                end: &[("I", "IE", Different), ("I", "O", Any), ("E", "IE", Same)],
            },
            TagScheme::Ioe2 => Rules {
                positions: "IOE",
                start: &[("OE", "IE", Any), ("I", "IE", Different)],
                inside: &[("I", "IE", Same)],
                end: &[("E", "*", Any)],
            },
            TagScheme::Iobes => Rules {
                positions: "IOBES",
                start: &[("*", "BS", Any)],
                inside: &[("BI", "IE", Same)],
                end: &[("SE", "*", Any)],
            },
            TagScheme::Bilou => Rules {
                positions: "IOBLU",
                start: &[("*", "BU", Any)],
                inside: &[("BI", "IL", Same)],
                end: &[("UL", "*", Any)],
            },
        }
    }

    /// Detects the scheme of sequences by the positions that occur: IOB2, IOE2, IOBES or BILOU. IOB1 and IOE1 cannot be
    /// distinguished from IOB2 and IOE2.
    ///
    /// # Errors
    ///
    /// If the positions do not match one of these schemes.
    pub fn detect<T: AsRef<[S]>, S: AsRef<str>>(sequences: &[T], suffix: bool) -> Result<Self> {
        let mut found = BTreeSet::new();
        for tag in sequences.iter().flat_map(|tags| tags.as_ref()) {
            found.insert(parts(tag.as_ref(), suffix)?.0);
        }
        let found: String = found.into_iter().collect();
        // In alphabetical order.
        Ok(match found.as_str() {
            "BIO" | "BI" | "BO" | "B" => TagScheme::Iob2,
            "EIO" | "EI" | "EO" | "E" => TagScheme::Ioe2,
            "BEIOS" | "BEIS" | "BEIO" | "BEOS" | "BEI" | "BES" | "BEO" | "BE" | "S" => {
                TagScheme::Iobes
            }
            "BILOU" | "BILU" | "BILO" | "BLOU" | "BIL" | "BLU" | "BLO" | "BL" | "U" => {
                TagScheme::Bilou
            }
            _ => {
                return Err(Error::Input(format!(
                    "the positions {found} do not identify a scheme: name the scheme"
                )));
            }
        })
    }
}

/// The position and the type of a tag.
fn parts(tag: &str, suffix: bool) -> Result<(char, &str)> {
    let mut chars = tag.chars();
    let position = if suffix {
        chars.next_back()
    } else {
        chars.next()
    };
    let kind = chars.as_str().trim_matches('-');
    match position {
        Some(position @ ('I' | 'O' | 'B' | 'E' | 'S' | 'U' | 'L')) => {
            Ok((position, if kind.is_empty() { "_" } else { kind }))
        }
        _ => Err(Error::Input(format!(
            "the tag {tag:?} has no position (one of I, O, B, E, S, U, L{})",
            if suffix {
                " at its end"
            } else {
                " at its beginning"
            }
        ))),
    }
}

fn any_holds(rules: &[Rule], previous: (char, &str), tag: (char, &str)) -> bool {
    let fits = |positions: &str, position: char| positions == "*" || positions.contains(position);
    rules.iter().any(|(before, here, kinds)| {
        let kinds = match kinds {
            Any => true,
            Same => previous.1 == tag.1,
            Different => previous.1 != tag.1,
        };
        kinds && fits(before, previous.0) && fits(here, tag.0)
    })
}

pub(super) fn entities<S: AsRef<str>>(
    tags: &[S],
    scheme: TagScheme,
    suffix: bool,
) -> Result<Vec<Entity>> {
    let rules = scheme.rules();
    let outside = ('O', "_");
    let mut parsed = Vec::with_capacity(tags.len() + 1);
    for tag in tags {
        let tag = tag.as_ref();
        let parts = parts(tag, suffix)?;
        if !rules.positions.contains(parts.0) {
            return Err(Error::Input(format!(
                "the tag {tag:?} is not in the scheme {scheme:?}, whose positions are {}",
                rules.positions
            )));
        }
        parsed.push(parts);
    }
    parsed.push(outside);
    let mut entities = Vec::new();
    let (mut i, mut previous) = (0, outside);
    while i < parsed.len() {
        let start = i;
        i += 1;
        if any_holds(rules.start, previous, parsed[start]) {
            while any_holds(rules.inside, parsed[i - 1], parsed[i]) {
                i += 1;
            }
            if any_holds(rules.end, parsed[i - 1], parsed[i]) {
                entities.push(Entity {
                    kind: parsed[start].1.to_string(),
                    start,
                    end: i,
                });
            }
        }
        previous = parsed[i - 1];
    }
    Ok(entities)
}
