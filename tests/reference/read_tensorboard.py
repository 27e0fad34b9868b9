"""Reads TensorBoard's event files with TensorBoard's own reader and compares them with a run's CSV file.

pip install tensorboard==2.20.0
python read_tensorboard.py EVENTS METRICS.csv     (of `sft --tensorboard EVENTS --csv METRICS.csv`)
"""
import csv
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
expected = {}
for row in csv.DictReader(open(sys.argv[2], encoding="utf-8")):
    expected.setdefault(row["name"], {})[int(row["step"])] = float(row["value"])
tags = set(events.Tags()["scalars"])
assert tags == set(expected), (tags, set(expected))
count = 0
for tag in tags:
    found = {event.step: event.value for event in events.Scalars(tag)}
    assert found.keys() == expected[tag].keys(), (tag, found.keys(), expected[tag].keys())
    for step, value in found.items():
        assert abs(value - expected[tag][step]) <= 1e-6 * abs(expected[tag][step]) + 1e-12, (tag, step)
        count += 1
print(f"{len(tags)} tags, {count} numbers are equal")
