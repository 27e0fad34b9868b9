//! Values for layers that differ from the others, an object in JSON: `#[serde(with = "crate::pattern")]`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::targets::ends_with_pattern;

/// Values for layers that differ from the others; each name is a regular expression that whole parts at the end of the
/// layer's path must match. The first match counts.
pub type Pattern<T> = Vec<(String, T)>;

/// The value of the first pattern that matches the end of `path`.
pub(crate) fn exception<T: Copy>(patterns: &[(String, T)], path: &str) -> Option<T> {
    patterns
        .iter()
        .find(|(pattern, _)| ends_with_pattern(pattern).is_ok_and(|regex| regex.is_match(path)))
        .map(|(_, value)| *value)
}

pub(crate) fn serialize<T: Serialize, S: Serializer>(
    pattern: &[(String, T)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pattern.len()))?;
    for (name, value) in pattern {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, T)>, D::Error> {
    struct Pairs<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
        type Value = Vec<(String, T)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of names and values")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_map(Pairs(PhantomData))
}
