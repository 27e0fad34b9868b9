//! A table of ratings: a row per item, a column per rater, and empty cells for missing ratings.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::{Error, Result};

/// A rating: a number in any notation (`1`, `1.0`, `+1`), or a word.
#[derive(Clone, Debug)]
pub enum Rating {
    /// A finite number.
    Number(f64),
    /// Anything else.
    Word(String),
}

impl Rating {
    /// The rating in a cell; `None` if the cell is empty or `nan`, as spreadsheets and NumPy write missing values.
    pub fn parse(cell: &str) -> Option<Self> {
        let cell = cell.trim();
        if cell.is_empty() || cell.eq_ignore_ascii_case("nan") {
            return None;
        }
        match cell.parse::<f64>() {
            // Adding zero converts -0 to 0.
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

/// Numbers in numerical order, then words by their characters.
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

/// Whether the first row of a table has the names of the raters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// Yes if the other rows are numbers and the first is not. For ratings that are words: if there are other rows and none
    /// of the first row's cells occurs in them.
    #[default]
    Detect,
    /// Yes.
    Present,
    /// No: it is an item.
    Absent,
}

/// Ratings of items (rows) by raters (columns), some of them missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratings {
    raters: Vec<String>,
    scale: Vec<Rating>,
    /// Indices in the scale, item after item.
    cells: Vec<Option<usize>>,
}

impl Ratings {
    /// Reads rows of cells. The default names of raters are their numbers, from 1.
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

    /// The number of items.
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

    /// The ratings of an item as indices in the scale, in the order of the raters.
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
    fn notations_of_a_number_are_one_rating() {
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
    fn a_first_row_is_a_header_if_it_cannot_be_an_item() {
        let items = |rows: &[&[&str]]| read(rows, Header::Detect).map(|r| r.items()).ok();
        assert_eq!(items(&[&["a", "b"], &["1", "2"]]), Some(1));
        assert_eq!(items(&[&["", "b"], &["1", "2"]]), Some(1));
        assert_eq!(items(&[&["1", "2"], &["1", "2"]]), Some(2));
        assert_eq!(
            items(&[&["anna", "bob"], &["yes", "no"], &["no", "no"]]),
            Some(2)
        );
        assert_eq!(items(&[&["yes", "no"], &["no", "no"]]), Some(2));
        // Raters with the names 1 and 2, whose ratings are words.
        assert_eq!(items(&[&["1", "2"], &["no", "yes"]]), Some(1));
        // A single row is an item, and so is one above rows of missing ratings.
        assert_eq!(items(&[&["yes", "no"]]), Some(1));
        assert_eq!(items(&[&["yes", "no"], &["", ""]]), Some(2));
    }

    #[test]
    fn the_setting_of_the_header_is_followed() {
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
    fn invalid_tables_are_errors() {
        assert!(read(&[], Header::Detect).is_err());
        assert!(read(&[], Header::Present).is_err());
        assert!(read(&[&["1"], &["2"]], Header::Detect).is_err());
        assert!(read(&[&["a", "b"]], Header::Present).is_err());
        let ragged = read(&[&["1", "2"], &["1"]], Header::Detect).unwrap_err();
        assert!(ragged.to_string().contains("row 2 has 1 cells"), "{ragged}");
    }
}
