//! Vectors of texts on the host, `[texts, dims]`, and NumPy's file format for them.

use std::path::Path;

use crate::{Error, Result};

/// A matrix of vectors, one a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    values: Vec<f32>,
    dims: usize,
}

impl Embeddings {
    /// Rows of `dims` numbers each.
    ///
    /// # Errors
    ///
    /// If the numbers do not fill whole rows.
    pub fn new(values: Vec<f32>, dims: usize) -> Result<Self> {
        if dims == 0 || !values.len().is_multiple_of(dims) {
            return Err(Error::Embeddings(format!(
                "{} numbers are not rows of {dims}",
                values.len()
            )));
        }
        Ok(Self { values, dims })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.dims).unwrap_or(0)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The length of a row.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// A row.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.dims..][..self.dims]
    }

    /// The rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dims.max(1))
    }

    /// All numbers, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The rows with these numbers, in this order.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let values = rows.iter().flat_map(|&row| self.row(row)).copied();
        Self {
            values: values.collect(),
            dims: self.dims,
        }
    }

    /// Each row divided by its length; a row of zeros stays one.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        for row in self.values.chunks_exact_mut(self.dims.max(1)) {
            normalize(row);
        }
        self
    }

    /// The first `dims` numbers of each row, as models that were trained so allow (Kusupati et al., 2022,
    /// arXiv:2205.13147). Rows are not normalized again: use [`normalized`](Self::normalized) if they are to be.
    ///
    /// # Errors
    ///
    /// If rows are shorter, or `dims` is 0.
    pub fn truncated(&self, dims: usize) -> Result<Self> {
        if dims == 0 || dims > self.dims {
            return Err(Error::Embeddings(format!(
                "embeddings of {} dimensions cannot be cut to {dims}",
                self.dims
            )));
        }
        let values = self.rows().flat_map(|row| &row[..dims]).copied();
        Ok(Self {
            values: values.collect(),
            dims,
        })
    }

    /// Appends rows.
    ///
    /// # Errors
    ///
    /// If they are of another length.
    pub fn extend(&mut self, other: &Self) -> Result<()> {
        if self.is_empty() {
            self.dims = other.dims;
        }
        if self.dims != other.dims {
            return Err(Error::Embeddings(format!(
                "embeddings of {} and of {} dimensions do not go together",
                self.dims, other.dims
            )));
        }
        self.values.extend_from_slice(&other.values);
        Ok(())
    }

    /// Checks that every number is finite.
    ///
    /// # Errors
    ///
    /// With the first row that has one that is not.
    pub fn check_finite(&self) -> Result<()> {
        let bad = self.values.iter().position(|x| !x.is_finite());
        match bad {
            None => Ok(()),
            Some(place) => Err(Error::Embeddings(format!(
                "embedding {} holds {}, which cannot be compared",
                place / self.dims,
                self.values[place]
            ))),
        }
    }

    /// Writes a file for `numpy.load`: `float32`, `[texts, dims]`.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write_npy(&self, path: &Path) -> Result<()> {
        let mut header = format!(
            "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}",
            self.len(),
            self.dims
        );
        // Magic, version and length take 10 bytes; the data begin at a multiple of 64.
        let end = (header.len() + 11).next_multiple_of(64) - 10;
        header.extend(std::iter::repeat_n(' ', end - header.len() - 1));
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(self.values.iter().flat_map(|x| x.to_le_bytes()));
        Ok(ft_core::safetensors_folder::write_file(path, &bytes)?)
    }

    /// Reads a file of `numpy.save`: `float32`, two dimensions, in C order.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is of another form.
    pub fn read_npy(path: &Path) -> Result<Self> {
        let fail = |reason: &str| Error::file(path, reason);
        let bytes = std::fs::read(path).map_err(ft_core::Error::read(path))?;
        let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or_else(|| {
            fail("not a file of numpy.save: it does not begin with NumPy's magic bytes")
        })?;
        let (start, length) = match rest {
            [1, _, low, high, ..] => (4, usize::from(u16::from_le_bytes([*low, *high]))),
            [2 | 3, _, a, b, c, d, ..] => (6, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
            _ => return Err(fail("the header is of a version that is not known")),
        };
        let header = rest
            .get(start..start + length)
            .and_then(|h| std::str::from_utf8(h).ok());
        let header = header.ok_or_else(|| fail("the header is cut off"))?;
        if !header.contains("'<f4'") || header.contains("'fortran_order': True") {
            return Err(fail(
                "the numbers must be float32 in C order: save numpy.ascontiguousarray(x, dtype='float32')",
            ));
        }
        let shape = header.split_once("'shape': (").and_then(|(_, rest)| {
            let (shape, _) = rest.split_once(')')?;
            let sizes = shape
                .split(',')
                .map(str::trim)
                .filter(|size| !size.is_empty());
            sizes
                .map(|size| size.parse().ok())
                .collect::<Option<Vec<usize>>>()
        });
        let Some([count, dims]) = shape.as_deref() else {
            return Err(fail("the array must have two dimensions, [texts, dims]"));
        };
        let data = &rest[start + length..];
        let length = count.checked_mul(*dims).and_then(|all| all.checked_mul(4));
        if Some(data.len()) != length {
            return Err(fail("the data are not as long as the header says"));
        }
        let values = data
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Self::new(values.collect(), *dims)
    }
}

/// Divides a vector by its length.
pub(crate) fn normalize(row: &mut [f32]) {
    let square: f32 = row.iter().map(|x| x * x).sum();
    if square > 0.0 {
        let factor = 1.0 / square.sqrt();
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Embeddings {
        Embeddings::new(vec![3.0, 4.0, 0.5, 0.0, -2.0, 1.0], 3).expect("two rows")
    }

    #[test]
    fn rows_are_cut_normalized_and_selected() {
        let cut = some().truncated(2).expect("two of three");
        assert_eq!(cut.values(), [3.0, 4.0, 0.0, -2.0]);
        let unit = cut.normalized();
        assert_eq!(unit.row(1), [0.0, -1.0]);
        assert!((unit.row(0)[0] - 0.6).abs() < 1e-6);
        assert_eq!(some().select(&[1, 0]).row(0), [0.0, -2.0, 1.0]);
        assert!(some().truncated(4).is_err() && Embeddings::new(vec![1.0], 2).is_err());
    }

    #[test]
    fn a_numpy_file_is_read_as_it_was_written() {
        let folder = tempfile::TempDir::new().expect("temporary folder");
        let path = folder.path().join("x.npy");
        some().write_npy(&path).expect("writes");
        assert_eq!(Embeddings::read_npy(&path).expect("reads"), some());
        let bytes = std::fs::read(&path).expect("reads");
        assert_eq!((bytes.len() - 24) % 64, 0);
        std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("writes");
        assert!(Embeddings::read_npy(&path).is_err());
        let damaged =
            String::from_utf8_lossy(&bytes[10..]).replace("(2, 3)", "(9000000000000000000, 9)");
        let damaged = [&bytes[..10], damaged.as_bytes()].concat();
        std::fs::write(&path, damaged).expect("writes");
        assert!(Embeddings::read_npy(&path).is_err());
    }

    #[test]
    fn numbers_that_are_not_finite_are_found() {
        assert!(some().check_finite().is_ok());
        let bad = Embeddings::new(vec![1.0, 2.0, f32::NAN, 0.0], 2).expect("rows");
        let error = bad.check_finite().expect_err("NaN").to_string();
        assert!(error.contains("embedding 1"), "{error}");
    }
}
