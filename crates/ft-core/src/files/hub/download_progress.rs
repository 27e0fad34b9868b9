//! A download's progress: a bar on a terminal, a line of the log elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hf_hub::progress::{DownloadEvent, Progress, ProgressEvent, ProgressHandler};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::repo_id::RepoId;

/// The bar, shared with the handler that hf-hub calls.
pub(super) struct DownloadProgress(Arc<Bar>);

struct Bar {
    bar: ProgressBar,
    done: Mutex<Done>,
}

/// Bytes so far: file by file over plain HTTP, as one sum over Xet.
#[derive(Default)]
struct Done {
    files: HashMap<String, u64>,
    batch: u64,
}

impl Done {
    /// Over Xet, files are also reported one by one when they are complete, which the sum covers.
    fn total(&self) -> u64 {
        self.files.values().sum::<u64>().max(self.batch)
    }
}

impl DownloadProgress {
    /// Shows that so much is about to be fetched.
    pub(super) fn start(id: &RepoId, files: usize, bytes: u64) -> Self {
        tracing::info!("fetching {files} file(s) of {id}, {}", HumanBytes(bytes));
        let bar = ProgressBar::new(bytes).with_message(id.to_string());
        if let Ok(style) = ProgressStyle::with_template(
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ) {
            bar.set_style(style);
        }
        Self(Arc::new(Bar {
            bar,
            done: Mutex::default(),
        }))
    }

    /// What hf-hub reports to.
    pub(super) fn handler(&self) -> Progress {
        Arc::clone(&self.0).into()
    }

    /// Takes the bar away.
    pub(super) fn finish(self) {
        self.0.bar.finish_and_clear();
    }
}

impl ProgressHandler for Bar {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else {
            return;
        };
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            DownloadEvent::Progress { files } => {
                for file in files {
                    done.files
                        .insert(file.filename.clone(), file.bytes_completed);
                }
            }
            DownloadEvent::AggregateProgress {
                bytes_completed, ..
            } => done.batch = done.batch.max(*bytes_completed),
            DownloadEvent::Start { .. } | DownloadEvent::Complete => {}
        }
        self.bar.set_position(done.total());
    }
}
