//! Files of results and samples, in the layout of lm-evaluation-harness.
//!
//! The files are `OUTPUT/MODEL/results_DATE.json` and `samples_TASK_DATE.jsonl` for each task. In the model's name,
//! characters that a path cannot contain become `__`. The date is in UTC, where the reference has local time. Files are
//! written whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Evaluation;
use super::evaluation::sanitize;
use crate::{Error, Result};

/// The files of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultsFiles {
    /// The results.
    pub results: PathBuf,
    /// The samples, one file for each task.
    pub samples: Vec<PathBuf>,
}

impl Evaluation {
    /// Writes results and, if `samples` is true, every document to the folder `output`.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn write(&self, output: impl AsRef<Path>, samples: bool) -> Result<ResultsFiles> {
        let folder = output.as_ref().join(sanitize(&self.run.model_name));
        std::fs::create_dir_all(&folder).map_err(|source| Error::Write {
            path: folder.clone(),
            source,
        })?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let date = iso_date(now).replace(':', "-");
        let mut files = ResultsFiles {
            results: folder.join(format!("results_{date}.json")),
            samples: Vec::new(),
        };
        if samples {
            for (task, samples) in &self.samples {
                let path = folder.join(format!("samples_{task}_{date}.jsonl"));
                write_whole(&path, |file| {
                    samples
                        .iter()
                        .try_for_each(|sample| writeln!(file, "{}", sample.to_line()))
                })?;
                files.samples.push(path);
            }
        }
        write_whole(&files.results, |file| {
            file.write_all(self.to_json().as_bytes())
        })?;
        Ok(files)
    }
}

/// Writes a temporary file in the same folder, then renames it.
pub(super) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let failed = |source| Error::Write {
        path: path.to_path_buf(),
        source,
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    {
        let mut buffered = std::io::BufWriter::new(file.as_file_mut());
        write(&mut buffered)
            .and_then(|()| buffered.flush())
            .map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// `2026-11-24T04:44:00.123456` of a time since 1970, in UTC.
fn iso_date(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Days to a date in years that begin in March, so that leap days come last (Hinnant's
    // days_from_civil, reversed); 719,468 days lie between 0000-03-01 and 1970-01-01.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}",
        time / 3_600,
        time / 60 % 60,
        time % 60,
        since_1970.subsec_micros()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.000000"),
            (951_782_399, "2000-02-28T23:59:59.000000"),
            (951_782_400, "2000-02-29T00:00:00.000000"),
            (1_709_251_200, "2024-03-01T00:00:00.000000"),
            (1_798_761_599, "2026-12-31T23:59:59.000000"),
        ] {
            assert_eq!(iso_date(Duration::from_secs(seconds)), date);
        }
    }
}
