"""A dataset in two shards and a dictionary of splits, as `datasets` saves them, and a file of Arrow; the rows of all are in saved.json.

pip install datasets==5.2.0 pyarrow==26.0.1
"""
import datetime
import json
from pathlib import Path

import datasets
import pyarrow as pa

assert (datasets.__version__, pa.__version__) == ("5.2.0", "26.0.1"), (datasets.__version__, pa.__version__)
FOLDER = Path(__file__).parent / "saved"
ROWS = [
    {"text": "grün", "n": 1, "x": 0.5, "ok": True, "label": 1, "tags": ["a", "b"],
     "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    {"text": None, "n": -2, "x": 1.5, "ok": False, "label": 0, "tags": [], "messages": []},
    {"text": "", "n": 3, "x": -2.0, "ok": None, "label": 1, "tags": ["c"], "messages": [{"role": "assistant", "content": None}]},
]
datasets.disable_progress_bars()
whole = datasets.Dataset.from_list(ROWS).cast_column("label", datasets.ClassLabel(names=["no", "yes"]))
whole.save_to_disk(FOLDER / "shards", num_shards=2)
datasets.DatasetDict({"test": whole.select([0]), "train": whole.select([2, 0])}).save_to_disk(FOLDER / "splits")

# What datasets does not write: the file format, other types, a column of a dictionary.
day = datetime.datetime(2024, 2, 29, 12, 30, 0, 250000)
others = pa.table({
    "small": pa.array([1, None, 255], pa.uint8()),
    "half": pa.array([0.5, 1.25, -2.0], pa.float32()),
    "kind": pa.array(["a", None, "a"]).dictionary_encode(),
    "large": pa.array(["x", "y", "z"], pa.large_string()),
    "view": pa.array(["v", "a text of more than twelve bytes", None], pa.string_view()),
    "bytes": pa.array([b"\x00\xff", b"", None]),
    "day": pa.array([day.date(), None, day.date()]),
    "time": pa.array([day, None, day], pa.timestamp("ms")),
    "pair": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2)),
    "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    "none": pa.nulls(3),
})
with pa.OSFile(str(FOLDER / "others.arrow"), "wb") as sink, pa.ipc.new_file(sink, others.schema) as writer:
    writer.write_table(others, max_chunksize=2)
expected = [
    {"small": 1, "half": 0.5, "kind": "a", "large": "x", "view": "v", "bytes": "AP8=", "day": "2024-02-29",
     "time": "2024-02-29 12:30:00.250 +00:00", "pair": [1, 2], "map": {"k": 1}, "none": None},
    {"small": None, "half": 1.25, "kind": None, "large": "y", "view": "a text of more than twelve bytes", "bytes": "", "day": None,
     "time": None, "pair": None, "map": None, "none": None},
    {"small": 255, "half": -2.0, "kind": "a", "large": "z", "view": None, "bytes": None, "day": "2024-02-29",
     "time": "2024-02-29 12:30:00.250 +00:00", "pair": [3, 4], "map": {}, "none": None},
]
(FOLDER / "saved.json").write_text(
    json.dumps({"rows": datasets.load_from_disk(FOLDER / "shards").to_list(), "others": expected}, ensure_ascii=False) + "\n", encoding="utf-8")
