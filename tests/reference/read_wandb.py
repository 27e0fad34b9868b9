"""Reads a run of WandbTracker with the records of the package wandb, and prints them as JSON lines.

pip install wandb        (checked with 0.28.0 and 0.31.0)
python tests/reference/read_wandb.py runs/track/wandb

`wandb leet inspect --summary RUN_FOLDER` (0.31.0) prints what the package's own reader finds.
"""
import json
import struct
import sys
import zlib
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7


def records(data):
    """The records of a file: blocks as LevelDB's log has them, behind a header of seven bytes."""
    ident, magic, version = struct.unpack("<4sHB", data[:HEADER])
    assert (ident, magic, version) == (b":W&B", 0xBEE1, 0), (ident, magic, version)
    at, record = HEADER, b""
    while at < len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        checksum, size, kind = struct.unpack("<IHB", data[at : at + HEADER])
        part = data[at + HEADER : at + HEADER + size]
        assert zlib.crc32(bytes([kind]) + part) == checksum, f"the checksum at {at} differs"
        at += HEADER + size
        record += part
        if kind in (1, 4):
            yield record
            record = b""
    assert not record, "the last record has no end"


def value(text):
    return json.loads(text)


files = sorted(Path(sys.argv[1]).glob("offline-run-*/run-*.wandb"))
assert files, f"no offline runs in {sys.argv[1]}"
for path in files:
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        line = {"num": record.num, "kind": kind}
        if kind == "run":
            line |= {"id": record.run.run_id, "project": record.run.project, "start": record.run.start_time.seconds}
        if kind == "config":
            line["config"] = {item.key: value(item.value_json) for item in record.config.update}
        if kind == "history":
            line["step"] = record.history.step.num
            line["numbers"] = {item.key: value(item.value_json) for item in record.history.item}
            assert line["numbers"]["_step"] == line["step"], line
        if kind == "summary":
            line["summary"] = {item.key: value(item.value_json) for item in record.summary.update}
        print(json.dumps(line))
