"""Rows in a Parquet file: texts, numbers, null, lists of messages; two row groups, snappy.

pip install pyarrow==26.0.1
"""
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

assert pa.__version__ == "26.0.1", pa.__version__
FOLDER = Path(__file__).parent
ROWS = [
    {"text": "grün", "n": 1, "x": 0.5, "ok": True,
     "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    {"text": None, "n": -2, "x": 1.5, "ok": False, "messages": []},
    {"text": "", "n": 3, "x": -2.0, "ok": None, "messages": [{"role": "assistant", "content": None}]},
]
pq.write_table(pa.Table.from_pylist(ROWS), FOLDER / "rows.parquet", row_group_size=2, compression="snappy")
(FOLDER / "rows.json").write_text(json.dumps(ROWS, ensure_ascii=False) + "\n", encoding="utf-8")
