"""Checkpoints on disk: whole or absent, damage found by name, never fewer than one."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from tutelage.errors import CheckpointError
from tutelage.tracking.checkpoint import CheckpointStore
from tutelage.tracking.fingerprint import fingerprint


def writer(step):
    def write(folder):
        (folder / "state.json").write_text(json.dumps({"step": step}))
        (folder / "files").mkdir()
        (folder / "files" / "metrics.jsonl").write_text("{}\n" * step)

    return write


def saved(folder, *steps, keep=2) -> CheckpointStore:
    store = CheckpointStore(folder / "sft", keep=keep)
    for step in steps:
        store.save(step, {"seconds": 0.1 * step}, writer(step))
    return store


def silent(message):
    raise AssertionError(f"nothing was to be reported, but: {message}")


def test_newest_is_the_one_of_the_highest_step_and_only_the_newest_are_kept(tmp_path):
    store = saved(tmp_path, 9, 10, 100)
    found = store.newest(silent)
    assert (found.step, found.path.name, found.about) == (100, "00000100", {"seconds": 10.0})
    assert sorted(os.listdir(store.folder)) == ["00000010", "00000100"]
    assert sorted(os.listdir(found.path)) == ["files", "manifest.json", "state.json"]
    assert store.latest() == found


def test_without_any_checkpoint_there_is_none(tmp_path):
    assert CheckpointStore(tmp_path / "never").newest(silent) is None
    assert CheckpointStore(tmp_path / "never").latest() is None


FILES = ("state.json", "files/metrics.jsonl", "manifest.json")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [flip, truncate, os.unlink])
def test_damage_is_found_by_name_and_the_checkpoint_before_is_used(tmp_path, file, damage):
    store = saved(tmp_path, 1, 2)
    damage(store.folder / "00000002" / file)
    reported = []
    assert store.newest(reported.append).step == 1
    (message,) = reported
    assert f"00000002/{file}" in message
    assert message.endswith("; the checkpoint of step 1 is used instead")


def test_every_single_byte_of_a_manifest_counts(tmp_path):
    store = saved(tmp_path, 1, keep=1)
    path = store.folder / "00000001" / "manifest.json"
    whole = path.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        if whole[position : position + 1].isspace():
            continue
        with pytest.raises(CheckpointError, match=r"manifest\.json"):
            store.newest(silent)


def rewrite(path, change):
    row = json.loads(path.read_text()) | change
    del row["digest"]
    path.write_text(json.dumps({**row, "digest": fingerprint(row)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "has schema 2, this Tutelage reads 1: resume with the Tutelage that wrote"),
        ({"optimizer": "x"}, r"other keys than expected \(optimizer\): resume with the Tutelage"),
    ],
)
def test_checkpoint_of_another_version_is_refused_and_not_passed_over(tmp_path, change, words):
    store = saved(tmp_path, 1, 2)
    rewrite(store.folder / "00000002" / "manifest.json", change)
    for look in (lambda: store.newest(silent), store.latest):
        with pytest.raises(CheckpointError, match=words):
            look()
    assert not store.is_empty()


def test_damage_is_not_taken_for_another_version(tmp_path):
    store = saved(tmp_path, 1, 2)
    path = store.folder / "00000002" / "manifest.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 3'))
    reported = []
    assert store.newest(reported.append).step == 1
    assert "its digest differs" in reported[0]


def test_manifest_in_the_folder_of_another_step_is_refused(tmp_path):
    store = saved(tmp_path, 1)
    rewrite(store.folder / "00000001" / "manifest.json", {"step": 7})
    with pytest.raises(CheckpointError, match="is that of step 7"):
        store.newest(silent)


def test_without_an_undamaged_one_the_stage_does_not_silently_begin_anew(tmp_path):
    store = saved(tmp_path, 1, 2)
    flip(store.folder / "00000001" / "state.json")
    flip(store.folder / "00000002" / "state.json")
    with pytest.raises(
        CheckpointError, match=r"00000002/state\.json .*no older .*: delete .*sft to start"
    ):
        store.newest(silent)


def test_after_going_back_the_damaged_one_goes_and_not_the_new_one(tmp_path):
    store = saved(tmp_path, 10, 20, keep=1)
    # Keep 1 has removed step 10; going back means that training starts over and saves again.
    flip(store.folder / "00000020" / "state.json")
    store.save(15, {}, writer(15))
    assert os.listdir(store.folder) == ["00000015"]
    flip(store.folder / "00000015" / "state.json")
    store.save(15, {}, writer(15))
    assert store.newest(silent).step == 15


@pytest.fixture
def disk_is_full():
    """The kernel refuses files beyond ten bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


def test_full_disk_leaves_the_older_one_and_the_next_save_works(tmp_path, request):
    store = saved(tmp_path, 1, keep=1)
    free_space = request.getfixturevalue("disk_is_full")
    with pytest.raises(CheckpointError, match=r"cannot write .*00000002.*Free some space"):
        store.save(2, {}, writer(2))
    assert os.listdir(store.folder) == ["00000001"]
    free_space()
    assert store.newest(silent).step == 1
    store.save(3, {}, writer(3))
    assert os.listdir(store.folder) == ["00000003"]


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "sft").write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="cannot write"):
        CheckpointStore(tmp_path / "sft").save(1, {}, writer(1))


def test_writer_that_fails_leaves_nothing(tmp_path):
    store = saved(tmp_path, 1)

    def fail(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("half done")

    with pytest.raises(RuntimeError, match="half done"):
        store.save(2, {}, fail)
    assert os.listdir(store.folder) == ["00000001"]


def test_with_one_kept_there_is_a_valid_one_before_every_change_on_disk(tmp_path):
    store = saved(tmp_path, 1, keep=1)
    looking, looks, changes = [True], [], []

    def look(event, arguments):
        watched = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")
        if looking and event in watched:
            looking.pop()
            changes.append(event)
            looks.append(store.newest(silent).step)
            looking.append(True)

    # An audit hook stays for ever; an empty `looking` blinds it.
    sys.addaudithook(look)
    store.save(2, {}, writer(2))
    store.save(3, {}, writer(3))
    looking.clear()
    assert store.newest(silent).step == 3
    assert looks == sorted(looks)
    assert {1, 2, 3} == set(looks)
    assert {"os.rename", "shutil.rmtree", "os.mkdir"} <= set(changes)


SAVER = """
import sys
from pathlib import Path
from tutelage.tracking.checkpoint import CheckpointStore

store = CheckpointStore(Path(sys.argv[1]), keep=1)

def write(folder):
    for i in range(20):
        (folder / f"{i}.bin").write_bytes(bytes([step % 256]) * 20_000)

for step in range(1, 100_000):
    store.save(step, {}, write)
    print(step, flush=True)
"""


def test_killed_writer_loses_nothing_that_it_had_saved(tmp_path):
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        told = tmp_path / f"{attempt}.txt"
        with told.open("w") as output:
            process = subprocess.Popen([sys.executable, "-c", SAVER, str(folder)], stdout=output)
        while not told.stat().st_size:
            time.sleep(0.001)
        time.sleep(0.013 * attempt)
        process.kill()
        process.wait()
        last = int(told.read_text().splitlines()[-1])
        store = CheckpointStore(folder, keep=1)
        found = store.newest(silent)
        # What was said to be saved is there, or the one after it that was not yet spoken of.
        assert found.step - last in (0, 1)
        assert (found.path / "0.bin").read_bytes() == bytes([found.step % 256]) * 20_000
        store.tidy()
        assert all(not name.startswith(".") for name in os.listdir(folder))
