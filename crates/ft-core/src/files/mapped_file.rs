//! A file in memory, whose pages come from the disk when they are first read.

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::{Error, Result};

/// A file, mapped into memory.
#[derive(Clone, Debug)]
pub(in crate::files) struct MappedFile(Arc<Mmap>);

impl MappedFile {
    pub(in crate::files) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::read(path))?;
        // SAFETY: the map is read-only and checkpoints are replaced by renaming, never written in
        // place, so the bytes do not change while they are mapped, which with `Weights::Stored` is as long
        // as the model lives. Another program that truncates the
        // file under us would be an error that no mapping reader is safe from.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(Error::read(path))?;
        Ok(Self(Arc::new(map)))
    }

    /// Some of its bytes, which keep the file mapped. Their pages leave the memory of the process when the last copy is dropped, as
    /// when the weights of a layer are replaced by blocks.
    ///
    /// # Panics
    ///
    /// If the file does not have them.
    pub(in crate::files) fn piece(&self, range: Range<usize>) -> bytes::Bytes {
        assert!(range.start <= range.end && range.end <= self.len());
        bytes::Bytes::from_owner(Piece {
            file: self.clone(),
            range,
        })
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

struct Piece {
    file: MappedFile,
    range: Range<usize>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}

#[cfg(unix)]
impl Drop for Piece {
    fn drop(&mut self) {
        use memmap2::UncheckedAdvice::DontNeed;
        let (start, len) = (self.range.start, self.range.len());
        // SAFETY: nothing is ever written to the map, so a page that is read again, also as a part of another piece, has the
        // bytes of the file again.
        #[allow(unsafe_code)]
        let released = unsafe { self.file.0.unchecked_advise_range(DontNeed, start, len) };
        // Pages that stay are no error: the system takes them when it needs them.
        let _ = released;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_outlives_the_file_and_others_can_be_read_after_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).expect("written");
        let file = MappedFile::open(&path).expect("mapped");
        let [first, again] = [10..50_000, 20_000..100_000].map(|range| file.piece(range));
        drop(file);
        assert_eq!(first, bytes[10..50_000]);
        drop(first);
        assert_eq!(again, bytes[20_000..]);
    }

    /// What `/proc` says of pages of files.
    #[cfg(target_os = "linux")]
    #[test]
    fn pages_of_a_dropped_piece_are_no_longer_in_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, vec![1; 4 << 20]).expect("written");
        let file = MappedFile::open(&path).expect("mapped");
        let piece = file.piece(0..4 << 20);
        let sum: usize = piece.iter().map(|byte| usize::from(*byte)).sum();
        assert_eq!(sum, 4 << 20);
        assert!(resident_kb(&piece) > 3000, "{}", resident_kb(&piece));
        let start = file.as_ptr().addr();
        drop(piece);
        assert!(resident_kb_at(start) < 100, "{}", resident_kb_at(start));
    }

    #[cfg(target_os = "linux")]
    fn resident_kb(bytes: &[u8]) -> usize {
        resident_kb_at(bytes.as_ptr().addr())
    }

    /// `Rss` of the map that begins here.
    #[cfg(target_os = "linux")]
    fn resident_kb_at(start: usize) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("readable");
        let (_, from) = maps
            .split_once(&format!("{start:x}-"))
            .expect("a map that begins here");
        let rss = from.lines().find_map(|line| line.strip_prefix("Rss:"));
        let number = rss.and_then(|rss| rss.trim().strip_suffix(" kB"));
        number.expect("a size").trim().parse().expect("a number")
    }
}
