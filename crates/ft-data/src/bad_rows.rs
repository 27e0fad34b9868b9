//! Rows that cannot be used: which, why, and how many are too many.

use std::fmt;

use serde_json::Value;

use crate::in_parallel::in_parallel;
use crate::source::BadRow;
use crate::{Error, Result, RowStream};

/// Reasons beyond this many are counted, not kept.
const KEPT: usize = 1000;

/// A share of bad rows is judged after this many rows, or at the end.
pub(crate) const JUDGED_AFTER: usize = 1000;

/// Rows that cannot be used, up to a share of all rows.
///
/// ```
/// use ft_data::{BadRows, RowStream};
/// use serde_json::json;
///
/// let rows = vec![json!({"n": 1}), json!({"n": "two"}), json!({"n": 3})];
/// let mut stream = RowStream::from_rows(rows)
///     .map(|row| if row["n"].is_u64() { Ok(row) } else { Err("`n` is no number".into()) });
/// let mut bad = BadRows::at_most(0.5);
/// let mut sum = 0;
/// while let Some(row) = stream.next()? {
///     if let Some(row) = bad.sort_out(row)? {
///         sum += row.value["n"].as_u64().unwrap_or(0);
///     }
/// }
/// bad.check()?;
/// assert_eq!(sum, 4);
/// assert_eq!(bad.to_string(), "1 of 3 rows cannot be used:\n  row 2: `n` is no number");
/// # Ok::<(), ft_data::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BadRows {
    limit: f64,
    rows: usize,
    count: usize,
    found: Vec<BadRow>,
}

impl BadRows {
    /// Up to this share of the rows may be bad, in `[0, 1]`. With 0, which is the default, the first is an error.
    ///
    /// # Panics
    ///
    /// If the share is outside `[0, 1]`.
    pub fn at_most(share: f64) -> Self {
        assert!(
            (0.0..=1.0).contains(&share),
            "a share of {share} is not in [0, 1]"
        );
        Self {
            limit: share,
            ..Self::default()
        }
    }

    /// Counts a row, and returns it if it can be used.
    ///
    /// # Errors
    ///
    /// If the row is bad and none may be, or more of the first 1000 rows, or of all after that, are bad than may be.
    pub fn sort_out<T>(&mut self, row: Result<T, BadRow>) -> Result<Option<T>> {
        self.rows += 1;
        match row {
            Ok(row) => Ok(Some(row)),
            Err(bad) if self.limit == 0.0 => Err(bad.into()),
            Err(bad) => {
                self.count += 1;
                if self.found.len() < KEPT {
                    self.found.push(bad);
                }
                if self.count as f64 > self.limit * self.rows.max(JUDGED_AFTER) as f64 {
                    return Err(self.too_many());
                }
                Ok(None)
            }
        }
    }

    /// Reads up to `most` rows, makes something of each on all cores, and sorts out in the order of the stream those that cannot be
    /// used. How many rows were read, which is 0 after the last one, and what was made.
    pub(crate) fn made<T: Send>(
        &mut self,
        stream: &mut RowStream,
        most: usize,
        make: impl Fn(&Value) -> Result<T> + Sync,
    ) -> Result<(usize, Vec<T>)> {
        let mut rows = Vec::new();
        while rows.len() < most
            && let Some(row) = stream.next()?
        {
            rows.push(row);
        }
        let read = rows.len();
        let made = in_parallel(&rows, |row| {
            Ok(match row {
                Ok(row) => make(&row.value).map_err(|error| BadRow {
                    place: row.place.clone(),
                    reason: error.reason(),
                }),
                Err(bad) => Err(bad.clone()),
            })
        })?;
        let mut good = Vec::with_capacity(read);
        for row in made {
            good.extend(self.sort_out(row)?);
        }
        Ok((read, good))
    }

    /// Checks the share of all rows, after the last one.
    ///
    /// # Errors
    ///
    /// If more rows are bad than may be.
    pub fn check(&self) -> Result<()> {
        match self.count as f64 > self.limit * self.rows as f64 {
            true => Err(self.too_many()),
            false => Ok(()),
        }
    }

    /// How many rows are bad.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no row is bad.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first 1000 of them.
    pub fn found(&self) -> &[BadRow] {
        &self.found
    }

    fn too_many(&self) -> Error {
        Error::Dataset(format!(
            "more than {:.2}% of the rows cannot be used; {self}\nCorrect them, or allow a larger share of bad rows",
            100.0 * self.limit
        ))
    }

    pub(crate) fn counts(&self) -> [usize; 2] {
        [self.rows, self.count]
    }

    pub(crate) fn set_counts(&mut self, [rows, count]: [usize; 2]) {
        (self.rows, self.count) = (rows, count);
    }
}

impl fmt::Display for BadRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        write!(f, "{} of {} rows cannot be used", self.count, self.rows)?;
        for (place, bad) in self.found.iter().take(SHOWN).enumerate() {
            write!(f, "{}\n  {bad}", if place == 0 { ":" } else { "" })?;
        }
        if self.count > SHOWN && !self.found.is_empty() {
            write!(f, "\n  and {} more", self.count - SHOWN)?;
        }
        Ok(())
    }
}
