import errno
import os
import resource
from datetime import datetime
from importlib import metadata

import pytest

from tutelage.errors import CheckpointError, ConfigError
from tutelage.tracking.fingerprint import file_fingerprint
from tutelage.tracking.manifest import load_manifest, verify
from tutelage.tracking.stage import StageFolder, StageInfo, stage_path

INFO = StageInfo("sft", {"steps": 3}, "f" * 64, {"base": "b" * 64}, seed=5)


def make(run_folder, content="weights", name="sft"):
    with StageFolder.create(run_folder, name, INFO) as folder:
        (folder.path / "model").mkdir()
        (folder.path / "model" / "weights.bin").write_text(content)
        folder.metrics["sft/loss"] = 1.25
    return folder


def fail(run_folder, error):
    with StageFolder.create(run_folder, "sft", INFO) as folder:
        (folder.path / "half").write_text("x")
        raise error


def stages(run_folder):
    return sorted(os.listdir(run_folder / "stages"))


def test_a_finished_stage_is_published_with_its_manifest(tmp_path):
    folder = make(tmp_path)
    assert folder.path == tmp_path / "stages" / "sft" == stage_path(tmp_path, "sft")
    assert stages(tmp_path) == ["sft"]
    manifest = load_manifest(folder.path)
    assert (manifest.kind, manifest.stage, manifest.seed) == ("sft", "sft", 5)
    assert manifest.config == {"steps": 3}
    assert manifest.inputs == {"base": "b" * 64}
    assert manifest.metrics == {"sft/loss": 1.25}
    assert manifest.versions["torch"] == metadata.version("torch")
    assert list(manifest.files) == ["model/weights.bin"]
    entry = manifest.files["model/weights.bin"]
    assert entry.bytes == len("weights")
    assert entry.sha256 == file_fingerprint(folder.path / "model" / "weights.bin")
    assert datetime.fromisoformat(manifest.started) <= datetime.fromisoformat(manifest.finished)
    assert datetime.fromisoformat(manifest.finished).utcoffset().total_seconds() == 0


def test_nothing_is_visible_before_the_stage_ends(tmp_path):
    with StageFolder.create(tmp_path, "sft", INFO) as folder:
        assert folder.path == tmp_path / "stages" / ".sft.partial"
        assert not stage_path(tmp_path, "sft").exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failed_or_interrupted_stage_leaves_nothing(tmp_path, error):
    with pytest.raises(error):
        fail(tmp_path, error)
    assert stages(tmp_path) == []


def test_a_failed_second_attempt_leaves_the_finished_stage(tmp_path):
    make(tmp_path, "first")
    with pytest.raises(RuntimeError):
        fail(tmp_path, RuntimeError)
    assert stages(tmp_path) == ["sft"]
    assert (stage_path(tmp_path, "sft") / "model" / "weights.bin").read_text() == "first"
    verify(stage_path(tmp_path, "sft"))


def test_a_second_attempt_replaces_the_finished_stage(tmp_path):
    make(tmp_path, "first")
    make(tmp_path, "second")
    assert stages(tmp_path) == ["sft"]
    assert (stage_path(tmp_path, "sft") / "model" / "weights.bin").read_text() == "second"
    verify(stage_path(tmp_path, "sft"))


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    partial = tmp_path / "stages" / ".sft.partial"
    partial.mkdir(parents=True)
    (partial / "half").write_text("x")
    folder = make(tmp_path)
    assert stages(tmp_path) == ["sft"]
    assert not (folder.path / "half").exists()


def test_a_stage_that_was_being_replaced_when_the_run_was_killed_comes_back(tmp_path):
    folder = make(tmp_path, "first")
    folder.path.rename(tmp_path / "stages" / ".sft.stale")
    with pytest.raises(RuntimeError):
        fail(tmp_path, RuntimeError)
    assert (stage_path(tmp_path, "sft") / "model" / "weights.bin").read_text() == "first"


def test_a_stale_copy_beside_a_finished_stage_is_removed(tmp_path):
    make(tmp_path)
    (tmp_path / "stages" / ".sft.stale").mkdir()
    make(tmp_path, "second")
    assert stages(tmp_path) == ["sft"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "-x", "ü"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="not allowed"):
        stage_path(tmp_path, name)


def test_a_full_disk_while_the_stage_writes_is_a_checkpoint_error(tmp_path):
    make(tmp_path, "first")
    with pytest.raises(CheckpointError, match="Free some space"):
        fail(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    assert (stage_path(tmp_path, "sft") / "model" / "weights.bin").read_text() == "first"
    assert stages(tmp_path) == ["sft"]


def test_a_full_disk_told_by_another_library_is_recognised(tmp_path):
    with pytest.raises(CheckpointError, match="Free some space"):
        fail(tmp_path, RuntimeError("I/O error: No space left on device (os error 28)"))
    assert stages(tmp_path) == []


def test_a_full_disk_while_the_manifest_is_written_keeps_the_old_stage(tmp_path):
    make(tmp_path, "first")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with (
            pytest.raises(CheckpointError, match="Free some space"),
            StageFolder.create(tmp_path, "sft", INFO),
        ):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stages(tmp_path) == ["sft"]
    verify(stage_path(tmp_path, "sft"))


def test_an_error_that_has_nothing_to_do_with_storage_stays_what_it_is(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="absent"),
        StageFolder.create(tmp_path, "sft", INFO),
    ):
        (tmp_path / "absent").read_text()


def test_a_run_folder_that_cannot_be_made_is_a_checkpoint_error(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(CheckpointError, match="cannot write"),
        StageFolder.create(tmp_path / "file", "sft", INFO),
    ):
        pass
