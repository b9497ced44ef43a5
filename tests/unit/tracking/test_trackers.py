"""Trackers: asked for and missing, asked for and there, and never in the way of training."""

import json
import os
import struct
import subprocess
import sys

import pytest

from tutelage.config import TrackersConfig
from tutelage.tracking.metrics import MetricWriter
from tutelage.tracking.trackers import TrackedStage, Trackers, check_trackers

STAGE = TrackedStage("sft", "0123456789abcdef", {"epochs": 2.0})

WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from tutelage.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("tracker", "extra"), [("tensorboard", "track"), ("wandb", "wandb"), ("trackio", "trackio")]
)
def test_missing_tracker_is_named_before_the_run_starts(tmp_path, tracker, extra):
    (tmp_path / "recipe.yaml").write_text(
        f"name: x\ntrackers: {{{tracker}: true}}\nstages:\n  a: {{kind: helpdesk, documents: 1}}\n"
    )
    arguments = ["run", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, tracker, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2
    expected = f"tutelage: {tracker} is not installed: pip install 'tutelage[{extra}]'\n"
    assert done.stderr == expected
    assert not (tmp_path / "run").exists()


def test_tensorboard_is_the_default_where_it_is_installed(tmp_path):
    pytest.importorskip("tensorboard")
    for config, expected in ((None, 1), (True, 1), (False, 0)):
        trackers = Trackers(TrackersConfig(tensorboard=config))
        sinks = trackers.open(STAGE, tmp_path, pytest.fail)
        for sink in sinks:
            sink.close()
        assert len(sinks) == expected
    check_trackers(TrackersConfig())


def log_twice(trackers, folder):
    """As a stage that was interrupted after step 2, and went on from its checkpoint of step 1."""
    reported = []
    for steps in ((1, 2), (2, 3)):
        sinks = trackers.open(STAGE, folder, reported.append)
        with MetricWriter.open(folder, sinks, report=reported.append) as writer:
            for step in steps:
                writer.log(step, {"sft/loss": 0.5 * step})
        assert writer.failures == 0
    assert reported == []


def records(log):
    """The records of a wandb file, which is a LevelDB log behind a header of seven bytes."""
    assert len(log) < 32_768, "longer files have several blocks"
    position = 7
    while position < len(log):
        # A checksum, the length, the kind: 1 is a whole record.
        _, length, kind = struct.unpack_from("<IHB", log, position)
        assert kind == 1
        yield log[position + 7 : position + 7 + length]
        position += 7 + length


WANDB = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_trackers import log_twice
from tutelage.config import TrackersConfig
from tutelage.tracking.trackers import Trackers

folder = Path(sys.argv[1])
log_twice(Trackers(TrackersConfig(wandb=True, tensorboard=False), "run", folder), folder)
"""


def test_wandb_writes_files_and_sends_nothing(tmp_path):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    environment = {name: text for name, text in os.environ.items() if "WANDB" not in name}
    # Without a network of any kind: whoever wants to send something fails.
    command = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        command = []
    command += [sys.executable, "-c", WANDB, str(tmp_path), os.path.dirname(__file__)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs = sorted(tmp_path.glob("wandb/offline-run-*/run-0123456789abcdef.wandb"))
    found = []
    for data in (each for path in runs for each in records(path.read_bytes())):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {i.key or i.nested_key[0]: i.value_json for i in record.history.item}
            found.append((json.loads(items["step"]), json.loads(items["sft/loss"])))
    assert found == [(1, 0.5), (2, 1.0), (2, 1.0), (3, 1.5)]


def test_trackio_keeps_one_run_of_an_interrupted_stage(tmp_path):
    pytest.importorskip("trackio")
    program = """
import os, sys
from pathlib import Path
os.environ["TRACKIO_DIR"] = sys.argv[1] + "/database"
sys.path.insert(0, sys.argv[2])
from test_trackers import log_twice
from tutelage.config import TrackersConfig
from tutelage.tracking.trackers import Trackers

folder = Path(sys.argv[1])
log_twice(Trackers(TrackersConfig(trackio=True, tensorboard=False), "run", folder), folder)
from trackio.sqlite_storage import SQLiteStorage
(name,) = SQLiteStorage.get_runs("tutelage")
rows = SQLiteStorage.get_logs("tutelage", name)
print(name, [(row["step"], row["sft/loss"]) for row in rows])
"""
    command = [sys.executable, "-c", program, str(tmp_path), os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = "run/sft/01234567 [(1, 0.5), (2, 1.0), (2, 1.0), (3, 1.5)]"
    assert expected in done.stdout.splitlines()
