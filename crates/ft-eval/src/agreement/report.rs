//! All measures of agreement of a table of ratings, with intervals.

use super::{Advice, Level, Ratings, Weights, cohen, fleiss, krippendorff, percent_agreement};
use crate::Result;
use crate::significance::{Bootstrap, Interval, bootstrap_interval};

/// A measure, or the reason why it is undefined.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// The value; `None` if it is undefined.
    pub value: Option<f64>,
    /// The interval by percentile bootstrap over items. Resamples without a value are ignored.
    pub interval: Option<Interval>,
    /// The reason why there is no value.
    pub reason: Option<&'static str>,
}

/// All measures of a table of ratings.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    /// Share of agreeing pairs of ratings, including agreement by chance.
    pub percent: Option<f64>,
    /// Unweighted Cohen's kappa on the items that both raters rated. For more raters the mean over all pairs (Light,
    /// *Psychological Bulletin* 76, 1971), which is undefined if that of any pair is.
    pub cohen: Measure,
    /// The large-sample interval of Cohen's kappa, for two raters only.
    pub cohen_analytic: Option<Interval>,
    /// Fleiss' kappa, if all items have the same number of ratings.
    pub fleiss: Measure,
    /// Krippendorff's alpha of categories.
    pub krippendorff_nominal: Measure,
    /// Krippendorff's alpha of ranks, if all ratings are numbers.
    pub krippendorff_ordinal: Measure,
    /// Krippendorff's alpha of numbers, if all ratings are.
    pub krippendorff_interval: Measure,
    /// The advice for Cohen's kappa, or for the nominal alpha if Cohen's kappa is undefined.
    pub advice: Option<Advice>,
}

impl Agreement {
    /// Measures a table of ratings.
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the settings of the bootstrap are invalid.
    ///
    /// ```
    /// # use ft_eval::agreement::{Advice, Agreement, Header, Ratings};
    /// # use ft_eval::significance::Bootstrap;
    /// let rows = [["anna", "bob"], ["1", "1"], ["2", "2"], ["1", "2"], ["2", "2"]];
    /// let ratings = Ratings::from_rows(&rows, Header::Detect)?;
    /// let agreement = Agreement::of(&ratings, &Bootstrap::default())?;
    /// assert_eq!(agreement.cohen.value, Some(0.5));
    /// assert_eq!(agreement.advice, Some(Advice::TooVague));
    /// # Ok::<(), ft_eval::Error>(())
    /// ```
    pub fn of(ratings: &Ratings, settings: &Bootstrap) -> Result<Self> {
        settings.validate(ratings.items())?;
        let cohen = measure(ratings, settings, cohen_pairs)?;
        let fleiss = measure(ratings, settings, fleiss_of)?;
        let places: Vec<f64> = (0..ratings.scale().len()).map(|i| i as f64).collect();
        let nominal = alpha(ratings, settings, Level::Nominal, Some(&places))?;
        let numbers = ratings.numbers();
        let items: Vec<&[Option<usize>]> = all(ratings).map(|i| ratings.item(i)).collect();
        let advice = cohen.value.or(nominal.value).and_then(Advice::of);
        Ok(Self {
            percent: percent_agreement(&items),
            cohen_analytic: cohen_analytic(ratings, settings.level)?,
            cohen,
            fleiss,
            krippendorff_nominal: nominal,
            krippendorff_ordinal: alpha(ratings, settings, Level::Ordinal, numbers.as_deref())?,
            krippendorff_interval: alpha(ratings, settings, Level::Interval, numbers.as_deref())?,
            advice,
        })
    }
}

type Value = std::result::Result<f64, &'static str>;

fn all(ratings: &Ratings) -> impl Iterator<Item = usize> {
    0..ratings.items()
}

fn measure(
    ratings: &Ratings,
    settings: &Bootstrap,
    of: impl Fn(&Ratings, &[usize]) -> Value + Sync,
) -> Result<Measure> {
    let items: Vec<usize> = all(ratings).collect();
    let value = of(ratings, &items);
    let interval = match value {
        Ok(_) => bootstrap_interval(items.len(), settings, |items| of(ratings, items).ok())?,
        Err(_) => None,
    };
    Ok(Measure {
        value: value.ok(),
        interval,
        reason: value.err(),
    })
}

fn alpha(
    ratings: &Ratings,
    settings: &Bootstrap,
    level: Level,
    numbers: Option<&[f64]>,
) -> Result<Measure> {
    measure(ratings, settings, |ratings, items| {
        let numbers = numbers.ok_or("some ratings are words, which have no order or distance")?;
        let given = |i: &usize| {
            ratings
                .item(*i)
                .iter()
                .flatten()
                .map(|p| numbers[*p])
                .collect()
        };
        krippendorff::alpha(items.iter().map(given).collect(), level)
            .ok_or("no two raters rated the same item, or all their ratings are the same")
    })
}

fn cohen_pairs(ratings: &Ratings, items: &[usize]) -> Value {
    let raters = ratings.raters().len();
    let (mut sum, mut pairs) = (0.0, 0.0);
    for a in 0..raters {
        for b in 0..a {
            let both = items.iter().filter_map(|&i| {
                let item = ratings.item(i);
                Some((item[a]?, item[b]?))
            });
            sum += cohen::kappa(both, ratings.scale().len(), Weights::Equal).ok_or(
                "two raters have no common items, or gave one and the same rating to all of them",
            )?;
            pairs += 1.0;
        }
    }
    Ok(sum / pairs)
}

fn cohen_analytic(ratings: &Ratings, level: f64) -> Result<Option<Interval>> {
    if ratings.raters().len() != 2 {
        return Ok(None);
    }
    let both = all(ratings).filter_map(|i| Some((ratings.item(i)[0]?, ratings.item(i)[1]?)));
    let (first, second): (Vec<usize>, Vec<usize>) = both.unzip();
    if first.is_empty() {
        return Ok(None);
    }
    let kappa = cohen::cohen_kappa(&first, &second, Weights::Equal)?;
    Ok(kappa.map(|k| k.interval(level)))
}

fn fleiss_of(ratings: &Ratings, items: &[usize]) -> Value {
    let mut totals = vec![0; ratings.scale().len()];
    let (mut squares, mut each) = (0.0, None);
    for &i in items {
        // There are few raters, so this is faster than a table of items by categories.
        let places: Vec<usize> = ratings.item(i).iter().flatten().copied().collect();
        if *each.get_or_insert(places.len()) != places.len() {
            return Err("items differ in the number of ratings");
        }
        for place in &places {
            totals[*place] += 1;
            squares += places.iter().filter(|p| *p == place).count() as f64;
        }
    }
    fleiss::kappa(
        items.len() as u128,
        each.unwrap_or(0) as u128,
        &totals,
        squares,
    )
    .map(|k| k.value)
    .ok_or("items have fewer than two ratings, or all ratings are the same")
}

#[cfg(test)]
mod tests {
    use super::super::Header;
    use super::*;

    fn of(rows: &[&[&str]]) -> Agreement {
        let ratings = Ratings::from_rows(rows, Header::Absent).unwrap();
        let settings = Bootstrap {
            resamples: 500,
            ..Default::default()
        };
        Agreement::of(&ratings, &settings).unwrap()
    }

    #[test]
    fn words_have_no_order() {
        let agreement = of(&[&["yes", "no"], &["no", "no"], &["yes", "yes"]]);
        assert!(agreement.krippendorff_nominal.value.is_some());
        assert!(agreement.krippendorff_ordinal.value.is_none());
        assert!(
            agreement
                .krippendorff_interval
                .reason
                .unwrap()
                .contains("words")
        );
        assert!(agreement.cohen_analytic.is_some());
    }

    #[test]
    fn equal_ratings_have_reasons_instead_of_values() {
        let agreement = of(&[&["1", "1"], &["1", "1"]]);
        assert_eq!(agreement.percent, Some(1.0));
        for measure in [
            &agreement.cohen,
            &agreement.fleiss,
            &agreement.krippendorff_nominal,
        ] {
            assert_eq!((measure.value, measure.interval), (None, None));
            assert!(measure.reason.is_some());
        }
        assert_eq!(agreement.advice, None);
    }

    #[test]
    fn with_missing_ratings_alpha_and_the_other_pairs_are_defined() {
        let agreement = of(&[
            &["1", "1", ""],
            &["2", "3", "2"],
            &["", "3", "3"],
            &["4", "4", "4"],
        ]);
        assert!(
            agreement
                .fleiss
                .reason
                .unwrap()
                .contains("number of ratings")
        );
        assert!(agreement.cohen.value.is_some() && agreement.cohen_analytic.is_none());
        let alpha = &agreement.krippendorff_interval;
        let interval = alpha.interval.unwrap();
        assert!(interval.low <= alpha.value.unwrap() && alpha.value.unwrap() <= interval.high);
    }

    #[test]
    fn empty_tables_have_no_measure() {
        let agreement = of(&[&["", ""], &["", ""]]);
        assert_eq!(agreement.percent, None);
        assert!(agreement.cohen.value.is_none() && agreement.fleiss.value.is_none());
    }

    #[test]
    fn advice_follows_cohen_and_then_alpha() {
        let perfect = of(&[
            &["1", "1", ""],
            &["2", "2", ""],
            &["", "1", "1"],
            &["3", "3", ""],
        ]);
        // The first and third raters have no common items.
        assert!(perfect.cohen.value.is_none());
        assert_eq!(perfect.advice, Some(Advice::Reliable));
    }
}
