//! Downloads from a hub that runs in the test.

use std::fs;
use std::path::Path;

use ft_core::{HubOptions, resolve, resolve_dataset};

use super::mock_hub::{MockHub, Says};
use super::{COMMIT, Cache, MODEL, OTHER_COMMIT, refused};

const INDEX: &str = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors",
                                       "b": "model-00002-of-00002.safetensors"}}"#;

fn hub(files: &[(&str, &str)]) -> MockHub {
    MockHub::start(Says {
        commit: COMMIT.into(),
        files: files
            .iter()
            .map(|(name, text)| (name.to_string(), text.to_string()))
            .collect(),
        ..Says::default()
    })
}

fn options(hub: &MockHub, cache: &Path) -> HubOptions {
    HubOptions {
        cache_dir: Some(cache.into()),
        endpoint: Some(hub.endpoint.clone()),
        ..HubOptions::default()
    }
}

/// An address at which nobody listens.
fn unreachable() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_is_fetched_into_the_standard_cache_without_pickles_and_the_like() {
    let hub = hub(&[
        ("config.json", "{}"),
        ("generation_config.json", "{}"),
        ("tokenizer.json", "{\"a\": 1}"),
        ("tokenizer_config.json", "{}"),
        ("chat_template.jinja", "{{ x }}"),
        ("additional_chat_templates/tool_use.jinja", "{{ y }}"),
        ("model.safetensors", "weights"),
        ("pytorch_model.bin", "pickle"),
        ("model.fp16.safetensors", "half"),
        ("onnx/model.onnx", "onnx"),
        ("original/model.safetensors", "twice"),
        ("README.md", "# card"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let options = options(&hub, cache.path());
    let folder = resolve("org/name", &options).unwrap();

    let repo = cache.path().join("models--org--name");
    assert_eq!(folder, repo.join("snapshots").join(COMMIT));
    assert_eq!(
        names(&folder),
        [
            "additional_chat_templates",
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    );
    for (file, text) in [
        ("model.safetensors", "weights"),
        ("tokenizer.json", "{\"a\": 1}"),
        ("additional_chat_templates/tool_use.jinja", "{{ y }}"),
    ] {
        assert_eq!(fs::read_to_string(folder.join(file)).unwrap(), text);
    }
    let reference = fs::read_to_string(repo.join("refs/main")).unwrap();
    assert_eq!(reference, COMMIT);

    // From now on it is there offline.
    let offline = HubOptions {
        offline: true,
        ..options
    };
    hub.take_requests();
    assert_eq!(resolve("org/name", &offline).unwrap(), folder);
    assert!(hub.take_requests().is_empty());
}

#[test]
fn what_is_in_the_cache_is_not_fetched_again_and_a_commit_asks_nobody() {
    let hub = hub(&MODEL);
    let cache = tempfile::tempdir().unwrap();
    let mut options = options(&hub, cache.path());
    let folder = resolve("org/name", &options).unwrap();
    assert_eq!(
        hub.take_fetched(),
        ["config.json", "model.safetensors", "tokenizer.json"]
    );

    assert_eq!(resolve("org/name", &options).unwrap(), folder);
    assert!(hub.take_fetched().is_empty());

    options.revision = Some(COMMIT.into());
    assert_eq!(resolve("org/name", &options).unwrap(), folder);
    assert!(hub.take_requests().is_empty());

    // The branch moves: only then something new is fetched.
    hub.change(|says| {
        says.commit = OTHER_COMMIT.into();
        says.files
            .insert("config.json".into(), "{\"new\": 1}".into());
    });
    options.revision = Some("main".into());
    let moved = resolve("org/name", &options).unwrap();
    assert!(moved.ends_with(OTHER_COMMIT));
    assert!(folder.join("config.json").is_file());
}

#[test]
fn of_a_sharded_model_the_shards_of_its_index_are_fetched() {
    let hub = hub(&[
        ("config.json", "{}"),
        ("model.safetensors.index.json", INDEX),
        ("model-00001-of-00002.safetensors", "one"),
        ("model-00002-of-00002.safetensors", "two"),
        ("model-00001-of-00001.safetensors", "left over"),
        ("consolidated.safetensors", "twice"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let folder = resolve("org/name", &options(&hub, cache.path())).unwrap();
    assert_eq!(
        names(&folder),
        [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ]
    );
}

#[test]
fn an_index_with_absent_or_outlandish_shards_is_refused() {
    let files = [
        ("config.json", "{}"),
        ("model.safetensors.index.json", INDEX),
        ("model-00001-of-00002.safetensors", "one"),
    ];
    let hub = hub(&files);
    let cache = tempfile::tempdir().unwrap();
    let options = options(&hub, cache.path());
    let message = refused("org/name", &options);
    assert!(
        message.contains("lacks model-00002-of-00002.safetensors"),
        "{message}"
    );

    for shard in ["../../x.safetensors", "pytorch_model.bin", "*.safetensors"] {
        hub.change(|says| {
            says.commit = OTHER_COMMIT.into();
            let index = format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#);
            says.files
                .insert("model.safetensors.index.json".into(), index);
        });
        let message = refused("org/name", &options);
        assert!(
            message.contains("not the name of a safetensors"),
            "{message}"
        );
        fs::remove_dir_all(cache.path().join("models--org--name")).unwrap();
    }
}

#[test]
fn an_adapter_is_fetched_and_so_is_a_revision_with_a_slash() {
    let hub = hub(&[
        ("adapter_config.json", "{}"),
        ("adapter_model.safetensors", "factors"),
        ("adapter_model.bin", "pickle"),
        ("training_args.bin", "pickle"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions {
        revision: Some("refs/pr/1".into()),
        ..options(&hub, cache.path())
    };
    let folder = resolve("org/name", &options).unwrap();
    assert_eq!(
        names(&folder),
        ["adapter_config.json", "adapter_model.safetensors"]
    );
    let offline = HubOptions {
        offline: true,
        ..options
    };
    assert_eq!(resolve("org/name", &offline).unwrap(), folder);
}

#[test]
fn the_token_is_sent_as_given_and_otherwise_none_is_sent() {
    for token in [None, Some("hf_test")] {
        let hub = hub(&MODEL);
        let cache = tempfile::tempdir().unwrap();
        let options = HubOptions {
            token: token.map(String::from),
            ..options(&hub, cache.path())
        };
        resolve("org/name", &options).unwrap();
        let expected = token.map(|token| format!("Bearer {token}"));
        let requests = hub.take_requests();
        assert!(!requests.is_empty());
        for request in requests {
            assert_eq!(request.authorization, expected, "{}", request.path);
        }
    }
    let cache = tempfile::tempdir().unwrap();
    let broken = HubOptions {
        token: Some("hf_\ntest".into()),
        cache_dir: Some(cache.path().into()),
        endpoint: Some(unreachable()),
        ..HubOptions::default()
    };
    let message = refused("org/name", &broken);
    assert!(message.contains("check HF_TOKEN"), "{message}");
    assert!(!message.contains("test"), "{message}");
}

#[test]
fn a_model_that_is_not_there_is_said_to_be_neither_folder_nor_model() {
    let hub = hub(&MODEL);
    let cache = tempfile::tempdir().unwrap();
    let mut options = options(&hub, cache.path());
    let message = refused("org/other", &options);
    assert!(
        message.contains("neither a folder org/other nor a model"),
        "{message}"
    );
    options.revision = Some("v2".into());
    let message = refused("org/name", &options);
    assert!(message.contains("org/name has no revision v2"), "{message}");
}

#[test]
fn private_and_gated_models_name_the_token() {
    for (part, status, code) in [
        ("/api/", 401, "RepoNotFound"),
        ("/tree/", 403, "GatedRepo"),
        ("/resolve/", 401, "GatedRepo"),
        ("/resolve/", 403, "GatedRepo"),
    ] {
        let hub = hub(&MODEL);
        hub.change(|says| says.refuse = Some((part, status, code)));
        let cache = tempfile::tempdir().unwrap();
        let mut options = options(&hub, cache.path());
        for (token, expected) in [
            (None, "set HF_TOKEN"),
            (Some("hf_x"), "the token that was sent"),
        ] {
            options.token = token.map(String::from);
            let message = refused("org/name", &options);
            assert!(message.contains("HF_TOKEN"), "{message}");
            assert!(message.contains(expected), "{part} {status}: {message}");
            assert!(message.contains(&status.to_string()), "{message}");
        }
    }
}

#[test]
fn without_a_network_a_complete_copy_will_do_and_otherwise_the_hub_is_named() {
    let cache = Cache::with(&MODEL);
    let options = HubOptions {
        offline: false,
        endpoint: Some(unreachable()),
        ..cache.options()
    };
    assert_eq!(
        resolve("org/name", &options).unwrap(),
        cache.snapshot(COMMIT)
    );
    let message = refused("org/other", &options);
    let endpoint = options.endpoint.as_deref().unwrap();
    assert!(
        message.contains(&format!("cannot reach {endpoint}")),
        "{message}"
    );
    assert!(message.contains("no complete copy"), "{message}");
}

#[test]
fn pickled_weights_are_refused_and_named() {
    let hub = hub(&[
        ("config.json", "{}"),
        ("pytorch_model.bin", "pickle"),
        ("README.md", "# card"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let message = refused("org/name", &options(&hub, cache.path()));
    assert!(message.contains("but pytorch_model.bin"), "{message}");
    assert!(message.contains("save_pretrained"), "{message}");
    assert!(
        hub.take_fetched()
            .iter()
            .all(|file| !file.ends_with(".bin"))
    );
}

#[test]
fn a_file_that_arrives_damaged_is_thrown_away_and_the_older_copy_stays() {
    let hub = hub(&MODEL);
    let cache = tempfile::tempdir().unwrap();
    let options = options(&hub, cache.path());
    hub.change(|says| says.truncate = Some("model.safetensors"));
    let message = refused("org/name", &options);
    assert!(message.contains("another size"), "{message}");
    let repo = cache.path().join("models--org--name");
    // config.json and tokenizer.json are both "{}", so they share a blob.
    assert_eq!(names(&repo.join("blobs")).len(), 1);
    assert!(!repo.join("refs/main").exists());

    // The next attempt fetches what was damaged, and only that.
    hub.change(|says| says.truncate = None);
    hub.take_requests();
    let folder = resolve("org/name", &options).unwrap();
    assert_eq!(hub.take_fetched(), ["model.safetensors"]);

    // The branch moves to something that cannot be fetched: the copy of before is complete.
    hub.change(|says| {
        says.commit = OTHER_COMMIT.into();
        says.files
            .insert("model.safetensors".into(), "better weights".into());
        says.truncate = Some("model.safetensors");
    });
    assert_eq!(resolve("org/name", &options).unwrap(), folder);
    let weights = fs::read_to_string(folder.join("model.safetensors")).unwrap();
    assert_eq!(weights, "weights");
}

#[test]
fn of_a_dataset_the_chosen_files_are_fetched_and_are_there_offline() {
    let hub = hub(&[
        ("README.md", "card"),
        ("data/train-0.jsonl", "{}"),
        ("data/test-0.jsonl", "[]"),
        ("b [1].jsonl", "long enough"),
        ("evil%.jsonl", "x"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let options = options(&hub, cache.path());
    let train = |all: &[String]| -> Vec<String> {
        let of_train = all.iter().filter(|name| name.contains("train"));
        of_train.cloned().collect()
    };
    let folder = resolve_dataset("org/name", &train, &options).unwrap();
    assert_eq!(hub.take_fetched(), ["train-0.jsonl"]);
    let text = fs::read_to_string(folder.join("data/train-0.jsonl")).unwrap();
    assert_eq!(text, "{}");
    assert!(!folder.join("README.md").exists());
    let repo = cache.path().join("datasets--org--name");
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    // What is there is not fetched again; another choice is.
    resolve_dataset("org/name", &train, &options).unwrap();
    assert!(hub.take_fetched().is_empty());
    let data = |_: &[String]| vec!["data/test-0.jsonl".into(), "data/train-0.jsonl".into()];
    resolve_dataset("org/name", &data, &options).unwrap();
    assert_eq!(hub.take_fetched(), ["test-0.jsonl"]);

    let refused = |wanted: &dyn Fn(&[String]) -> Vec<String>| {
        let error = resolve_dataset("org/name", wanted, &options).unwrap_err();
        error.to_string()
    };
    assert!(refused(&|all| all.to_vec()).contains("evil%"));
    assert!(refused(&|_| vec!["x.jsonl".into()]).contains("has no file x.jsonl"));
    let none = refused(&|_| Vec::new());
    assert!(none.contains("data/test-0.jsonl"), "{none}");
    // A download that breaks off is no smaller dataset.
    hub.change(|says| says.truncate = Some("b [1].jsonl"));
    let both = |_: &[String]| vec!["data/train-0.jsonl".into(), "b [1].jsonl".into()];
    let broken = refused(&both);
    assert!(broken.contains("run again"), "{broken}");
    assert!(!folder.join("b [1].jsonl").exists());
    hub.change(|says| says.truncate = None);
    resolve_dataset("org/name", &both, &options).unwrap();
    assert!(folder.join("b [1].jsonl").exists());
    let error = resolve_dataset("org/other", &train, &options).unwrap_err();
    assert!(
        error.to_string().contains("no dataset org/other"),
        "{error}"
    );
    let offline = HubOptions {
        offline: true,
        ..options.clone()
    };
    assert_eq!(
        resolve_dataset("org/name", &train, &offline).unwrap(),
        folder
    );
    let gone = HubOptions {
        endpoint: Some(unreachable()),
        ..options
    };
    assert_eq!(resolve_dataset("org/name", &train, &gone).unwrap(), folder);
    let error = resolve_dataset("org/other", &train, &gone).unwrap_err();
    assert!(error.to_string().contains("cannot reach"), "{error}");
}
