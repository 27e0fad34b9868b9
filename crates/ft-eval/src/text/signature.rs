//! The signature of sacreBLEU, which describes how a score was computed.

use std::fmt::{self, Display};

/// `nrefs:1|key:value|...|version:2.6.0`
#[derive(Clone, Debug)]
pub(super) struct Signature(String);

impl Signature {
    /// A signature for predictions with this number of references.
    pub(super) fn new(mut references: impl Iterator<Item = usize>) -> Self {
        let first = references.next().unwrap_or(0);
        Self(match references.all(|count| count == first) {
            true => format!("nrefs:{first}"),
            false => "nrefs:var".to_string(),
        })
    }

    pub(super) fn with(mut self, key: &str, value: impl Display) -> Self {
        self.0.push_str(&format!("|{key}:{value}"));
        self
    }
}

impl Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|version:2.6.0", self.0)
    }
}
