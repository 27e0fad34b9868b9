"""Reads a run of WandbTracker with the package wandb, and prints its records as JSON lines.

pip install wandb
python tests/reference/read_wandb.py runs/track/wandb
"""
import json
import sys
from pathlib import Path

import wandb
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal import datastore

wandb._assert_is_internal_process = True


def value(text):
    return json.loads(text)


files = sorted(Path(sys.argv[1]).glob("offline-run-*/run-*.wandb"))
assert files, f"no offline runs in {sys.argv[1]}"
for path in files:
    store = datastore.DataStore()
    store.open_for_scan(str(path))
    while (data := store.scan_data()) is not None:
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
        if kind == "summary":
            line["summary"] = {item.key: value(item.value_json) for item in record.summary.update}
        print(json.dumps(line))
