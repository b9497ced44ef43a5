import json

import pytest

from tutelage.errors import CheckpointError
from tutelage.tracking.manifest import Manifest, load_manifest, verify
from tutelage.tracking.stage import StageFolder, StageInfo


@pytest.fixture
def stage(tmp_path):
    info = StageInfo("sft", {"a": [1, None, "x"]}, "f", {}, seed=0)
    with StageFolder.create(tmp_path, "sft", info) as folder:
        (folder.path / "model").mkdir()
        (folder.path / "model" / "weights.bin").write_bytes(b"0123456789")
        (folder.path / "notes.txt").write_text("notes")
        folder.metrics["bad"] = float("nan")
    return folder.path


def test_an_untouched_stage_verifies(stage):
    assert verify(stage).config == {"a": [1, None, "x"]}


def test_a_manifest_survives_the_way_through_json(stage):
    manifest = load_manifest(stage)
    assert manifest.metrics == {"bad": None}
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


@pytest.mark.parametrize("name", ["model/weights.bin", "notes.txt"])
def test_one_changed_byte_is_found_and_the_file_named(stage, name):
    content = bytearray((stage / name).read_bytes())
    content[0] ^= 1
    (stage / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} is damaged .*SHA-256"):
        verify(stage)


def test_a_truncated_file_is_found_with_both_sizes(stage):
    (stage / "model" / "weights.bin").write_bytes(b"0123")
    with pytest.raises(CheckpointError, match=r"weights.bin is damaged \(4 bytes instead of 10\)"):
        verify(stage)


def test_a_missing_file_is_found(stage):
    (stage / "notes.txt").unlink()
    with pytest.raises(CheckpointError, match=r"notes.txt is missing.*run it again"):
        verify(stage)


def test_a_folder_without_manifest_is_no_finished_stage(tmp_path):
    with pytest.raises(CheckpointError, match="not a finished stage"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}'])
def test_a_damaged_manifest_is_named(stage, text):
    (stage / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest.json cannot be read"):
        load_manifest(stage)


def test_a_manifest_of_a_newer_release_is_refused_with_advice(stage):
    row = json.loads((stage / "manifest.json").read_text())
    (stage / "manifest.json").write_text(json.dumps(row | {"schema": 2}))
    with pytest.raises(CheckpointError, match="schema 2, this Tutelage reads 1: upgrade"):
        load_manifest(stage)
