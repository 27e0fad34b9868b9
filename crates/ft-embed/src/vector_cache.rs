//! Vectors appended to a file as they arrive.
//!
//! The file begins with [`BEGINNING`]. A record is a key of 32 bytes, the number of dimensions (`u32`), the numbers (`f32`) and eight
//! bytes of the SHA-256 of all that, little-endian. Records are only appended; of two with one key the later holds. A run that is killed
//! loses at most the record it was writing, which is removed when the file is opened again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

const BEGINNING: &[u8; 8] = b"ftvec01\n";
/// The bytes of a record before its numbers, and after them.
const HEAD: usize = 36;
const CHECK: usize = 8;
/// No model has more dimensions.
const MOST_DIMS: u32 = 1 << 20;
/// The file is synced to disk after so many records.
const SYNC_EVERY: usize = 256;

/// What a vector is found by.
pub(crate) type Key = [u8; 32];

/// The key of these parts, in this order.
pub(crate) fn key(parts: &[&str]) -> Key {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// A file of vectors by key.
#[derive(Debug)]
pub(crate) struct VectorCache {
    path: PathBuf,
    file: File,
    /// Where the numbers of a key begin, and how many there are.
    places: HashMap<Key, (u64, u32)>,
    end: u64,
    unsynced: usize,
}

impl VectorCache {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    ///
    /// If it cannot be read or written, has other content, or is damaged before its last record.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let read = || ft_core::Error::read(path);
        let write = || ft_core::Error::write(path);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path);
        let mut file = file.map_err(write())?;
        let length = file.metadata().map_err(read())?.len();
        if length < BEGINNING.len() as u64 {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(read())?;
            if !BEGINNING.starts_with(&bytes) {
                return Err(other_content(path));
            }
            file.set_len(0).map_err(write())?;
            file.write_all(BEGINNING).map_err(write())?;
            return Ok(Self::new(
                path,
                file,
                HashMap::new(),
                BEGINNING.len() as u64,
            ));
        }
        let mut reader = BufReader::with_capacity(1 << 16, &file);
        let mut beginning = [0; BEGINNING.len()];
        reader.read_exact(&mut beginning).map_err(read())?;
        if beginning != *BEGINNING {
            return Err(other_content(path));
        }
        let mut places = HashMap::new();
        let mut end = BEGINNING.len() as u64;
        let mut record = Vec::new();
        while end < length {
            record.resize(HEAD, 0);
            let left = length - end;
            if left < HEAD as u64 {
                break;
            }
            reader.read_exact(&mut record).map_err(read())?;
            let dims = u32::from_le_bytes([record[32], record[33], record[34], record[35]]);
            let size = (HEAD + CHECK) as u64 + 4 * u64::from(dims);
            if dims > MOST_DIMS {
                return Err(damaged(path, end));
            }
            if size > left {
                break;
            }
            record.resize(size as usize, 0);
            reader.read_exact(&mut record[HEAD..]).map_err(read())?;
            let (content, check) = record.split_at(record.len() - CHECK);
            if Sha256::digest(content)[..CHECK] != *check {
                // What was written last may not be on the disk as a whole after a loss of power.
                match end + size == length {
                    true => break,
                    false => return Err(damaged(path, end)),
                }
            }
            let mut key = [0; 32];
            key.copy_from_slice(&record[..32]);
            places.insert(key, (end + HEAD as u64, dims));
            end += size;
        }
        drop(reader);
        if end < length {
            file.set_len(end).map_err(write())?;
        }
        Ok(Self::new(path, file, places, end))
    }

    fn new(path: &Path, file: File, places: HashMap<Key, (u64, u32)>, end: u64) -> Self {
        Self {
            path: path.to_path_buf(),
            file,
            places,
            end,
            unsynced: 0,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of dimensions of a vector, if there is one.
    pub(crate) fn dims(&self, key: &Key) -> Option<usize> {
        self.places.get(key).map(|(_, dims)| *dims as usize)
    }

    /// A vector.
    pub(crate) fn get(&mut self, key: &Key) -> Result<Option<Vec<f32>>> {
        let Some(&(start, dims)) = self.places.get(key) else {
            return Ok(None);
        };
        let read = || ft_core::Error::read(&self.path);
        let mut bytes = vec![0; 4 * dims as usize];
        self.file.seek(SeekFrom::Start(start)).map_err(read())?;
        self.file.read_exact(&mut bytes).map_err(read())?;
        let (numbers, _) = bytes.as_chunks::<4>();
        Ok(Some(
            numbers.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        ))
    }

    /// Adds a vector.
    pub(crate) fn put(&mut self, key: Key, vector: &[f32]) -> Result<()> {
        let dims = u32::try_from(vector.len()).unwrap_or(u32::MAX);
        if dims > MOST_DIMS {
            return Err(Error::Embeddings(format!(
                "a vector of {} numbers is longer than any model's",
                vector.len()
            )));
        }
        let mut record = Vec::with_capacity(HEAD + 4 * vector.len() + CHECK);
        record.extend(key);
        record.extend(dims.to_le_bytes());
        record.extend(vector.iter().flat_map(|x| x.to_le_bytes()));
        let check = Sha256::digest(&record);
        record.extend(&check[..CHECK]);
        // One write for each record, so that a kill cannot lose vectors of this process.
        let written = self.file.write_all(&record);
        written.map_err(ft_core::Error::write(&self.path))?;
        self.places.insert(key, (self.end + HEAD as u64, dims));
        self.end += record.len() as u64;
        self.unsynced += 1;
        match self.unsynced >= SYNC_EVERY {
            true => self.sync(),
            false => Ok(()),
        }
    }

    pub(crate) fn sync(&mut self) -> Result<()> {
        self.unsynced = 0;
        let synced = self.file.sync_data();
        Ok(synced.map_err(ft_core::Error::write(&self.path))?)
    }
}

fn other_content(path: &Path) -> Error {
    Error::file(
        path,
        "is no cache of vectors: choose another file, or remove this one",
    )
}

fn damaged(path: &Path, place: u64) -> Error {
    Error::file(
        path,
        format!("the cache of vectors is damaged at byte {place}: remove it to start again"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_outlive_a_kill_in_the_middle_of_a_record() {
        let folder = tempfile::TempDir::new().expect("folder");
        let path = folder.path().join("vectors");
        let keys = [key(&["a", "b"]), key(&["ab", ""]), key(&["c"])];
        let mut cache = VectorCache::open(&path).expect("opens");
        cache.put(keys[0], &[1.0, -2.5]).expect("writes");
        cache.put(keys[1], &[3.0]).expect("writes");
        cache.put(keys[0], &[4.0, 5.0, 6.0]).expect("writes");
        assert_eq!(cache.get(&keys[1]).expect("reads"), Some(vec![3.0]));
        drop(cache);
        let whole = std::fs::read(&path).expect("reads");
        let last = HEAD + 12 + CHECK;
        for cut in [1, CHECK, last - 3, last - 1] {
            std::fs::write(&path, &whole[..whole.len() - cut]).expect("writes");
            let mut cache = VectorCache::open(&path).expect("opens");
            // The first record of the key holds again.
            assert_eq!(cache.get(&keys[0]).expect("reads"), Some(vec![1.0, -2.5]));
            cache.put(keys[2], &[7.0]).expect("writes");
            drop(cache);
            let mut cache = VectorCache::open(&path).expect("opens");
            assert_eq!(cache.get(&keys[2]).expect("reads"), Some(vec![7.0]));
            assert_eq!(
                (cache.dims(&keys[0]), cache.dims(&keys[1])),
                (Some(2), Some(1))
            );
        }
        std::fs::write(&path, &whole).expect("writes");
        let mut cache = VectorCache::open(&path).expect("opens");
        assert_eq!(
            cache.get(&keys[0]).expect("reads"),
            Some(vec![4.0, 5.0, 6.0])
        );
        assert_eq!(cache.get(&keys[2]).expect("reads"), None);
    }

    #[test]
    fn files_with_other_content_and_damaged_ones_are_not_changed() {
        let folder = tempfile::TempDir::new().expect("folder");
        let path = folder.path().join("vectors");
        let mut cache = VectorCache::open(&path).expect("opens");
        cache.put(key(&["a"]), &[1.0; 8]).expect("writes");
        cache.put(key(&["b"]), &[2.0; 8]).expect("writes");
        drop(cache);
        let mut damaged = std::fs::read(&path).expect("reads");
        damaged[BEGINNING.len() + HEAD + 3] ^= 1;
        for bytes in [b"notes".as_slice(), b"notes that are longer", &damaged] {
            std::fs::write(&path, bytes).expect("writes");
            let error = VectorCache::open(&path).expect_err("not a cache");
            assert!(error.to_string().contains("remove"), "{error}");
            assert_eq!(std::fs::read(&path).expect("reads"), bytes);
        }
    }
}
