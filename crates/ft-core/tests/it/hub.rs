//! Models by hub id: the cache's layout without a network, and a whole hub on the loopback device.

use std::fs;
use std::path::{Path, PathBuf};

use ft_core::{HubOptions, resolve};
use tempfile::TempDir;

#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod mock_hub;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER_COMMIT: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// A cache that holds `org/name` at `COMMIT` as `main`, laid out as huggingface_hub does.
struct Cache {
    root: TempDir,
}

impl Cache {
    fn with(files: &[(&str, &str)]) -> Self {
        let cache = Self {
            root: tempfile::tempdir().unwrap(),
        };
        cache.refer("main", COMMIT);
        cache.add(COMMIT, files);
        cache
    }

    fn repo(&self) -> PathBuf {
        self.root.path().join("models--org--name")
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo().join("snapshots").join(commit)
    }

    fn refer(&self, revision: &str, commit: &str) {
        let path = self.repo().join("refs").join(revision);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, commit).unwrap();
    }

    fn add(&self, commit: &str, files: &[(&str, &str)]) {
        let folder = self.snapshot(commit);
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(self.repo().join("blobs")).unwrap();
        for (number, (name, text)) in files.iter().enumerate() {
            let blob = format!("{commit}{number}");
            fs::write(self.repo().join("blobs").join(&blob), text).unwrap();
            link(&Path::new("../../blobs").join(&blob), &folder.join(name));
        }
    }

    fn options(&self) -> HubOptions {
        HubOptions {
            cache_dir: Some(self.root.path().into()),
            offline: true,
            ..HubOptions::default()
        }
    }

    fn at(&self, revision: &str) -> HubOptions {
        HubOptions {
            revision: Some(revision.into()),
            ..self.options()
        }
    }
}

#[cfg(unix)]
fn link(target: &Path, path: &Path) {
    std::os::unix::fs::symlink(target, path).unwrap();
}

#[cfg(not(unix))]
fn link(target: &Path, path: &Path) {
    fs::copy(path.parent().unwrap().join(target), path).unwrap();
}

fn refused(text: &str, options: &HubOptions) -> String {
    resolve(text, options).unwrap_err().to_string()
}

const MODEL: [(&str, &str); 3] = [
    ("config.json", "{}"),
    ("tokenizer.json", "{}"),
    ("model.safetensors", "weights"),
];

#[test]
fn an_existing_folder_is_returned_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let options = HubOptions::default();
    assert_eq!(resolve(path, &options).unwrap(), folder.path());

    let file = folder.path().join("model.safetensors");
    fs::write(&file, "").unwrap();
    let message = refused(file.to_str().unwrap(), &options);
    assert!(message.contains("give the folder"), "{message}");
}

#[test]
fn offline_a_model_is_found_in_the_cache_by_branch_and_by_commit() {
    let cache = Cache::with(&MODEL);
    cache.add(OTHER_COMMIT, &MODEL);
    cache.refer("refs/pr/1", OTHER_COMMIT);
    for (options, commit) in [
        (cache.options(), COMMIT),
        (cache.at("main"), COMMIT),
        (cache.at(COMMIT), COMMIT),
        (cache.at(OTHER_COMMIT), OTHER_COMMIT),
        (cache.at("refs/pr/1"), OTHER_COMMIT),
    ] {
        let found = resolve("org/name", &options).unwrap();
        assert_eq!(found, cache.snapshot(commit), "{options:?}");
        let weights = fs::read_to_string(found.join("model.safetensors")).unwrap();
        assert_eq!(weights, "weights");
    }
}

#[test]
fn offline_an_adapter_and_a_sharded_model_are_found_in_the_cache() {
    let adapter = Cache::with(&[
        ("adapter_config.json", "{}"),
        ("adapter_model.safetensors", "weights"),
    ]);
    assert!(resolve("org/name", &adapter.options()).is_ok());

    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors",
                                   "b": "model-00002-of-00002.safetensors"}}"#;
    let sharded = Cache::with(&[
        ("config.json", "{}"),
        ("model.safetensors.index.json", index),
        ("model-00001-of-00002.safetensors", "one"),
        ("model-00002-of-00002.safetensors", "two"),
    ]);
    let found = resolve("org/name", &sharded.options()).unwrap();
    fs::remove_file(found.join("model-00002-of-00002.safetensors")).unwrap();
    let message = refused("org/name", &sharded.options());
    assert!(
        message.contains("lacks model-00002-of-00002.safetensors"),
        "{message}"
    );
}

#[test]
fn offline_an_incomplete_copy_is_not_taken_for_a_model() {
    let pickled = Cache::with(&[("config.json", "{}"), ("pytorch_model.bin", "x")]);
    let message = refused("org/name", &pickled.options());
    assert!(message.contains("lacks model.safetensors"), "{message}");
    assert!(message.contains("HF_HUB_OFFLINE"), "{message}");

    // A link whose blob was deleted.
    let cache = Cache::with(&MODEL);
    fs::remove_dir_all(cache.repo().join("blobs")).unwrap();
    let message = refused("org/name", &cache.options());
    assert!(
        message.contains("config.json, model.safetensors"),
        "{message}"
    );
}

#[test]
fn offline_what_is_not_in_the_cache_is_said_to_be_read_as_a_hub_id() {
    let cache = Cache::with(&MODEL);
    for (text, options) in [
        ("org/other", cache.options()),
        ("name", cache.options()),
        ("org/name", cache.at("v2")),
        ("org/name", cache.at("main/x")),
        ("org/name", cache.at(OTHER_COMMIT)),
    ] {
        let message = refused(text, &options);
        assert!(message.contains("read as a hub id"), "{message}");
        assert!(message.contains("nothing is fetched offline"), "{message}");
    }
}

#[test]
fn a_reference_that_leads_out_of_the_cache_is_refused() {
    let cache = Cache::with(&MODEL);
    cache.refer("main", "../../../elsewhere");
    let message = refused("org/name", &cache.options());
    assert!(message.contains("should hold a commit hash"), "{message}");
}

#[test]
fn impossible_ids_and_revisions_are_refused_before_anything_is_asked() {
    let cache = Cache::with(&MODEL);
    for text in [
        "../models--org--name",
        "org/../name",
        "my model",
        "org/name/more",
        "",
        "org/",
        "~/x",
    ] {
        let message = refused(text, &cache.options());
        assert!(
            message.contains("no such folder") || message.contains("no model was named"),
            "{text}: {message}"
        );
    }
    let message = refused("org/name", &cache.at("../snapshots"));
    assert!(message.contains("cannot be a revision"), "{message}");
}

#[cfg(not(feature = "hub"))]
#[test]
fn without_the_feature_the_cache_serves_and_everything_else_names_the_feature() {
    let cache = Cache::with(&MODEL);
    let online = HubOptions {
        offline: false,
        ..cache.options()
    };
    assert_eq!(
        resolve("org/name", &online).unwrap(),
        cache.snapshot(COMMIT)
    );
    let message = refused("org/other", &online);
    assert!(message.contains("--features hub"), "{message}");
    assert!(message.contains("give a folder"), "{message}");
}
