//! Agreement of raters: Cohen's and Fleiss' kappa, Krippendorff's alpha, with intervals and advice.
//!
//! The ratings are in a CSV file: a column per rater, a row per item, and an empty cell (or `nan`) for a missing
//! rating. Ratings may be words. Notations of a number (1 and 1.0) are the same rating. A first row of names is
//! detected: above numbers it is a row that is not all numbers, above words a row whose cells are not ratings in other
//! rows. `--header` and `--no-header` override this.
//!
//! ```sh
//! cargo run --release --example agreement -- --ratings examples/data/ratings.csv
//! ```
//!
//! With `--json` the last line is an object: `items`, `raters`, `percent`, and for each of `cohen`, `fleiss`,
//! `krippendorff_nominal`, `krippendorff_ordinal`, `krippendorff_interval` the value (null if it is undefined) and the
//! interval `cohen_interval` and so on, `[low, high]`, by bootstrap over items. `cohen` is the mean over all pairs of
//! raters. `cohen_analytic_interval` is the large-sample interval for two raters. `advice` is `too_vague` (below 0.6),
//! `tentative` or `reliable` (above 0.8).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use ft::eval::agreement::{Agreement, Header, Measure, Ratings};
use ft::eval::significance::{Bootstrap, Interval};
use serde_json::json;

/// Agreement of raters, with advice.
#[derive(Parser)]
struct Args {
    /// CSV file: a column per rater, a row per item, empty cells for missing ratings.
    #[arg(long)]
    ratings: PathBuf,
    /// The first row has the raters' names.
    #[arg(long, conflicts_with = "no_header")]
    header: bool,
    /// The first row is an item.
    #[arg(long)]
    no_header: bool,
    /// Resamples of the items, for the intervals.
    #[arg(long, default_value_t = 2000)]
    resamples: usize,
    /// Share of the resamples inside the intervals.
    #[arg(long, default_value_t = 0.95)]
    level: f64,
    /// Seed of the resamples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let header = match (args.header, args.no_header) {
        (true, _) => Header::Present,
        (_, true) => Header::Absent,
        _ => Header::Detect,
    };
    let ratings = Ratings::from_rows(&rows(&args.ratings)?, header)
        .with_context(|| args.ratings.display().to_string())?;
    let settings = Bootstrap {
        resamples: args.resamples,
        seed: args.seed,
        level: args.level,
    };
    let agreement = Agreement::of(&ratings, &settings)?;
    let measures = [
        ("cohen", &agreement.cohen),
        ("fleiss", &agreement.fleiss),
        ("krippendorff_nominal", &agreement.krippendorff_nominal),
        ("krippendorff_ordinal", &agreement.krippendorff_ordinal),
        ("krippendorff_interval", &agreement.krippendorff_interval),
    ];

    let raters = ratings.raters();
    eprintln!(
        "{} items, {} raters: {}",
        ratings.items(),
        raters.len(),
        raters.join(", ")
    );
    if let Some(percent) = agreement.percent {
        eprintln!(
            "{:22} {:6.1}% of pairs of ratings",
            "equal",
            100.0 * percent
        );
    }
    for (name, measure) in measures {
        eprintln!("{name:22} {}", line(measure));
    }
    if let Some(advice) = agreement.advice {
        let by = match agreement.cohen.value {
            Some(_) => "cohen",
            None => "krippendorff_nominal",
        };
        eprintln!("by {by}: {advice}");
    }
    if args.json {
        let mut object = json!({
            "items": ratings.items(),
            "raters": raters.len(),
            "percent": agreement.percent,
        });
        for (name, measure) in measures {
            object[name] = json!(measure.value);
            object[format!("{name}_interval")] = ends(measure.interval);
        }
        object["cohen_analytic_interval"] = ends(agreement.cohen_analytic);
        object["advice"] = json!(agreement.advice);
        println!("{object}");
    }
    Ok(())
}

/// The cells of a CSV file, without its blank lines. A line with fewer cells than the first is reported later.
fn rows(path: &Path) -> Result<Vec<Vec<String>>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_path(path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let rows: Vec<Vec<String>> = reader
        .records()
        .map(|record| Ok(record?.iter().map(str::to_string).collect()))
        .collect::<Result<_>>()
        .with_context(|| format!("{} is not CSV in UTF-8", path.display()))?;
    let blank = |row: &[String]| row.len() == 1 && row[0].trim().is_empty();
    Ok(rows.into_iter().filter(|row| !blank(row)).collect())
}

fn line(measure: &Measure) -> String {
    match (measure.value, measure.interval, measure.reason) {
        (Some(value), Some(i), _) => format!("{value:7.4}  [{:.4}, {:.4}]", i.low, i.high),
        (Some(value), None, _) => format!("{value:7.4}"),
        (None, _, reason) => format!("undefined: {}", reason.unwrap_or("no ratings")),
    }
}

fn ends(interval: Option<Interval>) -> serde_json::Value {
    json!(interval.map(|i| [i.low, i.high]))
}
