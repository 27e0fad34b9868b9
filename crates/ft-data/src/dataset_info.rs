//! The registry of datasets of LLaMA-Factory: `dataset_info.json`, with a file, a format and names of columns for each name.
//!
//! ```json
//! {"glaive": {"file_name": "glaive.json", "formatting": "sharegpt",
//!             "columns": {"messages": "conversations", "tools": "tools"}},
//!  "math":   {"hf_hub_url": "org/math", "columns": {"prompt": "problem", "response": "solution"}}}
//! ```
//!
//! As there, columns that are not named in `columns` are not read, if there are `columns`. Otherwise than there, tags that are not named
//! keep their default, and what would be ignored is an error.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::{Error, Format, Result, RowFormat};

/// A registry of datasets.
#[derive(Clone, Debug)]
pub struct DatasetInfo {
    path: PathBuf,
    entries: Map<String, Value>,
}

/// A dataset of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetEntry {
    /// Where the rows are: a path as [`read_rows`](crate::read_rows) takes it.
    pub path: PathBuf,
    /// How they are to be read.
    pub format: RowFormat,
}

/// What an entry may have without effect here.
const IGNORED: [&str; 2] = ["ranking", "split"];

impl DatasetInfo {
    /// Reads `dataset_info.json`, or that of a folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is no object of objects.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = match path.is_dir() {
            true => path.join("dataset_info.json"),
            false => path.to_path_buf(),
        };
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        match serde_json::from_str(&text) {
            Ok(Value::Object(entries)) => Ok(Self { path, entries }),
            Ok(_) => Err(Error::Dataset(
                "it must be an object with a dataset for each name".to_string(),
            )
            .in_file(&path)),
            Err(error) => Err(Error::Json {
                line: error.line(),
                reason: error.to_string(),
                path,
            }),
        }
    }

    /// The names of all datasets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The dataset of a name.
    ///
    /// # Errors
    ///
    /// If there is none of this name, or it has a setting that is not supported: another hub, a script, pairs of answers, images.
    pub fn get(&self, name: &str) -> Result<DatasetEntry> {
        let entry = match self.entries.get(name) {
            Some(Value::Object(entry)) => entry,
            Some(_) => return Err(self.error(name, "it must be an object")),
            None => {
                let names: Vec<&str> = self.names().collect();
                let there = format!("there is no such dataset; there are: {}", names.join(", "));
                return Err(self.error(name, &there));
            }
        };
        let text = |key: &str| match entry.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(self.error(name, &format!("`{key}` must be a text"))),
        };
        let formatting = text("formatting")?.unwrap_or("alpaca");
        let (format, own_columns, own_fields, own_roles) = match formatting {
            "alpaca" => (Format::Alpaca, ALPACA, [""; 2], [""; 5]),
            "sharegpt" => (
                Format::ShareGpt,
                SHAREGPT,
                ["from", "value"],
                SHAREGPT_ROLES,
            ),
            "openai" => (Format::Messages, OPENAI, ["role", "content"], OPENAI_ROLES),
            other => {
                let reason =
                    format!("`formatting` is `{other}`: it must be alpaca, sharegpt or openai");
                return Err(self.error(name, &reason));
            }
        };
        if entry.get("ranking").is_some_and(|ranking| *ranking == true) {
            let reason = "its rows are pairs of answers (`ranking`), for training of preferences";
            return Err(self.error(name, reason));
        }
        let path = self.path_of(name, entry, &text)?;
        let mut format = RowFormat::new(format);
        let no_names = Map::new();
        let names = |key: &str| match entry.get(key) {
            None | Some(Value::Null) => Ok(&no_names),
            Some(Value::Object(names)) => Ok(names),
            Some(_) => Err(self.error(name, &format!("`{key}` must be an object"))),
        };
        let columns = names("columns")?;
        for (key, theirs) in columns {
            let own = own_columns.iter().find(|(column, _)| column == key);
            let (Some((_, own)), Some(theirs)) = (own, theirs.as_str()) else {
                let known: Vec<&str> = own_columns.iter().map(|(column, _)| *column).collect();
                let known = known.join(", ");
                let reason = format!(
                    "`columns` has `{key}`, which {formatting} rows do not have here: {known}"
                );
                return Err(self.error(name, &reason));
            };
            format = format.with_column(own, theirs)?;
        }
        if !columns.is_empty() {
            format = format.with_named_columns_only();
        }
        for (key, theirs) in names("tags")? {
            let Some(theirs) = theirs.as_str() else {
                return Err(self.error(name, &format!("`{key}` of `tags` must be a text")));
            };
            let field = ["role_tag", "content_tag"]
                .iter()
                .position(|tag| tag == key);
            let role = ROLE_TAGS.iter().position(|tag| tag == key);
            format = match (field, role) {
                (Some(field), _) => format.with_field(own_fields[field], theirs),
                (None, Some(role)) => format.with_role(own_roles[role], theirs),
                (None, None) => {
                    let reason = format!("`tags` has `{key}`, which is not known");
                    return Err(self.error(name, &reason));
                }
            };
        }
        Ok(DatasetEntry { path, format })
    }

    fn path_of<'a>(
        &self,
        name: &str,
        entry: &Map<String, Value>,
        text: &impl Fn(&str) -> Result<Option<&'a str>>,
    ) -> Result<PathBuf> {
        const KNOWN: [&str; 7] = [
            "file_name",
            "hf_hub_url",
            "formatting",
            "columns",
            "tags",
            "subset",
            "folder",
        ];
        let unknown = entry.iter().find(|(key, value)| {
            let known = KNOWN.contains(&key.as_str()) || IGNORED.contains(&key.as_str());
            !known && !value.is_null()
        });
        let hub = text("hf_hub_url")?;
        let file = text("file_name")?;
        // Other addresses of the same rows do not matter.
        let elsewhere = ["ms_hub_url", "om_hub_url"];
        if let Some((key, _)) = unknown
            && !(elsewhere.contains(&key.as_str()) && (hub.is_some() || file.is_some()))
        {
            return Err(self.error(name, &format!("`{key}` is not supported")));
        }
        let split = text("split")?.unwrap_or("train");
        match (file, hub) {
            (Some(file), None) => {
                let folder = self.path.parent().unwrap_or(Path::new(""));
                Ok(folder.join(file))
            }
            (None, Some(id)) => {
                let below = text("folder")?.or(text("subset")?);
                Ok(match (below, split) {
                    (None, "train") => format!("hf://datasets/{id}").into(),
                    (None, split) => format!("hf://datasets/{id}/**/{split}*").into(),
                    (Some(below), split) => format!("hf://datasets/{id}/{below}/{split}*").into(),
                })
            }
            _ => Err(self.error(name, "it must have either `file_name` or `hf_hub_url`")),
        }
    }

    fn error(&self, name: &str, reason: &str) -> Error {
        Error::Dataset(format!("the dataset `{name}`: {reason}")).in_file(&self.path)
    }
}

/// LLaMA-Factory's names of columns, and those of the format.
type Columns = &'static [(&'static str, &'static str)];
const ALPACA: Columns = &[
    ("prompt", "instruction"),
    ("query", "input"),
    ("response", "output"),
    ("history", "history"),
    ("system", "system"),
];
const SHAREGPT: Columns = &[
    ("messages", "conversations"),
    ("system", "system"),
    ("tools", "tools"),
];
const OPENAI: Columns = &[
    ("messages", "messages"),
    ("system", "system"),
    ("tools", "tools"),
];
const ROLE_TAGS: [&str; 5] = [
    "user_tag",
    "assistant_tag",
    "observation_tag",
    "function_tag",
    "system_tag",
];
const SHAREGPT_ROLES: [&str; 5] = ["human", "gpt", "observation", "function_call", "system"];
const OPENAI_ROLES: [&str; 5] = ["user", "assistant", "tool", "assistant", "system"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Sample;

    fn registry(entries: &Value) -> (tempfile::TempDir, DatasetInfo) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("dataset_info.json");
        std::fs::write(path, entries.to_string()).expect("writes");
        let info = DatasetInfo::read(folder.path()).expect("is a registry");
        (folder, info)
    }

    #[test]
    fn entries_become_paths_and_formats() {
        let (folder, info) = registry(&json!({
            "identity": {"file_name": "identity.json"},
            "slim": {"hf_hub_url": "org/slim", "ms_hub_url": "x/y", "split": "test",
                     "columns": {"prompt": "q", "response": "a"}},
            "chat": {"file_name": "chat", "formatting": "sharegpt",
                     "columns": {"messages": "dialog"},
                     "tags": {"role_tag": "speaker", "content_tag": "text", "user_tag": "U", "assistant_tag": "B"}},
        }));
        let names: Vec<&str> = info.names().collect();
        assert_eq!(names, ["identity", "slim", "chat"]);
        let identity = info.get("identity").expect("is there");
        assert_eq!(identity.path, folder.path().join("identity.json"));
        assert_eq!(identity.format, RowFormat::from(Format::Alpaca));
        let slim = info.get("slim").expect("is there");
        assert_eq!(slim.path, Path::new("hf://datasets/org/slim/**/test*"));
        let row = json!({"q": "2 + 3?", "a": "5", "input": "not named"});
        let Sample::Conversation(sample) = slim.format.parse(&row, 1).expect("is a row") else {
            panic!("is a conversation");
        };
        assert_eq!(sample.messages[0].text(), Some("2 + 3?"));
        let chat = info.get("chat").expect("is there");
        let row = json!({"dialog": [{"speaker": "U", "text": "x"}, {"speaker": "B", "text": "y"}]});
        let Sample::Conversation(sample) = chat.format.parse(&row, 1).expect("is a row") else {
            panic!("is a conversation");
        };
        assert_eq!(sample.messages[1].role, "assistant");
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let (_folder, info) = registry(&json!({
            "pairs": {"file_name": "a.json", "ranking": true},
            "images": {"file_name": "a.json", "columns": {"images": "images"}},
            "script": {"script_url": "a"},
            "some": {"file_name": "a.json", "num_samples": 10},
            "odd": {"file_name": "a.json", "formatting": "csv"},
            "text": "a.json",
        }));
        for (name, reason) in [
            ("pairs", "pairs of answers"),
            ("images", "has `images`"),
            ("script", "`script_url` is not supported"),
            ("some", "`num_samples` is not supported"),
            ("odd", "must be alpaca, sharegpt or openai"),
            ("text", "must be an object"),
            ("other", "there are: pairs, images"),
        ] {
            let error = info.get(name).expect_err("is refused").to_string();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }
}
