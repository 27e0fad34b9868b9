//! A table of ratings as people keep it: a row an item, a column a rater, an empty cell where one gave none.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::{Error, Result};

/// A rating: a number, however written (`1`, `1.0`, `+1`), or a word.
#[derive(Clone, Debug)]
pub enum Rating {
    /// A finite number.
    Number(f64),
    /// Anything else.
    Word(String),
}

impl Rating {
    /// What a cell says; `None` if it says nothing or `nan`, as spreadsheets and NumPy write what is missing.
    pub fn parse(cell: &str) -> Option<Self> {
        let cell = cell.trim();
        if cell.is_empty() || cell.eq_ignore_ascii_case("nan") {
            return None;
        }
        match cell.parse::<f64>() {
            // Plus zero, so that -0 is 0.
            Ok(number) if number.is_finite() => Some(Self::Number(number + 0.0)),
            _ => Some(Self::Word(cell.to_string())),
        }
    }
}

impl PartialEq for Rating {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rating {}

impl PartialOrd for Rating {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Numbers by size, then words by their characters.
impl Ord for Rating {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Number(_), Self::Word(_)) => Ordering::Less,
            (Self::Word(_), Self::Number(_)) => Ordering::Greater,
            (Self::Word(a), Self::Word(b)) => a.cmp(b),
        }
    }
}

/// Whether the first row of a table names the raters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// It does if the rest is numbers and it is not; and, with words, if there are other rows and none of its
    /// cells is a rating in any of them.
    #[default]
    Detect,
    /// It does.
    Present,
    /// It does not: it is an item.
    Absent,
}

/// Ratings of items (rows) by raters (columns), some of them missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratings {
    raters: Vec<String>,
    scale: Vec<Rating>,
    /// Places in the scale, an item after the other.
    cells: Vec<Option<usize>>,
}

impl Ratings {
    /// Reads rows of cells. Raters without names are called by their place, from 1.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if rows differ in length, or there are no items or fewer than two raters.
    ///
    /// ```
    /// # use ft_eval::agreement::{Header, Ratings};
    /// let rows = [["anna", "bob"], ["1", "1.0"], ["2", ""]];
    /// let ratings = Ratings::from_rows(&rows, Header::Detect)?;
    /// assert_eq!(ratings.raters(), ["anna", "bob"]);
    /// assert_eq!((ratings.items(), ratings.scale().len()), (2, 2));
    /// # Ok::<(), ft_eval::Error>(())
    /// ```
    pub fn from_rows<R: AsRef<[S]>, S: AsRef<str>>(rows: &[R], header: Header) -> Result<Self> {
        let columns = rows.first().map_or(0, |r| r.as_ref().len());
        if let Some(i) = rows.iter().position(|r| r.as_ref().len() != columns) {
            return Err(Error::Input(format!(
                "row {} has {} cells and the first {columns}: give each item a cell for every rater, empty where \
                 a rating is missing",
                i + 1,
                rows[i].as_ref().len()
            )));
        }
        let table: Vec<Vec<Option<Rating>>> = rows
            .iter()
            .map(|r| {
                r.as_ref()
                    .iter()
                    .map(|c| Rating::parse(c.as_ref()))
                    .collect()
            })
            .collect();
        let named = match header {
            Header::Present => true,
            Header::Absent => false,
            Header::Detect => names_raters(&table),
        };
        let items = table.get(usize::from(named)..).unwrap_or_default();
        if items.is_empty() || columns < 2 {
            return Err(Error::Input(format!(
                "{} items by {columns} raters: agreement needs an item a row and two or more raters, a column each",
                items.len()
            )));
        }
        let raters = match (named, rows.first()) {
            (true, Some(names)) => names
                .as_ref()
                .iter()
                .map(|n| n.as_ref().trim().to_string())
                .collect(),
            _ => (1..=columns).map(|i| i.to_string()).collect(),
        };
        let scale: BTreeSet<&Rating> = items.iter().flatten().flatten().collect();
        let scale: Vec<Rating> = scale.into_iter().cloned().collect();
        let place = |cell: &Option<Rating>| cell.as_ref().and_then(|r| scale.binary_search(r).ok());
        let cells = items.iter().flatten().map(place).collect();
        Ok(Self {
            raters,
            scale,
            cells,
        })
    }

    /// The raters' names.
    pub fn raters(&self) -> &[String] {
        &self.raters
    }

    /// How many items there are.
    pub fn items(&self) -> usize {
        self.cells.len() / self.raters.len()
    }

    /// The ratings that occur, in order.
    pub fn scale(&self) -> &[Rating] {
        &self.scale
    }

    /// The numbers of the scale; `None` if some ratings are words.
    pub fn numbers(&self) -> Option<Vec<f64>> {
        self.scale
            .iter()
            .map(|r| match r {
                Rating::Number(n) => Some(*n),
                Rating::Word(_) => None,
            })
            .collect()
    }

    /// The ratings of an item, as places in the scale, a rater after the other.
    ///
    /// # Panics
    ///
    /// If there is no such item.
    pub fn item(&self, item: usize) -> &[Option<usize>] {
        let raters = self.raters.len();
        &self.cells[item * raters..][..raters]
    }
}

fn names_raters(table: &[Vec<Option<Rating>>]) -> bool {
    let Some((first, rest)) = table.split_first() else {
        return false;
    };
    let ratings: BTreeSet<&Rating> = rest.iter().flatten().flatten().collect();
    let word = |r: &&Rating| matches!(r, Rating::Word(_));
    if ratings.is_empty() {
        return false;
    }
    if ratings.iter().any(word) {
        !first.iter().flatten().any(|cell| ratings.contains(cell))
    } else {
        first.iter().flatten().any(|cell| word(&cell))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: &[&[&str]], header: Header) -> Result<Ratings> {
        Ratings::from_rows(rows, header)
    }

    #[test]
    fn numbers_are_one_rating_however_they_are_written() {
        let rows: [&[&str]; 3] = [&["1", "1.0"], &[" +1", "01"], &["-0", "0"]];
        let ratings = read(&rows, Header::Detect).unwrap();
        assert_eq!(ratings.numbers(), Some(vec![0.0, 1.0]));
        assert_eq!(ratings.items(), 3);
        assert_eq!(ratings.item(2), [Some(0), Some(0)]);
    }

    #[test]
    fn words_stay_words_and_empty_cells_are_missing() {
        let rows: [&[&str]; 3] = [&["yes", "no"], &["yes", " "], &["NaN", "no"]];
        let ratings = read(&rows, Header::Detect).unwrap();
        assert_eq!(ratings.items(), 3);
        assert_eq!(ratings.numbers(), None);
        assert_eq!(ratings.item(1), [Some(1), None]);
        assert_eq!(ratings.item(2), [None, Some(0)]);
    }

    #[test]
    fn a_first_row_is_a_header_where_it_can_be_no_item() {
        let items = |rows: &[&[&str]]| read(rows, Header::Detect).map(|r| r.items()).ok();
        assert_eq!(items(&[&["a", "b"], &["1", "2"]]), Some(1));
        assert_eq!(items(&[&["", "b"], &["1", "2"]]), Some(1));
        assert_eq!(items(&[&["1", "2"], &["1", "2"]]), Some(2));
        assert_eq!(
            items(&[&["anna", "bob"], &["yes", "no"], &["no", "no"]]),
            Some(2)
        );
        assert_eq!(items(&[&["yes", "no"], &["no", "no"]]), Some(2));
        // Raters called 1 and 2, who rate with words.
        assert_eq!(items(&[&["1", "2"], &["no", "yes"]]), Some(1));
        // A single row is an item, and so is one above nothing but missing ratings.
        assert_eq!(items(&[&["yes", "no"]]), Some(1));
        assert_eq!(items(&[&["yes", "no"], &["", ""]]), Some(2));
    }

    #[test]
    fn what_is_said_of_the_header_holds() {
        let rows: [&[&str]; 2] = [&["1", "2"], &["2", "2"]];
        let ratings = read(&rows, Header::Present).unwrap();
        assert_eq!(
            (ratings.raters(), ratings.items()),
            (&["1".to_string(), "2".to_string()][..], 1)
        );
        assert_eq!(
            read(&[&["a", "b"], &["1", "2"]], Header::Absent)
                .unwrap()
                .items(),
            2
        );
    }

    #[test]
    fn tables_that_cannot_be_read_are_told() {
        assert!(read(&[], Header::Detect).is_err());
        assert!(read(&[], Header::Present).is_err());
        assert!(read(&[&["1"], &["2"]], Header::Detect).is_err());
        assert!(read(&[&["a", "b"]], Header::Present).is_err());
        let ragged = read(&[&["1", "2"], &["1"]], Header::Detect).unwrap_err();
        assert!(ragged.to_string().contains("row 2 has 1 cells"), "{ragged}");
    }
}
