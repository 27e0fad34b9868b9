//! The keys of a file.

use std::path::{Path, PathBuf};

use super::Value;
use crate::{Error, Result};

/// Keys and values, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    path: PathBuf,
    pairs: Vec<(String, Value)>,
}

impl Metadata {
    pub(super) fn new(path: &Path, pairs: Vec<(String, Value)>) -> Self {
        Self {
            path: path.to_path_buf(),
            pairs,
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let mut pairs = self.pairs.iter();
        pairs
            .find(|(known, _)| known == key)
            .map(|(_, value)| value)
    }

    /// Sets the value of a key.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.pairs.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.pairs.push((key, value)),
        }
    }

    /// An error about a key, which names the file.
    pub fn invalid(&self, key: &str, reason: &str) -> Error {
        Error::invalid(&self.path, format!("{key}: {reason}"))
    }

    /// A value of a key that there may be; another type is an error.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        kind: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.invalid(key, &format!("not {kind}"))),
            },
        }
    }

    /// An integer that is not negative.
    ///
    /// # Errors
    ///
    /// If the value has another type. So have the functions below.
    pub fn integer(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "an integer that is not negative", Value::as_u64)
    }

    /// A float.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a float", Value::as_f64)
    }

    /// A string.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", Value::as_str)
    }

    /// A bool.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", Value::as_bool)
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of strings", Value::as_strings)
    }

    /// An array of integers.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.typed(key, "an array of integers", Value::as_integers)
    }

    /// An array of `f32`.
    pub fn floats(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "an array of f32", Value::as_floats)
    }

    /// A value that must be there.
    ///
    /// # Errors
    ///
    /// If it is not.
    pub fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.invalid(key, "the key is missing"))
    }
}
