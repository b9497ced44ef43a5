"""Checkpoints under faults of the machine: no space, no permission, a crash at any moment."""

import json
import os
import subprocess
import sys

import pytest

from tutelage.errors import CheckpointError
from tutelage.tracking.checkpoint import CheckpointStore

CRASHES = """
import json, os, sys
from pathlib import Path
from tutelage.tracking.checkpoint import CheckpointStore

CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}

def writer(step):
    def write(folder):
        (folder / "state.json").write_text(json.dumps([step] * 100))
        (folder / "files").mkdir()
        (folder / "files" / "metrics.jsonl").write_text("{}")
    return write

def crash_at(number):
    left = [number]
    def hook(event, arguments):
        if event in CHANGES:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
    sys.addaudithook(hook)

def fail(message):
    raise SystemExit(f"damaged by a crash: {message}")

root, found = Path(sys.argv[1]), []
for number in range(1000):
    store = CheckpointStore(root / str(number), keep=1)
    store.save(1, {}, writer(1))
    child = os.fork()
    if not child:
        crash_at(number)
        store.save(2, {}, writer(2))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    after = CheckpointStore(root / str(number), keep=1)
    newest = after.newest(fail)
    content = json.loads((newest.path / "state.json").read_text())
    assert content == [newest.step] * 100
    after.tidy()
    after.save(3, {}, writer(3))
    assert sorted(os.listdir(after.folder)) == ["00000003"], os.listdir(after.folder)
    found.append(newest.step)
    if code == 0:
        break
print(json.dumps(found))
"""


def test_a_crash_at_any_moment_of_saving_leaves_a_valid_checkpoint(tmp_path):
    """With one kept: before every single change on disk, between saving and deleting too."""
    command = [sys.executable, "-c", CRASHES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == sorted(found)
    # Before the rename the old one is there, after it the new one, and deleting takes moments too.
    assert found.count(1) >= 10
    assert found.count(2) >= 3


IN_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]


@pytest.fixture
def on_small_disk(tmp_path):
    """Runs a program whose first argument is a disk of 256 kB, made for it alone."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=256k tmpfs "$0" && '
    try:
        tried = subprocess.run([*IN_NAMESPACE, f"{mount} true", str(disk)], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) to mount a small disk with")
    if tried.returncode:
        pytest.skip(f"a small disk cannot be mounted: {tried.stderr.decode().strip()}")

    def run(program):
        command = [*IN_NAMESPACE, f'{mount} exec "$1" -c "$2" "$0"', str(disk)]
        done = subprocess.run([*command, sys.executable, program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


SMALL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
from tutelage.errors import CheckpointError
from tutelage.tracking.checkpoint import CheckpointStore

disk, told = Path(sys.argv[1]), []
store = CheckpointStore(disk / "checkpoints", keep=2)

def remount(how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)

def save(step, size):
    try:
        store.save(step, {}, lambda folder: (folder / "w.bin").write_bytes(bytes(size)))
        outcome = "saved"
    except CheckpointError as error:
        outcome = str(error).replace(str(disk), "DISK")
    told.append([outcome, store.newest(told.append).step, sorted(os.listdir(store.folder))])

save(1, 1000)
save(2, 1_000_000)
save(3, 1000)
remount("ro")
save(4, 1000)
remount("rw")
save(5, 1000)
print(json.dumps(told))
"""


def test_full_and_read_only_disks_leave_what_was_saved_and_the_next_save_works(on_small_disk):
    assert on_small_disk(SMALL_DISK) == [
        ["saved", 1, ["00000001"]],
        [
            "cannot write DISK/checkpoints/00000002: No space left on device. Free some space and "
            "run again; finished stages are kept",
            1,
            ["00000001"],
        ],
        ["saved", 3, ["00000001", "00000003"]],
        [
            "cannot write DISK/checkpoints/00000004: Read-only file system. Make the folder "
            "writable or choose another run folder",
            3,
            ["00000001", "00000003"],
        ],
        ["saved", 5, ["00000003", "00000005"]],
    ]


SMALL_LOGS = """
import json, sys
from pathlib import Path
from tutelage.config import TrackersConfig
from tutelage.records import Completion, Message, Prompt, Score, StopReason
from tutelage.tracking.metrics import MetricWriter, SampleWriter
from tutelage.tracking.trackers import TrackedStage, Trackers

disk, told = Path(sys.argv[1]), []
stage = TrackedStage("a", "0", {})
trackers = Trackers(TrackersConfig(tensorboard=True)).open(stage, disk, told.append)
samples = SampleWriter(disk / "samples.jsonl")
prompt = Prompt("p", (Message("user", "Hi"),))
completion = Completion("p", (4, 5), (-0.5, -0.25), "x" * 1000, StopReason.LENGTH)
with MetricWriter.open(disk, trackers, report=told.append) as metrics:
    metrics.log(1, {"a/x": 1.0})
    metrics.flush()
    (disk / "filler").write_bytes(bytes(150_000))
    try:
        (disk / "more").write_bytes(bytes(300_000))
    except OSError:
        pass
    for step in range(2, 400):
        metrics.log(step, {f"a/{i}": 1.0 for i in range(40)})
        samples.log(step, [prompt], [completion], [Score(1.0)])
        if step % 100 == 0:
            metrics.flush()
    samples.close()
whole = [json.loads(line)["step"] for line in (disk / "metrics.jsonl").read_text().splitlines()]
print(json.dumps({"told": told, "first": whole[0], "failures": metrics.failures > 300}))
"""


@pytest.mark.slow
def test_full_log_disk_never_stops_training_and_is_reported_once_per_tracker(on_small_disk):
    pytest.importorskip("tensorboard")
    found = on_small_disk(SMALL_LOGS)
    assert (found["first"], found["failures"]) == (1, True)
    names = [text.split()[0] for text in found["told"]]
    assert sorted(names) == ["JsonLinesSink", "TensorBoardSink"]
    assert all("training goes on without it" in text for text in found["told"])


def test_failing_rename_leaves_what_was_saved_and_the_next_save_works(tmp_path):
    store = CheckpointStore(tmp_path / "a", keep=1)
    store.save(1, {}, lambda folder: (folder / "w").write_text("one"))
    # A folder cannot be renamed to a link, and this one leads nowhere.
    (store.folder / "00000002").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"cannot write .*00000002: Not a directory"):
        store.save(2, {}, lambda folder: (folder / "w").write_text("two"))
    (store.folder / "00000002").unlink()
    assert store.newest(pytest.fail).step == 1
    assert os.listdir(store.folder) == ["00000001"]
    store.save(2, {}, lambda folder: (folder / "w").write_text("two"))
    assert os.listdir(store.folder) == ["00000002"]
