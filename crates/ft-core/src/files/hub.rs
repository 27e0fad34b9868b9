//! Models by name: a folder as it is, or a hub id (`org/name`) as a folder of the hub's cache.
//!
//! The cache is the one that `huggingface_hub` keeps, so that what Python has downloaded is found
//! here and the other way round:
//!
//! ```text
//! <cache>/models--org--name/refs/main              the commit that `main` was when last asked for
//! <cache>/models--org--name/snapshots/<commit>/    one folder a commit, links into blobs/
//! <cache>/models--org--name/blobs/<hash>           the bytes
//! <cache>/datasets--org--name/                     the same of a dataset
//! ```
//!
//! Reading it needs nothing but the file system and is always compiled in. Downloading needs the
//! cargo feature `hub`. What differs from `huggingface_hub`'s `snapshot_download`:
//!
//! - of a model or adapter only the files that it is made of are fetched, of a dataset those that are asked for, and never a pickle (`.bin`, `.pt`),
//!   since reading one can run code;
//! - a reference is written when its snapshot is complete, so a broken-off download does not hide
//!   the complete snapshot of before;
//! - a snapshot counts only if its weights are complete, down to the last shard, and files that
//!   arrive with another size than the hub lists are thrown away.

mod cache;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod download_progress;
mod environment;
mod repo_id;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::files::gguf::is_gguf;
use crate::{Error, Result};
use cache::{CachedRepo, Snapshot};
use repo_id::{RepoId, Revision};

/// Where [`resolve`] and [`resolve_dataset`] look, and as whom.
///
/// The default reads no environment variable: the default cache of the home folder, the public hub,
/// no token. [`HubOptions::from_env`] is what programs want.
#[derive(Clone, Default)]
pub struct HubOptions {
    /// Branch, tag or commit; `None` is `main`.
    pub revision: Option<String>,
    /// The hub cache; `None` is `.cache/huggingface/hub` in the home folder.
    pub cache_dir: Option<PathBuf>,
    /// Whether only the cache is asked.
    pub offline: bool,
    /// Access token, for private and gated models and datasets.
    pub token: Option<String>,
    /// Address of the hub; `None` is `https://huggingface.co`.
    pub endpoint: Option<String>,
}

impl fmt::Debug for HubOptions {
    /// Everything but the token, which must not end up in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("revision", &self.revision)
            .field("cache_dir", &self.cache_dir)
            .field("offline", &self.offline)
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("endpoint", &self.endpoint)
            .finish()
    }
}

/// The folder that a path or hub id names.
///
/// An existing folder or GGUF file is returned as it is, and nothing else is asked. Otherwise `org/name` (or a
/// bare `name`, as old models have) is a hub id, and the answer is the folder of its snapshot in
/// the cache, after fetching what is missing there. Offline, or when the hub cannot be reached, a
/// complete snapshot in the cache will do. A commit hash as revision that is complete in the cache
/// asks nobody.
///
/// Fetched are `config.json`, `generation_config.json`, the tokenizer's files, chat templates, and
/// the weights: `model.safetensors`, or the index and its shards; of an adapter,
/// `adapter_config.json` and `adapter_model.safetensors`.
///
/// # Errors
///
/// [`Error::Hub`], which says what was tried and what to do: neither a folder nor a possible id;
/// no such model or revision; private or gated; the hub cannot be reached and the cache has no
/// complete copy; no weights in safetensors; not in the cache, and the program was built without
/// the feature `hub`.
///
/// # Examples
///
/// ```
/// use ft_core::{HubOptions, resolve};
///
/// let folder = std::env::temp_dir();
/// let found = resolve(folder.to_str().unwrap(), &HubOptions::default()).unwrap();
/// assert_eq!(found, folder);
///
/// let error = resolve("../no/such/folder", &HubOptions::default()).unwrap_err();
/// assert!(error.to_string().contains("there is no such folder"));
/// ```
pub fn resolve(id_or_folder: &str, options: &HubOptions) -> Result<PathBuf> {
    let path = Path::new(id_or_folder);
    if path.is_dir() || is_gguf(path) {
        return Ok(path.to_path_buf());
    }
    if path.is_file() {
        return Err(Error::Hub(format!(
            "{id_or_folder} is a file and no .gguf: give the folder that holds it"
        )));
    }
    let id = RepoId::parse(id_or_folder)?;
    let revision = Revision::parse(options.revision.as_deref())?;
    let repo = CachedRepo::new(&options.cache_folder()?, &id);
    let snapshot = repo.find(&revision)?;
    if options.offline {
        return from_cache(
            &id,
            &revision,
            &repo,
            snapshot,
            "and nothing is fetched offline: unset HF_HUB_OFFLINE, or give a folder",
        );
    }
    match snapshot {
        Some(snapshot) if revision.is_commit() && snapshot.is_whole() => Ok(snapshot.folder),
        #[cfg(feature = "hub")]
        snapshot => download::fetch(&id, &revision, &repo, snapshot, options),
        #[cfg(not(feature = "hub"))]
        snapshot => from_cache(
            &id,
            &revision,
            &repo,
            snapshot,
            "and this program was built without access to the hub: build with --features hub, or \
             give a folder",
        ),
    }
}

/// The folder of a dataset's snapshot in the hub's cache, with the files that `wanted` chooses from the names of all files of
/// the dataset, after fetching what is missing there.
///
/// Offline, and without the cargo feature `hub`, the snapshot in the cache is the answer, which may have a part of the files only:
/// `wanted` is not asked. That is so, too, when the hub cannot be reached for its list of files. A download that breaks off is an error;
/// files that are there are kept.
///
/// # Errors
///
/// [`Error::Hub`], which says what was tried and what to do: no possible id or revision; no such dataset; private or gated; no file
/// is wanted, or one that the dataset does not have; a download that breaks off; or nothing in the cache while the hub cannot be asked.
///
/// ```
/// use ft_core::{HubOptions, resolve_dataset};
///
/// let cache = std::env::temp_dir().join("an-empty-cache");
/// let options = HubOptions { cache_dir: Some(cache), offline: true, ..HubOptions::default() };
/// let all = |files: &[String]| files.to_vec();
/// let error = resolve_dataset("org/name", &all, &options).unwrap_err();
/// assert!(error.to_string().contains("not in the cache"));
/// ```
pub fn resolve_dataset(
    id: &str,
    wanted: &dyn Fn(&[String]) -> Vec<String>,
    options: &HubOptions,
) -> Result<PathBuf> {
    let id = RepoId::parse(id)?;
    let revision = Revision::parse(options.revision.as_deref())?;
    let repo = CachedRepo::of_dataset(&options.cache_folder()?, &id);
    let cached = repo.find_folder(&revision)?;
    #[cfg(feature = "hub")]
    if !options.offline {
        return download::fetch_dataset(&id, &revision, &repo, cached, wanted, options);
    }
    let _ = wanted;
    let fix = match cfg!(feature = "hub") {
        true => "unset HF_HUB_OFFLINE",
        false => "build with --features hub",
    };
    cached.ok_or_else(|| {
        Error::Hub(format!(
            "the revision {revision} of the dataset {id} is not in the cache ({}): {fix}, download it with `hf download {id} \
             --repo-type dataset`, or give files",
            repo.folder().display()
        ))
    })
}

/// A complete snapshot's folder, or why there is none, followed by what to do about it.
fn from_cache(
    id: &RepoId,
    revision: &Revision,
    repo: &CachedRepo,
    snapshot: Option<Snapshot>,
    fix: &str,
) -> Result<PathBuf> {
    match snapshot {
        Some(snapshot) if snapshot.missing.is_empty() => Ok(snapshot.folder),
        Some(snapshot) => Err(Error::Hub(format!(
            "{id} (revision {revision}) is incomplete in the cache, {} lacks {}, {fix}",
            snapshot.folder.display(),
            snapshot.missing.join(", ")
        ))),
        None => Err(Error::Hub(format!(
            "there is no folder {id}, so it was read as a hub id, but its revision {revision} is \
             not in the cache ({}), {fix}",
            repo.folder().display()
        ))),
    }
}
