//! Fetching a snapshot from the hub into its cache, through the crate `hf-hub`.
//!
//! 1. Ask which commit the revision is, and which files it has with which sizes.
//! 2. Fetch the small files, the index among them; then the weights that the index names.
//! 3. Compare every size with the hub's list. `hf-hub` 1.0 stores the body of a failed answer as if
//!    it were the file, and takes a blob that is there for complete, so this is needed.
//! 4. Write the reference, last.
//!
//! Of a dataset the files are fetched that the caller chooses from the list.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hf_hub::progress::Progress;
use hf_hub::repository::{RepoTreeEntry, RepoType, RepoTypeDataset, RepoTypeModel};
use hf_hub::{HFClient, HFError, HFRepositorySync, HFResult};

use super::HubOptions;
use super::cache::{self, ADAPTER_WEIGHTS, CachedRepo, INDEX, Snapshot, WEIGHTS};
use super::download_progress::DownloadProgress;
use super::repo_id::{RepoId, Revision, is_commit};
use crate::{Error, Result, safetensors_folder};

/// Files that say what the weights mean. Everything else stays on the hub.
const SMALL_FILES: [&str; 14] = [
    cache::CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    cache::ADAPTER_CONFIG,
    INDEX,
];

/// Retries after the first failure, 0.2 s apart at most, then 0.4 s, then 0.8 s.
const RETRIES: usize = 3;

/// The snapshot's folder, complete. `cached` is what the cache has for the revision: it is the answer
/// when the hub cannot be reached.
pub(super) fn fetch(
    id: &RepoId,
    revision: &Revision,
    repo: &CachedRepo,
    cached: Option<Snapshot>,
    options: &HubOptions,
) -> Result<PathBuf> {
    let download = Download::new(RepoTypeModel, id, revision, repo, options)?;
    match download.model() {
        Ok(folder) => Ok(folder),
        Err(Failure::Unreachable(reason)) => match cached {
            Some(snapshot) if snapshot.missing.is_empty() => {
                tracing::warn!("{reason}; using the copy in the cache, which may be out of date");
                Ok(snapshot.folder)
            }
            _ => Err(Error::Hub(format!(
                "{reason}; the cache has no complete copy of {id}: connect to the network, or give \
                 a folder"
            ))),
        },
        Err(Failure::Other(error)) => Err(error),
    }
}

/// The folder of a dataset's snapshot with the files that `wanted` chooses from the names of all. `cached` is what the cache has for
/// the revision: it is the answer when the hub cannot be reached.
pub(super) fn fetch_dataset(
    id: &RepoId,
    revision: &Revision,
    repo: &CachedRepo,
    cached: Option<PathBuf>,
    wanted: &dyn Fn(&[String]) -> Vec<String>,
    options: &HubOptions,
) -> Result<PathBuf> {
    let download = Download::new(RepoTypeDataset, id, revision, repo, options)?;
    let listed = (download.commit()).and_then(|commit| Ok((download.list(&commit)?, commit)));
    match listed {
        Ok((sizes, commit)) => (download.dataset(&commit, &sizes, wanted)).map_err(|failure| {
            match failure {
                // What is there may be a part of what is wanted.
                Failure::Unreachable(reason) => Error::Hub(format!(
                    "{reason}, and files of the dataset {id} are missing in the cache: run again, files that are there are kept"
                )),
                Failure::Other(error) => error,
            }
        }),
        Err(Failure::Unreachable(reason)) => match cached {
            Some(folder) => {
                tracing::warn!("{reason}; using the copy in the cache, which may be out of date");
                Ok(folder)
            }
            None => Err(Error::Hub(format!(
                "{reason}; the cache has no copy of the dataset {id}: connect to the network, or give files"
            ))),
        },
        Err(Failure::Other(error)) => Err(error),
    }
}

/// What ends a download.
enum Failure {
    /// The hub did not answer, or is out of order: an older copy may do.
    Unreachable(String),
    /// It answered, and the answer is no.
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Asks which commit a revision is, which each kind of repository answers in its own form.
trait Commits {
    fn sha(&self, revision: &str) -> HFResult<Option<String>>;
}

macro_rules! commits {
    ($($kind:ty),*) => {
        $(impl Commits for HFRepositorySync<$kind> {
            fn sha(&self, revision: &str) -> HFResult<Option<String>> {
                let info = self.info().revision(revision).expand(vec!["sha".into()]).send()?;
                Ok(info.sha)
            }
        })*
    };
}

commits!(RepoTypeModel, RepoTypeDataset);

struct Download<'a, T: RepoType> {
    kind: T,
    id: &'a RepoId,
    revision: &'a Revision,
    repo: &'a CachedRepo,
    options: &'a HubOptions,
    remote: HFRepositorySync<T>,
}

impl<'a, T: RepoType> Download<'a, T>
where
    HFRepositorySync<T>: Commits,
{
    fn new(
        kind: T,
        id: &'a RepoId,
        revision: &'a Revision,
        repo: &'a CachedRepo,
        options: &'a HubOptions,
    ) -> Result<Self> {
        // Without a token hf-hub would look for one in the environment. A line break cannot be sent,
        // so this one keeps it from looking and is not sent.
        const NO_TOKEN: &str = "\n";
        let token = match options.token.as_deref() {
            Some(token) if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) => {
                return Err(Error::Hub(
                    "the hub token is empty or has characters that no token has: check HF_TOKEN"
                        .into(),
                ));
            }
            Some(token) => token,
            None => NO_TOKEN,
        };
        let cache = repo.folder().parent().unwrap_or(Path::new("."));
        let endpoint = options.endpoint();
        let client = HFClient::builder()
            .endpoint(endpoint)
            .cache_dir(cache)
            .token(token)
            .retry_max_attempts(RETRIES)
            .build_sync()
            .map_err(|e| Error::Hub(format!("cannot set up access to the hub {endpoint}: {e}")))?;
        let (org, name) = id.parts();
        Ok(Self {
            kind,
            id,
            revision,
            repo,
            options,
            remote: client.repository(kind, org, name),
        })
    }

    /// The files of a commit that are wanted, one after the other.
    fn dataset(
        &self,
        commit: &str,
        sizes: &BTreeMap<String, u64>,
        wanted: &dyn Fn(&[String]) -> Vec<String>,
    ) -> std::result::Result<PathBuf, Failure> {
        const SHOWN: usize = 8;
        let all: Vec<String> = sizes.keys().cloned().collect();
        let wanted: BTreeSet<String> = wanted(&all).into_iter().collect();
        let refuse = |reason: String| Failure::Other(Error::Hub(reason));
        if wanted.is_empty() {
            let some = &all[..all.len().min(SHOWN)];
            return Err(refuse(format!(
                "no file of the dataset {} (revision {}) is one of those that are asked for; it has {} files, such as {}. Parquet and \
                 Arrow files are read with --features parquet,arrow",
                self.id,
                self.revision,
                all.len(),
                some.join(", ")
            )));
        }
        if let Some(absent) = wanted.iter().find(|path| !sizes.contains_key(*path)) {
            return Err(refuse(format!(
                "the dataset {} has no file {absent}",
                self.id
            )));
        }
        let lacking = self.lacking(commit, &wanted, sizes);
        if let Some(strange) = lacking.iter().find(|path| !is_safe_path(path)) {
            return Err(refuse(format!(
                "the dataset {0} has a file {strange:?}, whose name is not supported here: download it with `hf download {0} \
                 --repo-type dataset`, then set HF_HUB_OFFLINE=1",
                self.id
            )));
        }
        self.fetch(commit, &lacking, sizes, true, |progress| {
            lacking.iter().try_for_each(|file| {
                let download = self.remote.download_file().filename(file).revision(commit);
                download.maybe_progress(progress.clone()).send().map(drop)
            })
        })?;
        self.write_reference(commit)?;
        Ok(self.repo.snapshot(commit))
    }

    fn model(&self) -> std::result::Result<PathBuf, Failure> {
        let commit = self.commit()?;
        let sizes = self.list(&commit)?;
        let folder = self.repo.snapshot(&commit);

        let small = sizes.keys().filter(|path| is_small(path)).cloned();
        self.fetch_files(&commit, small.collect(), &sizes, false)?;
        let weights = self.weights(&folder, &sizes)?;
        self.fetch_files(&commit, weights, &sizes, true)?;

        self.write_reference(&commit)?;
        Ok(folder)
    }

    /// Says in the cache which commit the revision is.
    fn write_reference(&self, commit: &str) -> Result<()> {
        if self.revision.is_commit() {
            return Ok(());
        }
        safetensors_folder::write_file(&self.repo.reference(self.revision), commit.as_bytes())
    }

    /// Which commit the revision is now.
    fn commit(&self) -> std::result::Result<String, Failure> {
        if self.revision.is_commit() {
            return Ok(self.revision.as_str().to_string());
        }
        let sha = self.remote.sha(self.revision.as_str());
        match sha.map_err(|e| self.explain(e))? {
            Some(sha) if is_commit(&sha) => Ok(sha),
            other => Err(Failure::Other(Error::Hub(format!(
                "{} does not say which commit the revision {} of {} is (it says {other:?}): is it \
                 a hub? Check HF_ENDPOINT",
                self.options.endpoint(),
                self.revision,
                self.id
            )))),
        }
    }

    /// All files of a commit with their sizes.
    fn list(&self, commit: &str) -> std::result::Result<BTreeMap<String, u64>, Failure> {
        let entries = self
            .remote
            .list_tree()
            .revision(commit)
            .recursive(true)
            .send()
            .map_err(|e| self.explain(e))?;
        let files = entries.into_iter().filter_map(|entry| match entry {
            RepoTreeEntry::File { path, size, .. } => Some((path, size)),
            RepoTreeEntry::Directory { .. } => None,
        });
        Ok(files.collect())
    }

    /// The files that hold the weights.
    fn weights(&self, folder: &Path, sizes: &BTreeMap<String, u64>) -> Result<BTreeSet<String>> {
        let has = |name: &str| sizes.contains_key(name);
        let mut weights = BTreeSet::new();
        if has(cache::ADAPTER_CONFIG) && has(ADAPTER_WEIGHTS) {
            weights.insert(ADAPTER_WEIGHTS.to_string());
        }
        if has(WEIGHTS) {
            weights.insert(WEIGHTS.to_string());
        } else if has(INDEX) {
            weights.extend(cache::shards(&folder.join(INDEX))?);
        }
        let absent: Vec<_> = weights.iter().filter(|name| !has(name)).cloned().collect();
        if !absent.is_empty() {
            return Err(Error::Hub(format!(
                "{} (revision {}) lacks {}, which its {INDEX} names: its upload is incomplete",
                self.id,
                self.revision,
                absent.join(", ")
            )));
        }
        if weights.is_empty() {
            return Err(Error::Hub(self.no_weights(sizes)));
        }
        if !has(cache::CONFIG) && !has(cache::ADAPTER_CONFIG) {
            return Err(Error::Hub(format!(
                "{} (revision {}) has neither config.json nor adapter_config.json, so nothing says \
                 what its weights are",
                self.id, self.revision
            )));
        }
        Ok(weights)
    }

    fn no_weights(&self, sizes: &BTreeMap<String, u64>) -> String {
        const OTHER_FORMATS: [&str; 7] = [
            ".bin",
            ".pt",
            ".pth",
            ".ckpt",
            ".h5",
            ".gguf",
            ".safetensors",
        ];
        const SHOWN: usize = 4;
        let others: Vec<&str> = sizes
            .keys()
            .map(String::as_str)
            .filter(|path| OTHER_FORMATS.iter().any(|ending| path.ends_with(ending)))
            .take(SHOWN)
            .collect();
        let offer = match others.as_slice() {
            [] => "nor weights in another format".to_string(),
            others => format!("but {}", others.join(", ")),
        };
        format!(
            "{} (revision {}) has neither {WEIGHTS} nor {INDEX} nor {ADAPTER_WEIGHTS}, {offer}. Only \
             safetensors are read, since reading a pickle can run code: choose another revision, or \
             convert the model in Python with from_pretrained and save_pretrained",
            self.id, self.revision
        )
    }

    /// Puts files into the commit's snapshot, whole.
    fn fetch_files(
        &self,
        commit: &str,
        files: BTreeSet<String>,
        sizes: &BTreeMap<String, u64>,
        show: bool,
    ) -> std::result::Result<(), Failure> {
        let lacking = self.lacking(commit, &files, sizes);
        self.fetch(commit, &lacking, sizes, show, |progress| {
            let download = (self.remote.snapshot_download())
                .revision(commit)
                // Patterns to hf-hub; plain names by construction, so each matches itself only.
                .allow_patterns(lacking.clone());
            download.maybe_progress(progress).send().map(drop)
        })
    }

    /// Those of these files that the cache does not have with the size that the hub lists.
    fn lacking(
        &self,
        commit: &str,
        files: &BTreeSet<String>,
        sizes: &BTreeMap<String, u64>,
    ) -> Vec<String> {
        let folder = self.repo.snapshot(commit);
        let lacks = |file: &&String| !is_whole(&folder.join(file), sizes[*file]);
        files.iter().filter(lacks).cloned().collect()
    }

    /// Downloads files that are lacking by `send`, and throws away what arrives with another size.
    fn fetch(
        &self,
        commit: &str,
        lacking: &[String],
        sizes: &BTreeMap<String, u64>,
        show: bool,
        send: impl FnOnce(Option<Progress>) -> HFResult<()>,
    ) -> std::result::Result<(), Failure> {
        if lacking.is_empty() {
            return Ok(());
        }
        let folder = self.repo.snapshot(commit);
        // What is there with another size would be taken for complete.
        lacking.iter().for_each(|file| discard(&folder.join(file)));
        let bytes = lacking.iter().map(|file| sizes[file]).sum();
        let progress = show.then(|| DownloadProgress::start(self.id, lacking.len(), bytes));
        let outcome = send(progress.as_ref().map(DownloadProgress::handler));
        if let Some(progress) = progress {
            progress.finish();
        }
        let broken: Vec<&str> = lacking
            .iter()
            .filter(|file| !is_whole(&folder.join(file), sizes[*file]))
            .map(String::as_str)
            .collect();
        broken.iter().for_each(|file| discard(&folder.join(file)));
        outcome.map_err(|e| self.explain(e))?;
        if broken.is_empty() {
            return Ok(());
        }
        Err(Failure::Unreachable(format!(
            "{} sent {} of {} with another size than it lists",
            self.options.endpoint(),
            broken.join(", "),
            self.id
        )))
    }

    /// What a failure means for the user.
    fn explain(&self, error: HFError) -> Failure {
        let (id, revision, endpoint) = (self.id, self.revision, self.options.endpoint());
        let (kind, prefix) = (self.kind.singular(), self.kind.url_prefix());
        let of_model = kind == RepoTypeModel.singular();
        let refused = |status: u16, server: Option<&str>| {
            let token = match (&self.options.token, status) {
                (None, _) => {
                    "no token was sent: set HF_TOKEN, or log in with Python's `hf auth login`"
                }
                (Some(_), 401) => "the token that was sent is not accepted: check HF_TOKEN",
                (Some(_), _) => {
                    "the token that was sent (HF_TOKEN) may not read it: use one that may"
                }
            };
            let server = server
                .map(|text| format!(", \"{text}\""))
                .unwrap_or_default();
            let guess = match of_model {
                true => "there was no such folder, so it was read as a hub id; it",
                false => "the dataset",
            };
            Error::Hub(format!(
                "{endpoint} refuses {id} ({status}{server}): {guess} does not exist, is private, or is gated; {token}, and accept \
                 its terms at {endpoint}/{prefix}{id} if it has any"
            ))
        };
        let unknown = |code: Option<&str>| {
            let what = if code == Some("RevisionNotFound") {
                format!("{id} has no revision {revision} on {endpoint}")
            } else if of_model {
                format!(
                    "there is neither a folder {id} nor a model of this id (revision {revision}) \
                     on {endpoint}: check the spelling"
                )
            } else {
                format!(
                    "there is no {kind} {id} (revision {revision}) on {endpoint}: check the spelling"
                )
            };
            Error::Hub(what)
        };
        Failure::Other(match &error {
            HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::Http { context }
                if matches!(context.status.as_u16(), 401 | 403) =>
            {
                refused(context.status.as_u16(), context.server_message.as_deref())
            }
            HFError::RepoNotFound { context, .. } | HFError::RevisionNotFound { context, .. } => {
                unknown(context.as_ref().and_then(|c| c.error_code.as_deref()))
            }
            HFError::Http { context } if context.status.as_u16() == 404 => {
                unknown(context.error_code.as_deref())
            }
            HFError::Request { source, .. } => {
                return Failure::Unreachable(format!(
                    "cannot reach {endpoint} for {id}: {}",
                    innermost(source)
                ));
            }
            HFError::RateLimited { .. } => {
                return Failure::Unreachable(format!(
                    "{endpoint} answers that there were too many requests; wait a few minutes"
                ));
            }
            HFError::Http { context } if context.status.as_u16() >= 500 => {
                return Failure::Unreachable(format!(
                    "{endpoint} is out of order ({}) for {id}",
                    context.status
                ));
            }
            HFError::CacheLockTimeout { path } => Error::Hub(format!(
                "another program is fetching {id} (it holds {}): run again when it is done",
                path.display()
            )),
            HFError::Io(source) => Error::Hub(format!(
                "cannot store {id} in the cache {}: {source}; HF_HUB_CACHE names another folder",
                self.repo.folder().display()
            )),
            other => Error::Hub(format!("fetching {id} from {endpoint}: {other}")),
        })
    }
}

/// Whether a file of the repository is one that a model or adapter is made of, weights aside.
fn is_small(path: &str) -> bool {
    const TEMPLATES: &str = "additional_chat_templates/";
    SMALL_FILES.contains(&path)
        || path
            .strip_prefix(TEMPLATES)
            .is_some_and(|name| name.ends_with(".jinja") && cache::is_plain_name(name))
}

/// A path inside the repository that an address can name as it is.
fn is_safe_path(path: &str) -> bool {
    let is_strange = |c: char| c.is_control() || matches!(c, '\\' | '%' | '#' | '?' | ':');
    !path.contains(is_strange) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn is_whole(path: &Path, size: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == size)
}

/// Removes a file of a snapshot together with the blob that it links to. Failures show when the file
/// is fetched.
fn discard(path: &Path) {
    if let (Ok(target), Some(folder)) = (std::fs::read_link(path), path.parent()) {
        let _ = std::fs::remove_file(folder.join(target));
    }
    let _ = std::fs::remove_file(path);
}

/// The last cause, which says what happened: "Connection refused", not "error sending request".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
