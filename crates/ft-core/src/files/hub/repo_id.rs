//! Hub ids and revisions: which texts may be one.
//!
//! Both become parts of paths and addresses, so what is let through here decides that neither can
//! leave the cache. The rules for ids are those of `huggingface_hub`'s `validate_repo_id`.

use std::fmt;

use crate::{Error, Result};

/// `org/name`, or `name` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RepoId(String);

impl RepoId {
    /// Reads an id; `text` is known not to be a folder.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let missing = |why: &str| Error::Hub(format!("{text:?}: there is no such folder{why}"));
        if text.is_empty() {
            return Err(Error::Hub(
                "no model was named: give a folder or a hub id (org/name)".into(),
            ));
        }
        let looks_like_a_path = text.starts_with(['/', '.', '~'])
            || text.ends_with('/')
            || text.contains('\\')
            || text.matches('/').count() > 1;
        if looks_like_a_path {
            return Err(missing(""));
        }
        match text.split('/').find_map(fault) {
            Some(fault) => Err(missing(&format!(
                ", and it cannot be a hub id (org/name), because {fault}"
            ))),
            None => Ok(Self(text.to_string())),
        }
    }

    /// `org` (empty for a bare name) and `name`.
    #[cfg(feature = "hub")]
    pub(super) fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or(("", &self.0))
    }

    /// Name of the id's folder in the cache.
    pub(super) fn folder_name(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }

    /// Name of the folder of the dataset of this id in the cache.
    pub(super) fn dataset_folder_name(&self) -> String {
        format!("datasets--{}", self.0.replace('/', "--"))
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a part of an id cannot be one.
fn fault(part: &str) -> Option<String> {
    const LONGEST: usize = 96;
    if part.is_empty() {
        return Some("a part of it is empty".into());
    }
    if part.len() > LONGEST {
        return Some(format!("a part of it has more than {LONGEST} characters"));
    }
    let strange = |c: &char| !c.is_ascii_alphanumeric() && !"-_.".contains(*c);
    if let Some(c) = part.chars().find(strange) {
        return Some(format!("{c:?} is in it"));
    }
    if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
        return Some("a part of it begins or ends with '-' or '.'".into());
    }
    if part.contains("--") || part.contains("..") {
        return Some("\"--\" or \"..\" is in it".into());
    }
    part.ends_with(".git")
        .then(|| "it ends with \".git\"".into())
}

/// Branch, tag or commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Revision(String);

impl Revision {
    /// Reads a revision; `None` is `main`.
    pub(super) fn parse(text: Option<&str>) -> Result<Self> {
        let text = text.unwrap_or("main");
        let plain = |part: &str| {
            let odd = |c: char| c.is_control() || c.is_whitespace() || "\\:?*[^~\"<>|".contains(c);
            !part.is_empty() && part != "." && !part.contains("..") && !part.contains(odd)
        };
        if text.split('/').all(plain) {
            Ok(Self(text.to_string()))
        } else {
            Err(Error::Hub(format!(
                "{text:?} cannot be a revision: give a branch, a tag or a commit hash"
            )))
        }
    }

    /// Whether this is a whole commit hash, which never changes its meaning.
    pub(super) fn is_commit(&self) -> bool {
        is_commit(&self.0)
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is a whole commit hash: 40 hexadecimal digits.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::{RepoId, Revision};

    fn refused(text: &str) -> String {
        RepoId::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn ids_of_real_models_are_ids() {
        for (id, folder) in [
            ("gpt2", "models--gpt2"),
            (
                "HuggingFaceTB/SmolLM2-135M-Instruct",
                "models--HuggingFaceTB--SmolLM2-135M-Instruct",
            ),
            ("Qwen/Qwen2.5-0.5B", "models--Qwen--Qwen2.5-0.5B"),
            ("_org/name_1.0", "models--_org--name_1.0"),
        ] {
            let parsed = RepoId::parse(id).unwrap();
            assert_eq!(parsed.folder_name(), folder);
            assert_eq!(parsed.to_string(), id);
        }
    }

    #[test]
    fn what_looks_like_a_path_is_a_missing_folder() {
        for path in [
            "/a/b",
            "./a",
            "../a",
            "../../etc",
            "~/model",
            "a/b/c",
            "a/",
            "a\\b",
        ] {
            let message = refused(path);
            assert!(message.ends_with("there is no such folder"), "{message}");
        }
    }

    #[test]
    fn what_cannot_be_an_id_is_refused_with_the_reason() {
        for (text, reason) in [
            ("my model", "' ' is in it"),
            ("org/na\nme", "is in it"),
            ("org/näme", "'ä' is in it"),
            ("org/..", "begins or ends"),
            ("org/a..b", "\"..\""),
            ("org/a--b", "\"--\""),
            ("-org/a", "begins or ends"),
            ("org/name.git", ".git"),
        ] {
            let message = refused(text);
            assert!(message.contains(reason), "{text}: {message}");
            assert!(message.contains("there is no such folder"), "{message}");
        }
        assert!(refused("").contains("no model was named"));
        assert!(refused(&"x".repeat(97)).contains("96"));
    }

    #[test]
    fn revisions_cannot_leave_their_folder() {
        for good in [
            "main",
            "v1.0",
            "refs/pr/1",
            "0123456789abcdef0123456789abcdef01234567",
        ] {
            assert_eq!(Revision::parse(Some(good)).unwrap().as_str(), good);
        }
        for bad in ["", "/", "a//b", "../x", "a/../b", ".", "C:x", "a b", "a\0b"] {
            assert!(Revision::parse(Some(bad)).is_err(), "{bad:?}");
        }
        assert!(!Revision::parse(None).unwrap().is_commit());
    }
}
