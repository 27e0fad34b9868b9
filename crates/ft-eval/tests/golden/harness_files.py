"""Checks that lm-evaluation-harness reads the files that the harness of ft-eval writes.

FT_HARNESS_OUT=/tmp/out cargo test --offline -p ft-eval --features harness --test it files_are_named
python crates/ft-eval/tests/golden/harness_files.py /tmp/out
"""

import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp()
assert version("lm_eval") == "0.4.13"

import datasets  # noqa: E402
from lm_eval.utils import (  # noqa: E402
    get_file_datetime,
    get_file_task_name,
    get_latest_filename,
    get_results_filenames,
    get_sample_results_filenames,
    hash_string,
    make_table,
)

files = [str(path) for path in Path(sys.argv[1]).rglob("*") if path.is_file()]
latest = get_latest_filename(get_results_filenames(files))
results = json.loads(Path(latest).read_text(encoding="utf-8"))
print(make_table(results))
if "groups" in results:
    print(make_table(results, "groups"))
date = get_file_datetime(latest).removesuffix(".json")
samples = [f for f in get_sample_results_filenames(files) if get_file_datetime(f) == date]
assert {get_file_task_name(Path(f).name) for f in samples} == set(results["configs"]), samples
for path in samples:
    task = get_file_task_name(Path(path).name)
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]
    for row in rows:
        assert row["doc_hash"] == hash_string(json.dumps(row["doc"], indent=2, ensure_ascii=False)), path
        assert row["prompt_hash"] == hash_string(row["arguments"]["gen_args_0"]["arg_0"]), path
        assert row["target_hash"] == hash_string(row["target"]), path
        assert set(row["metrics"]) <= set(row), path
    hashes = "".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows)
    assert results["task_hashes"][task] == hash_string(hashes), path
    loaded = datasets.load_dataset("json", data_files=path, split="train")
    assert len(loaded) == len(rows), path
    print(f"{task}: {len(rows)} samples read, hashes agree")
