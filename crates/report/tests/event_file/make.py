"""Writes golden.tfevents with TensorBoard's own writer. Made with TensorBoard 2.21."""

import pathlib

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

with open(pathlib.Path(__file__).with_name("golden.tfevents"), "wb") as file:
    writer = RecordWriter(file)
    writer.write(Event(wall_time=1_700_000_000.25, file_version="brain.Event:2").SerializeToString(deterministic=True))
    for wall_time, step, scalars in [
        (1_700_000_001.5, 1, {"loss": 4.942863, "lr": 0.0}),
        (1_700_000_002.75, 300, {"similarity/positive": -0.5}),
    ]:
        event = Event(wall_time=wall_time, step=step)
        for tag, value in scalars.items():
            event.summary.value.add(tag=tag, simple_value=value)
        writer.write(event.SerializeToString(deterministic=True))
