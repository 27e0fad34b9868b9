//! The environment variables that `huggingface_hub` reads, with its order of precedence
//! (its documentation: "Environment variables").

use std::path::{Path, PathBuf};

use super::HubOptions;
use crate::{Error, Result};

/// The public hub.
#[cfg(feature = "hub")]
const ENDPOINT: &str = "https://huggingface.co";

impl HubOptions {
    /// Options from the environment, as `huggingface_hub` reads it:
    ///
    /// | what | from, the first that is there |
    /// |---|---|
    /// | cache | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `$HF_HOME/hub`, `$XDG_CACHE_HOME/huggingface/hub`, `~/.cache/huggingface/hub` |
    /// | token | `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, the file `HF_TOKEN_PATH`, the file `$HF_HOME/token`; none if `HF_HUB_DISABLE_IMPLICIT_TOKEN` is on |
    /// | offline | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` |
    /// | address | `HF_ENDPOINT` |
    ///
    /// A switch is on if it is `1`, `on`, `yes` or `true`. An empty variable counts as unset.
    pub fn from_env() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok(), std::env::home_dir())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Self {
        let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let path = |name: &str| get(name).map(|value| expand_home(&value, home.as_deref()));
        let is_on = |name: &str| {
            get(name).is_some_and(|value| {
                ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str())
            })
        };

        let hf_home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| home.as_deref().map(default_hf_home));
        let cache_dir = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hf_home.as_ref().map(|folder| folder.join("hub")));
        let token_file = path("HF_TOKEN_PATH").or_else(|| hf_home.map(|f| f.join("token")));
        let token = if is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            None
        } else {
            [get("HF_TOKEN"), get("HUGGING_FACE_HUB_TOKEN")]
                .into_iter()
                .flatten()
                .find_map(trimmed)
                .or_else(|| trimmed(std::fs::read_to_string(token_file?).ok()?))
        };
        Self {
            revision: None,
            cache_dir,
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            token,
            endpoint: get("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_string()),
        }
    }

    /// The cache that was asked for, or the default one.
    pub(super) fn cache_folder(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.cache_dir {
            return Ok(folder.clone());
        }
        match std::env::home_dir() {
            Some(home) => Ok(default_hf_home(&home).join("hub")),
            None => Err(Error::Hub(
                "there is no home folder to keep the hub's cache in: set HF_HUB_CACHE".into(),
            )),
        }
    }

    /// The hub that was asked for, or the public one, without a slash at the end.
    #[cfg(feature = "hub")]
    pub(super) fn endpoint(&self) -> &str {
        self.endpoint
            .as_deref()
            .unwrap_or(ENDPOINT)
            .trim_end_matches('/')
    }
}

fn default_hf_home(home: &Path) -> PathBuf {
    home.join(".cache").join("huggingface")
}

fn trimmed(text: String) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}

/// `~/x` in the home folder, as Python's `expanduser`.
fn expand_home(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_path_buf(),
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(&rest[1..]),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::PathBuf;

    use crate::HubOptions;

    fn options(variables: &[(&str, &str)]) -> HubOptions {
        let map: HashMap<_, _> = variables.iter().copied().collect();
        HubOptions::from_lookup(
            |name| map.get(name).map(|value| value.to_string()),
            Some("/home/me".into()),
        )
    }

    fn cache(variables: &[(&str, &str)]) -> PathBuf {
        options(variables).cache_dir.unwrap()
    }

    #[test]
    fn the_cache_is_where_the_most_specific_variable_says() {
        let mut variables = Vec::new();
        for (variable, expected) in [
            (("NOTHING", "x"), "/home/me/.cache/huggingface/hub"),
            (("XDG_CACHE_HOME", "/xdg"), "/xdg/huggingface/hub"),
            (("HF_HOME", "~/hf"), "/home/me/hf/hub"),
            (("HUGGINGFACE_HUB_CACHE", "/old"), "/old"),
            (("HF_HUB_CACHE", "/cache"), "/cache"),
        ] {
            variables.push(variable);
            assert_eq!(cache(&variables), PathBuf::from(expected), "{variable:?}");
        }
        assert_eq!(
            cache(&[("HF_HUB_CACHE", "")]),
            PathBuf::from("/home/me/.cache/huggingface/hub")
        );
    }

    #[test]
    fn the_token_comes_from_a_variable_or_else_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("token"), "from_home\n").unwrap();
        let elsewhere = folder.path().join("elsewhere");
        std::fs::write(&elsewhere, " from_path \n").unwrap();
        let elsewhere = elsewhere.to_str().unwrap();

        let token = |variables: &[(&str, &str)]| options(variables).token;
        assert_eq!(token(&[("HF_HOME", "/nowhere")]), None);
        assert_eq!(token(&[("HF_HOME", home)]).unwrap(), "from_home");
        let mut all = vec![("HF_HOME", home), ("HF_TOKEN_PATH", elsewhere)];
        assert_eq!(token(&all).unwrap(), "from_path");
        all.push(("HF_TOKEN", "from_variable\n"));
        assert_eq!(token(&all).unwrap(), "from_variable");
        all.push(("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"));
        assert_eq!(token(&all), None);
    }

    #[test]
    fn switches_are_words_that_mean_on() {
        for on in ["1", "ON", "yes", "True"] {
            assert!(options(&[("HF_HUB_OFFLINE", on)]).offline, "{on}");
        }
        assert!(options(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
        for off in ["", "0", "off", "no", "false"] {
            assert!(!options(&[("HF_HUB_OFFLINE", off)]).offline, "{off}");
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        let shown = format!("{:?}", options(&[("HF_TOKEN", "hf_secret")]));
        assert!(
            !shown.contains("secret") && shown.contains("***"),
            "{shown}"
        );
    }
}
