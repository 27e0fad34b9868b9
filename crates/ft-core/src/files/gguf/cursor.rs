//! Numbers and strings from the bytes of a file, none of them from beyond its end.

/// A place in the bytes of a file.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| {
            format!(
                "the file ends here: {count} bytes are needed at {} of {}; it may be truncated, download it again",
                self.at,
                self.bytes.len()
            )
        })?;
        self.at += count;
        Ok(taken)
    }

    /// The next bytes, as many as an array has.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of things of which each takes at least `least` bytes of what is left.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, String> {
        let count = self.u64()?;
        let room = self.left() / least.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= room => Ok(count),
            _ => Err(format!(
                "{count} is said to be their number, and the {} bytes that follow have room for {room} at most",
                self.left()
            )),
        }
    }

    /// A string: its length in bytes, and UTF-8.
    pub(super) fn string(&mut self) -> Result<String, String> {
        let length = self.count(1)?;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
        Ok(text.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let bytes = [3, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', b'c'];
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(cursor.string().as_deref(), Ok("abc"));
        assert_eq!((cursor.at(), cursor.left()), (11, 0));
        assert!(cursor.u32().is_err_and(|error| error.contains("truncated")));
        let mut cursor = Cursor::new(&bytes[..10]);
        assert!(
            cursor
                .string()
                .is_err_and(|error| error.contains("room for 2"))
        );
        let huge = u64::MAX.to_le_bytes();
        assert!(Cursor::new(&huge).count(1).is_err());
    }
}
