//! An index of tasks, which loads them by name.
//!
//! An index has the built-in tasks and those of folders: every `.yaml` file with a `task` or a `group`, and the
//! tags of tasks. Tasks of later folders replace earlier ones with the same name. A name may also be the path of a task
//! file, or a pattern with `*` and `?`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::functions::FunctionRegistry;
use super::group::{Child, Group};
use super::task::Task;
use super::task_config::TaskConfig;
use super::task_file::{Origin, load};
use super::tasks;
use crate::{Error, Result};

/// Keys of a file that describes a group. The other keys are passed to its tasks.
const GROUP_KEYS: [&str; 5] = [
    "group",
    "group_alias",
    "task",
    "aggregate_metric_list",
    "metadata",
];

/// The maximum depth of nested groups.
const DEEPEST: usize = 20;

#[derive(Clone, Debug)]
enum Entry {
    Task(Origin),
    Group(Origin),
    Tag(BTreeSet<String>),
}

/// The known tasks, groups and tags by name.
#[derive(Clone, Debug)]
pub struct TaskIndex {
    entries: BTreeMap<String, Entry>,
    functions: FunctionRegistry,
    /// Files that could not be read, with the reasons, which are reported when a name is not found.
    skipped: Vec<String>,
}

/// Loaded tasks and their groups.
#[derive(Clone, Debug)]
pub struct TaskSet {
    pub(super) tasks: Vec<Task>,
    pub(super) groups: Vec<Group>,
}

impl TaskSet {
    /// The tasks.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }
}

impl TaskIndex {
    /// An index of the built-in tasks and those in `folders`.
    ///
    /// # Errors
    ///
    /// If a folder cannot be read.
    pub fn new(folders: &[impl AsRef<Path>]) -> Result<Self> {
        Self::with_functions(folders, FunctionRegistry::new())
    }

    /// The same, with functions for the `!function` tags of the files. They take precedence over those of the built-in tasks.
    ///
    /// # Errors
    ///
    /// If a folder cannot be read.
    pub fn with_functions(
        folders: &[impl AsRef<Path>],
        functions: FunctionRegistry,
    ) -> Result<Self> {
        let mut all = tasks::functions();
        all.extend(functions);
        let mut index = Self {
            entries: BTreeMap::new(),
            functions: all,
            skipped: Vec::new(),
        };
        let built_in = tasks::files()
            .iter()
            .filter(|(name, _)| name.ends_with(".yaml"));
        index.add(built_in.map(|(name, _)| Origin::BuiltIn(name.to_string())));
        for folder in folders {
            let mut files = Vec::new();
            yaml_files(folder.as_ref(), &mut files)?;
            files.sort();
            index.add(files.into_iter().map(Origin::File));
        }
        Ok(index)
    }

    /// The names of all tasks, groups and tags.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Adds the files of one folder. Of several with the same name the first is used.
    fn add(&mut self, files: impl Iterator<Item = Origin>) {
        let mut found: BTreeMap<String, Entry> = BTreeMap::new();
        for origin in files {
            let keys = match load(&origin) {
                Ok(keys) => keys,
                Err(error) => {
                    self.skipped.push(error.to_string());
                    continue;
                }
            };
            if let Some(Value::String(name)) = keys.get("group") {
                found.entry(name.clone()).or_insert(Entry::Group(origin));
            } else if let Some(Value::String(name)) = keys.get("task") {
                if found.contains_key(name) {
                    continue;
                }
                found.insert(name.clone(), Entry::Task(origin));
                let tags = match keys.get("tag") {
                    Some(Value::String(tag)) => vec![tag.as_str()],
                    Some(Value::Array(tags)) => tags.iter().filter_map(Value::as_str).collect(),
                    _ => Vec::new(),
                };
                for tag in tags {
                    let entry = found
                        .entry(tag.to_string())
                        .or_insert_with(|| Entry::Tag(BTreeSet::new()));
                    if let Entry::Tag(tasks) = entry {
                        tasks.insert(name.clone());
                    }
                }
            } else {
                self.skipped.push(
                    origin
                        .invalid("it has neither a 'task' nor a 'group'")
                        .to_string(),
                );
            }
        }
        self.entries.extend(found);
    }

    /// Loads tasks, groups and tags by name, with their documents from the folder `data`.
    ///
    /// # Errors
    ///
    /// If a name is unknown, a file has an unsupported key, a task is requested twice, or its data is missing.
    pub fn load(&self, names: &[impl AsRef<str>], data: impl AsRef<Path>) -> Result<TaskSet> {
        let mut loading = Loading {
            index: self,
            data: data.as_ref(),
            tasks: Vec::new(),
        };
        let mut groups: Vec<Group> = Vec::new();
        let mut sources: Vec<(String, String)> = Vec::new();
        for name in names.iter().flat_map(|name| self.matching(name.as_ref())) {
            for child in loading.named(&name, &Map::new(), 0)? {
                let leaves: Vec<String> = match &child {
                    Child::Task(name) => vec![name.clone()],
                    Child::Group(group) => group.tasks().into_iter().map(str::to_string).collect(),
                };
                for leaf in leaves {
                    if let Some((_, source)) = sources.iter().find(|(known, _)| *known == leaf)
                        && source != child.name()
                    {
                        return Err(Error::Input(format!(
                            "the task {leaf:?} is requested twice: in {source:?} and in {:?}",
                            child.name()
                        )));
                    }
                    sources.push((leaf, child.name().to_string()));
                }
                if let Child::Group(group) = child {
                    groups.retain(|known| known.name != group.name);
                    groups.push(group);
                }
            }
        }
        if loading.tasks.is_empty() {
            return Err(Error::Input(
                "no tasks are requested: name at least one".to_string(),
            ));
        }
        Ok(TaskSet {
            tasks: loading.tasks,
            groups,
        })
    }

    /// The known names that match a pattern, or the name itself if it is not a pattern.
    fn matching(&self, name: &str) -> Vec<String> {
        if !name.contains(['*', '?']) || self.entries.contains_key(name) {
            return vec![name.to_string()];
        }
        let pattern = regex::escape(name).replace(r"\*", ".*").replace(r"\?", ".");
        match regex::Regex::new(&format!("^(?s:{pattern})$")) {
            Ok(pattern) => self
                .names()
                .filter(|known| pattern.is_match(known))
                .map(str::to_string)
                .collect(),
            Err(_) => vec![name.to_string()],
        }
    }
}

fn yaml_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let read = |source| Error::Read {
        path: folder.to_path_buf(),
        source,
    };
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.is_dir() {
            yaml_files(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files.push(path.canonicalize().map_err(read)?);
        }
    }
    Ok(())
}

/// The state of loading.
struct Loading<'a> {
    index: &'a TaskIndex,
    data: &'a Path,
    tasks: Vec<Task>,
}

impl Loading<'_> {
    /// The tasks and groups of a name; several for a tag.
    fn named(
        &mut self,
        name: &str,
        overrides: &Map<String, Value>,
        depth: usize,
    ) -> Result<Vec<Child>> {
        let file = Path::new(name);
        let entry = match self.index.entries.get(name) {
            Some(entry) => entry.clone(),
            None if file.is_file() => {
                let origin = Origin::File(file.canonicalize().map_err(|source| Error::Read {
                    path: file.to_path_buf(),
                    source,
                })?);
                if load(&origin)?.contains_key("group") {
                    Entry::Group(origin)
                } else {
                    Entry::Task(origin)
                }
            }
            None => return Err(self.unknown(name)),
        };
        match entry {
            Entry::Task(origin) => {
                let mut keys = load(&origin)?;
                keys.extend(overrides.clone());
                self.task(keys, &origin, true).map(|child| vec![child])
            }
            Entry::Group(origin) => {
                let keys = load(&origin)?;
                let name = keys
                    .get("group")
                    .and_then(Value::as_str)
                    .unwrap_or(name)
                    .to_string();
                self.group(name, &keys, overrides, &origin, depth)
                    .map(|child| vec![child])
            }
            Entry::Tag(tasks) => {
                let mut children = Vec::new();
                for task in tasks {
                    children.extend(self.named(&task, overrides, depth)?);
                }
                Ok(children)
            }
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let known: Vec<&str> = self.index.names().collect();
        let skipped = match self.index.skipped.as_slice() {
            [] => String::new(),
            skipped => format!("; files that were skipped: {}", skipped.join("; ")),
        };
        Error::Input(format!(
            "there is no task, group, tag or file {name:?}; known are {}{skipped}",
            if known.is_empty() {
                "none".to_string()
            } else {
                known.join(", ")
            }
        ))
    }

    fn task(
        &mut self,
        mut keys: Map<String, Value>,
        origin: &Origin,
        from_file: bool,
    ) -> Result<Child> {
        let mut metadata = match keys.shift_remove("metadata") {
            None => Map::new(),
            Some(Value::Object(metadata)) => metadata,
            Some(other) => Map::from_iter([("_metadata".to_string(), other)]),
        };
        if from_file {
            metadata.insert(
                "config_source".to_string(),
                json!(origin.path().to_string_lossy()),
            );
        }
        keys.insert("metadata".to_string(), Value::Object(metadata));
        let config = TaskConfig::new(keys, origin, &self.index.functions)?;
        let name = config.task.clone();
        let task = Task::load(config, self.data)?;
        match self.tasks.iter_mut().find(|known| known.name() == name) {
            Some(known) => *known = task,
            None => self.tasks.push(task),
        }
        Ok(Child::Task(name))
    }

    fn group(
        &mut self,
        name: String,
        keys: &Map<String, Value>,
        overrides: &Map<String, Value>,
        origin: &Origin,
        depth: usize,
    ) -> Result<Child> {
        if depth > DEEPEST {
            return Err(origin.invalid(format!(
                "the group {name:?} contains itself, or is nested too deeply"
            )));
        }
        let mut group = Group::new(name.clone(), keys, origin)?;
        let mut merged: Map<String, Value> = keys
            .iter()
            .filter(|(key, _)| !GROUP_KEYS.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        merged.extend(overrides.clone());
        let members = match keys.get("task") {
            Some(Value::Array(members)) => members.clone(),
            Some(Value::String(member)) => vec![json!(member)],
            _ => return Err(origin.invalid(format!("the group {name:?} has no list 'task'"))),
        };
        for member in &members {
            for child in self.member(member, &name, &merged, origin, depth)? {
                group.add(child);
            }
        }
        Ok(Child::Group(group))
    }

    fn member(
        &mut self,
        member: &Value,
        group: &str,
        overrides: &Map<String, Value>,
        origin: &Origin,
        depth: usize,
    ) -> Result<Vec<Child>> {
        let wrong = || {
            origin.invalid(format!(
                "a member of the group {group:?} must be a name, or have 'task' or 'group'"
            ))
        };
        let mut overrides = overrides.clone();
        let name = match member {
            Value::String(name) => name,
            Value::Object(keys) => {
                if let Some(name) = keys.get("group") {
                    let name = name.as_str().ok_or_else(wrong)?;
                    if self.index.entries.contains_key(name) {
                        let own = keys.iter().filter(|(key, _)| *key != "group");
                        overrides.extend(own.map(|(key, value)| (key.clone(), value.clone())));
                        return self.named(name, &overrides, depth + 1);
                    }
                    let name = format!("{group}::{name}");
                    return self
                        .group(name, keys, &overrides, origin, depth + 1)
                        .map(|child| vec![child]);
                }
                overrides.extend(keys.clone());
                keys.get("task").and_then(Value::as_str).ok_or_else(wrong)?
            }
            _ => return Err(wrong()),
        };
        match self.index.entries.get(name) {
            None if member.is_string() => Err(self.unknown(name)),
            None => {
                overrides.insert("task".to_string(), json!(format!("{group}::{name}")));
                self.task(overrides, origin, false).map(|child| vec![child])
            }
            Some(Entry::Task(_)) => {
                overrides.insert("task".to_string(), json!(name));
                self.named(name, &overrides, depth + 1)
            }
            Some(Entry::Tag(_) | Entry::Group(_)) => {
                overrides.shift_remove("task");
                self.named(name, &overrides, depth + 1)
            }
        }
    }
}
